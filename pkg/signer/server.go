package signer

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"runtime/debug"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"
	externaljwt "k8s.io/externaljwt/apis/v1"
	"k8s.io/klog/v2"

	"github.com/sakeeper/sakeeper/pkg/keys"
	"github.com/sakeeper/sakeeper/pkg/token"
)

// MinExpiration is the least maximum lifetime that kube-apiserver takes from a signer and
// is of use: kubelet asks for tokens of an hour.
const MinExpiration = time.Hour

const (
	// maxRequest is the longest request. The payload in it may be half of it.
	maxRequest = 128 << 10
	// maxStreams are the requests of one connection that are worked on at a time.
	maxStreams = 1000
	// stopFor is how long requests may still take when the server stops.
	shutdownTimeout = 5 * time.Second
)

// Config is what a [Server] needs. All fields but Metrics are required.
type Config struct {
	// Keys are those of the moment; one must be able to sign.
	Keys func() *keys.Set
	// ReadAt is when Keys were last known to be the truth.
	ReadAt func() time.Time
	// RefreshHint is how often clients are to fetch the keys: whole seconds, at least one.
	RefreshHint time.Duration
	// MaxExpiration is the longest lifetime of tokens: whole seconds, at least an hour.
	MaxExpiration time.Duration
	// Metrics may be nil.
	Metrics *Metrics
}

// Server answers on two kinds of sockets. It is safe for concurrent use.
type Server struct {
	cfg    Config
	signer *token.Signer
}

// New checks the config. It opens nothing.
func New(cfg Config) (*Server, error) {
	switch {
	case cfg.Keys == nil || cfg.ReadAt == nil:
		return nil, errors.New("signer: Keys and ReadAt are required")
	case cfg.RefreshHint < time.Second:
		return nil, errors.New("signer: RefreshHint is less than a second")
	case cfg.MaxExpiration < MinExpiration:
		return nil, fmt.Errorf("signer: MaxExpiration is less than %v", MinExpiration)
	}
	return &Server{cfg: cfg, signer: token.NewSigner(cfg.Keys)}, nil
}

// Serve answers kube-apiserver on a listener until ctx ends, and closes it.
func (s *Server) Serve(ctx context.Context, listener net.Listener) error {
	return s.serve(ctx, listener, service{Server: s, sign: s.signer.Sign}, socketMain)
}

// ServeLegacy is Serve for a socket that signs exactly the claims of legacy tokens.
func (s *Server) ServeLegacy(ctx context.Context, listener net.Listener) error {
	return s.serve(ctx, listener, service{Server: s, sign: s.signer.SignLegacyPayload}, socketLegacy)
}

func (s *Server) serve(ctx context.Context, listener net.Listener, service service, socket string) error {
	server := grpc.NewServer(
		grpc.MaxRecvMsgSize(maxRequest), grpc.MaxConcurrentStreams(maxStreams),
		grpc.ConnectionTimeout(10*time.Second), grpc.ChainUnaryInterceptor(s.cfg.Metrics.observe(socket), recoverPanic),
	)
	externaljwt.RegisterExternalJWTSignerServer(server, service)
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	// Requests that are being answered are answered; the next one finds the next server.
	timer := time.AfterFunc(shutdownTimeout, server.Stop)
	server.GracefulStop()
	timer.Stop()
	if err := <-done; !errors.Is(err, grpc.ErrServerStopped) { // which it was before it served
		return err
	}
	return nil
}

// survive makes a panic the failure of one request: API servers wait for the others.
func recoverPanic(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (response any, err error) {
	defer func() {
		if p := recover(); p != nil {
			// The panic's value stays out: it may quote claims.
			klog.FromContext(ctx).Error(fmt.Errorf("%T", p), "Panicked in a request", "stack", string(debug.Stack()))
			response, err = nil, status.Error(codes.Internal, "a defect of the signer, whose log has the stack")
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
	// The time first: it must not be later than the keys.
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
