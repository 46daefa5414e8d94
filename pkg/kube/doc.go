// Package kube is what every sakeeper process needs around its real work: the
// connection to the API server, leader election, events, patches and what the API
// server answers to them, and the servers for probes and metrics.
package kube
