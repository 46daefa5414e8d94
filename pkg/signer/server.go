package signer

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"runtime/debug"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"
	externaljwt "k8s.io/externaljwt/apis/v1"
	"k8s.io/klog/v2"

	"github.com/sakeeper/sakeeper/pkg/keys"
	"github.com/sakeeper/sakeeper/pkg/token"
)

// MinExpiration is the minimum of [Config.MaxExpiration]: kubelet requests tokens of an hour.
const MinExpiration = time.Hour

const (
	// maxRequest bounds a request. The payload in it may be half as long.
	maxRequest = 128 << 10
	// maxStreams bounds the concurrent requests of a connection.
	maxStreams = 1000
	// shutdownTimeout bounds the requests that are running when the server stops.
	shutdownTimeout = 5 * time.Second
)

// Config is the configuration of a [Server]. All fields but Registerer are required.
type Config struct {
	// Keys returns the current keys, of which one must be able to sign.
	Keys func() *keys.Set
	// ReadAt returns when Keys was last read, and is the data timestamp of FetchKeys.
	ReadAt func() time.Time
	// RefreshHint is how often clients should fetch the keys, in whole seconds, at least one.
	RefreshHint time.Duration
	// MaxExpiration is the longest lifetime of tokens, in whole seconds, at least
	// [MinExpiration].
	MaxExpiration time.Duration
	// Registerer gets the metrics; all servers with the same one share them. Nil: no metrics are
	// exported.
	Registerer prometheus.Registerer
}

// Server serves the protocol on two kinds of sockets. It is safe for concurrent use.
type Server struct {
	cfg     Config
	signer  *token.Signer
	metrics *metricSet
}

// New returns a server, or an error for an invalid config. It does not listen.
func New(cfg Config) (*Server, error) {
	switch {
	case cfg.Keys == nil || cfg.ReadAt == nil:
		return nil, errors.New("signer: Keys and ReadAt are required")
	case cfg.RefreshHint < time.Second:
		return nil, errors.New("signer: RefreshHint is less than a second")
	case cfg.MaxExpiration < MinExpiration:
		return nil, fmt.Errorf("signer: MaxExpiration is less than %v", MinExpiration)
	}
	return &Server{cfg: cfg, signer: token.NewSigner(cfg.Keys), metrics: newMetrics(cfg.Registerer)}, nil
}

// Serve serves kube-apiserver on a listener until ctx ends, closes it, and returns nil.
func (s *Server) Serve(ctx context.Context, listener net.Listener) error {
	return s.serve(ctx, listener, service{Server: s, sign: s.signer.Sign}, socketMain)
}

// ServeLegacy is Serve for the socket that signs exactly the claims of legacy tokens.
func (s *Server) ServeLegacy(ctx context.Context, listener net.Listener) error {
	return s.serve(ctx, listener, service{Server: s, sign: s.signer.SignLegacyPayload}, socketLegacy)
}

func (s *Server) serve(ctx context.Context, listener net.Listener, service service, socket string) error {
	server := grpc.NewServer(
		grpc.MaxRecvMsgSize(maxRequest), grpc.MaxConcurrentStreams(maxStreams),
		grpc.ConnectionTimeout(10*time.Second), grpc.ChainUnaryInterceptor(s.metrics.observe(socket), recoverPanic),
	)
	externaljwt.RegisterExternalJWTSignerServer(server, service)
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	// Running requests are completed; clients connect again, to the next server.
	timer := time.AfterFunc(shutdownTimeout, server.Stop)
	server.GracefulStop()
	timer.Stop()
	if err := <-done; !errors.Is(err, grpc.ErrServerStopped) { // it was stopped before it served
		return err
	}
	return nil
}

// recoverPanic turns a panic into an error of its request, so that other requests go on.
func recoverPanic(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (response any, err error) {
	defer func() {
		if p := recover(); p != nil {
			// Without the value of the panic, which may hold claims.
			klog.FromContext(ctx).Error(fmt.Errorf("%T", p), "Panicked in a request", "stack", string(debug.Stack()))
			response, err = nil, status.Error(codes.Internal, "internal error of the signer; its log has the stack")
		}
	}()
	return handler(ctx, request)
}

// service implements the protocol for one kind of socket.
type service struct {
	externaljwt.UnsafeExternalJWTSignerServer
	*Server

	sign func(payload string) (token.Segments, error)
}

// Sign implements [externaljwt.ExternalJWTSignerServer].
func (s service) Sign(_ context.Context, request *externaljwt.SignJWTRequest) (*externaljwt.SignJWTResponse, error) {
	segments, err := s.sign(request.GetClaims())
	switch {
	case errors.Is(err, token.ErrPayload):
		return nil, status.Error(codes.InvalidArgument, err.Error())
	case err != nil:
		return nil, status.Error(codes.Internal, err.Error())
	}
	return &externaljwt.SignJWTResponse{Header: segments.Header, Signature: segments.Signature}, nil
}

// FetchKeys implements [externaljwt.ExternalJWTSignerServer].
func (s service) FetchKeys(context.Context, *externaljwt.FetchKeysRequest) (*externaljwt.FetchKeysResponse, error) {
	// ReadAt before Keys, so that the time is not later than the keys.
	response := &externaljwt.FetchKeysResponse{
		DataTimestamp: timestamppb.New(s.cfg.ReadAt()), RefreshHintSeconds: int64(s.cfg.RefreshHint / time.Second),
	}
	set := s.cfg.Keys()
	for _, key := range set.Verification() {
		der, err := x509.MarshalPKIXPublicKey(key.Key())
		if err != nil {
			return nil, status.Error(codes.Internal, "a key cannot be encoded")
		}
		response.Keys = append(response.Keys, &externaljwt.Key{KeyId: key.ID(), Key: der, ExcludeFromOidcDiscovery: !set.InDiscovery(key)})
	}
	return response, nil
}

// Metadata implements [externaljwt.ExternalJWTSignerServer].
func (s service) Metadata(context.Context, *externaljwt.MetadataRequest) (*externaljwt.MetadataResponse, error) {
	return &externaljwt.MetadataResponse{MaxTokenExpirationSeconds: int64(s.cfg.MaxExpiration / time.Second)}, nil
}
