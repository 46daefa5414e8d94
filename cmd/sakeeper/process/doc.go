// Package process has what the servers among the subcommands have in common: how they start, the
// HTTP servers for metrics and for probes, and metrics about the process itself.
//
// It registers client-go's metrics in the global registry of component-base, which is why it is
// not part of the library.
package process
