// Package metrics registers collectors that several parts of a process share.
package metrics

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// Shared registers c with registerer and returns it. If a collector that describes the same
// metrics is registered already, as when two controllers get one registerer, that one is
// returned. A nil registerer registers nothing: c works, and is not exported.
//
// It panics if the metrics of c contradict those that are registered, or if the same metrics
// belong to a collector of another type: that is a mistake of the program.
func Shared[C prometheus.Collector](registerer prometheus.Registerer, c C) C {
	if registerer == nil {
		return c
	}
	err := registerer.Register(c)
	if registered, ok := errors.AsType[prometheus.AlreadyRegisteredError](err); ok {
		return registered.ExistingCollector.(C) //nolint:forcetypeassert // see above
	}
	if err != nil {
		panic("metrics: internal error: " + err.Error())
	}
	return c
}
