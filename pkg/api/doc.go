// Package api names everything that a user may write or read: the labels and annotations of
// sakeeper.io, the reasons of events, and names of objects and paths.
//
// These names are a contract: they do not change, and what they mean changes only with an
// entry in the CHANGELOG. Labels and annotations below kubernetes.io mean what they mean in
// Kubernetes.
//
// The package imports nothing.
package api
