package signer

import (
	"context"
	"path"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
)

// The values of the label socket.
const (
	socketMain   = "main"
	socketLegacy = "legacy"
)

// Metrics count the requests by socket (main, legacy), method (Sign, FetchKeys, Metadata)
// and gRPC code. A nil one counts nothing.
type Metrics struct {
	requests  *prometheus.CounterVec
	durations *prometheus.HistogramVec
}

// NewMetrics registers them.
func NewMetrics(registry prometheus.Registerer) *Metrics {
	m := &Metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sakeeper_signer_requests_total",
			Help: "Requests, by socket (main, legacy), method (Sign, FetchKeys, Metadata) and gRPC code.",
		}, []string{"socket", "method", "code"}),
		durations: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "sakeeper_signer_request_duration_seconds",
			Help:    "How long requests took, by socket (main, legacy) and method (Sign, FetchKeys, Metadata).",
			Buckets: prometheus.ExponentialBuckets(0.00002, 4, 8), // 20 us to 0.3 s
		}, []string{"socket", "method"}),
	}
	registry.MustRegister(m.requests, m.durations)
	return m
}

func (m *Metrics) observe(socket string) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		if m == nil {
			return handler(ctx, request)
		}
		start, method := time.Now(), path.Base(info.FullMethod)
		response, err := handler(ctx, request)
		m.durations.WithLabelValues(socket, method).Observe(time.Since(start).Seconds())
		m.requests.WithLabelValues(socket, method, status.Code(err).String()).Inc()
		return response, err
	}
}
