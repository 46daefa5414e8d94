// Package load has tests of what sakeeper's servers do under load and under attack, and of what an
// API server does when one of them is at its end. `make load LOAD=5m` takes that long for each server;
// without it the tests take seconds, and only print the latencies.
//
// Clients are closed loops: each has a connection of its own, and sends its next request when the last
// one is answered. They share the machine with the server, whose binary is bin/sakeeper.
package load
