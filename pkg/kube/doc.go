// Package kube connects a process to the API server: the client configuration, the API
// server's clock, leader election by a Lease, events, merge patches with preconditions, and
// what an error of the API server means. It also has the listeners for probes and metrics.
package kube
