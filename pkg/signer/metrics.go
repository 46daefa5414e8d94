package signer

import (
	"context"
	"path"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"github.com/sakeeper/sakeeper/pkg/internal/metrics"
)

// The values of the label socket.
const (
	socketMain   = "main"
	socketLegacy = "legacy"
)

// metricSet is shared by all servers with one registerer. The label socket is main or legacy,
// method is Sign, FetchKeys or Metadata, and code is the gRPC code.
type metricSet struct {
	requests  *prometheus.CounterVec
	durations *prometheus.HistogramVec
}

func newMetrics(registerer prometheus.Registerer) *metricSet {
	return &metricSet{
		requests: metrics.Shared(registerer, prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sakeeper_signer_requests_total",
			Help: "Requests, by socket (main, legacy), method (Sign, FetchKeys, Metadata) and gRPC code.",
		}, []string{"socket", "method", "code"})),
		durations: metrics.Shared(registerer, prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "sakeeper_signer_request_duration_seconds",
			Help:    "How long requests took, by socket (main, legacy) and method (Sign, FetchKeys, Metadata).",
			Buckets: prometheus.ExponentialBuckets(0.00002, 4, 8), // 20 us to 0.3 s
		}, []string{"socket", "method"})),
	}
}

// observe counts and times the requests on a socket.
func (m *metricSet) observe(socket string) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		start, method := time.Now(), path.Base(info.FullMethod)
		response, err := handler(ctx, request)
		m.durations.WithLabelValues(socket, method).Observe(time.Since(start).Seconds())
		m.requests.WithLabelValues(socket, method, status.Code(err).String()).Inc()
		return response, err
	}
}
