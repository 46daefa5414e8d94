//go:build race

package podreview

const raceDetector = true
