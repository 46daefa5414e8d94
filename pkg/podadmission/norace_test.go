//go:build !race

package podadmission

const raceDetector = false
