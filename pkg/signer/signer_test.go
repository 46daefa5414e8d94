package signer_test

import (
	"context"
	"encoding/base64"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	externaljwt "k8s.io/externaljwt/apis/v1"

	"github.com/sakeeper/sakeeper/pkg/keys"
	"github.com/sakeeper/sakeeper/pkg/signer"
	"github.com/sakeeper/sakeeper/pkg/testkit"
	"github.com/sakeeper/sakeeper/pkg/testkit/leaks"
	"github.com/sakeeper/sakeeper/pkg/token"
)

func TestMain(m *testing.M) { leaks.Main(m) }

var (
	readAt  = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	builder = token.LegacyClaims{Namespace: "build", SecretName: "builder-token", ServiceAccountName: "builder", ServiceAccountUID: "c0ffee"}
)

// fixture is a server on two sockets whose keys can be replaced.
type fixture struct {
	t            testing.TB
	keys         atomic.Pointer[keys.Set]
	registry     *prometheus.Registry
	main, legacy string
}

func newFixture(t testing.TB, set *keys.Set) *fixture {
	t.Helper()
	f := newStopped(t, set)
	t.Cleanup(f.start())
	return f
}

func newStopped(t testing.TB, set *keys.Set) *fixture {
	t.Helper()
	dir := t.TempDir()
	f := &fixture{t: t, main: filepath.Join(dir, "main.sock"), legacy: filepath.Join(dir, "legacy.sock")}
	f.keys.Store(set)
	return f
}

// start serves until stop is called.
func (f *fixture) start() (stop func()) {
	f.t.Helper()
	f.registry = prometheus.NewRegistry()
	server, err := signer.New(signer.Config{
		Keys: f.keys.Load, ReadAt: func() time.Time { return readAt }, RefreshHint: time.Second, MaxExpiration: 24 * time.Hour,
		Registerer: f.registry,
	})
	if err != nil {
		f.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 2)
	for path, serve := range map[string]func(context.Context, net.Listener) error{f.main: server.Serve, f.legacy: server.ServeLegacy} {
		l, err := signer.Socket{Flag: "--socket", Path: path, Mode: 0o600, Group: -1}.Listen(ctx)
		if err != nil {
			f.t.Fatal(err)
		}
		go func() { done <- serve(ctx, l) }()
	}
	return func() {
		cancel()
		if err := errors.Join(<-done, <-done); err != nil {
			f.t.Error(err)
		}
	}
}

// dial returns a client like that of kube-apiserver.
func dial(t testing.TB, socket string) externaljwt.ExternalJWTSignerClient {
	t.Helper()
	conn, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return externaljwt.NewExternalJWTSignerClient(conn)
}

func encode(claims string) string { return base64.RawURLEncoding.EncodeToString([]byte(claims)) }

func legacyPayload(t testing.TB) string {
	t.Helper()
	payload, err := token.LegacyPayload(builder)
	if err != nil {
		t.Fatal(err)
	}
	return payload
}

func TestSign(t *testing.T) {
	f := newFixture(t, testkit.Keys("p256", "rsa2048"))
	const bound = `{"aud":["api"],"exp":1900000000,"iss":"https://issuer"}`
	cases := map[string]struct {
		in           string
		main, legacy codes.Code
	}{
		"a bound token":  {encode(bound), codes.OK, codes.InvalidArgument},
		"a legacy token": {legacyPayload(t), codes.InvalidArgument, codes.OK},
		"not claims":     {encode("[]"), codes.InvalidArgument, codes.InvalidArgument},
		"not base64":     {"{}", codes.InvalidArgument, codes.InvalidArgument},
		"too long":       {encode(`{"exp":1,"x":"` + strings.Repeat("x", 64<<10) + `"}`), codes.InvalidArgument, codes.InvalidArgument},
		"far too long":   {strings.Repeat("A", 1<<20), codes.ResourceExhausted, codes.ResourceExhausted},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			for socket, want := range map[string]codes.Code{f.main: tc.main, f.legacy: tc.legacy} {
				response, err := dial(t, socket).Sign(t.Context(), &externaljwt.SignJWTRequest{Claims: tc.in})
				if got := status.Code(err); got != want {
					t.Errorf("%s: %v, want %v", filepath.Base(socket), err, want)
				}
				if err == nil && (response.GetHeader() == "" || response.GetSignature() == "") {
					t.Errorf("%s: answered %v", filepath.Base(socket), response)
				}
				if err != nil && len(tc.in) > 10 && strings.Contains(err.Error(), tc.in[:10]) {
					t.Errorf("the error quotes the payload: %v", err)
				}
			}
		})
	}
	want := `
# HELP sakeeper_signer_requests_total Requests, by socket (main, legacy), method (Sign, FetchKeys, Metadata) and gRPC code.
# TYPE sakeeper_signer_requests_total counter
sakeeper_signer_requests_total{code="InvalidArgument",method="Sign",socket="legacy"} 4
sakeeper_signer_requests_total{code="InvalidArgument",method="Sign",socket="main"} 4
sakeeper_signer_requests_total{code="OK",method="Sign",socket="legacy"} 1
sakeeper_signer_requests_total{code="OK",method="Sign",socket="main"} 1
`
	if err := testutil.GatherAndCompare(f.registry, strings.NewReader(want), "sakeeper_signer_requests_total"); err != nil {
		t.Error(err)
	}
}

func TestFetchKeysAndMetadata(t *testing.T) {
	hidden := testkit.Keys("p521").Signing().PublicKey()
	set := testkit.Keys("p256", "rsa2048").WithLegacy(hidden)
	f := newFixture(t, set)
	for _, socket := range []string{f.main, f.legacy} {
		client := dial(t, socket)
		response, err := client.FetchKeys(t.Context(), &externaljwt.FetchKeysRequest{})
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]bool{}
		for _, key := range response.GetKeys() {
			public, err := keys.ParseDER(key.GetKey())
			if err != nil || public.ID() != key.GetKeyId() {
				t.Errorf("key %s holds %v, error %v", key.GetKeyId(), public, err)
			}
			got[key.GetKeyId()] = key.GetExcludeFromOidcDiscovery()
		}
		want := map[string]bool{set.Signing().String(): false, testkit.Keys("rsa2048").Signing().String(): false, hidden.ID(): true}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("excluded (-want +got):\n%s", diff)
		}
		if response.GetKeys()[0].GetKeyId() != set.Signing().String() {
			t.Error("the first key is not the one that signs")
		}
		if !response.GetDataTimestamp().AsTime().Equal(readAt) || response.GetRefreshHintSeconds() != 1 {
			t.Errorf("time %v, hint %d", response.GetDataTimestamp().AsTime(), response.GetRefreshHintSeconds())
		}
		metadata, err := client.Metadata(t.Context(), &externaljwt.MetadataRequest{})
		if err != nil || metadata.GetMaxTokenExpirationSeconds() != 86400 {
			t.Errorf("metadata %v, error %v", metadata, err)
		}
	}
}

func TestClientFollowsTheSigner(t *testing.T) {
	f := newFixture(t, testkit.Keys("p256"))
	client, err := signer.Dial(t.Context(), f.legacy)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	changed := make(chan string, 10)
	client.OnChange(func() { changed <- client.Get().Signing().String() })
	sign := func(what string) {
		t.Helper()
		compact, err := client.SignLegacy(t.Context(), builder)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if got := token.UnverifiedKeyID(compact); got != f.keys.Load().Signing().String() || got != client.Get().Signing().String() {
			t.Errorf("%s: signed with %s, the signer has %s and the client knows of %s", what, got, f.keys.Load().Signing(), client.Get().Signing())
		}
	}
	sign("at first")
	if client.Get().Signing().CanSign() {
		t.Error("the client has the private half")
	}
	f.keys.Store(testkit.Keys("rsa2048", "p256"))
	sign("after a change that the client has not fetched")
	if got := <-changed; got != testkit.Keys("rsa2048").Signing().String() {
		t.Errorf("changed to %s", got)
	}

	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- client.Run(ctx) }()
	f.keys.Store(testkit.Keys("p384", "rsa2048").WithLegacy(testkit.Keys("p256").Signing().PublicKey()))
	if got := <-changed; got != testkit.Keys("p384").Signing().String() {
		t.Errorf("changed to %s", got)
	}
	if !client.Get().Equal(f.keys.Load()) {
		t.Error("the client has other keys than the signer")
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestClientOutlivesTheSigner: requests without a server fail, and the client finds the next server.
func TestClientOutlivesTheSigner(t *testing.T) {
	f := newStopped(t, testkit.Keys("p256"))
	stop := f.start()
	client, err := signer.Dial(t.Context(), f.legacy)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	stop()
	if _, err := os.Lstat(f.legacy); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket of a server that stopped: %v", err)
	}
	if _, err := client.SignLegacy(t.Context(), builder); err == nil || !strings.HasPrefix(err.Error(), "sign token: signer at "+f.legacy+": Unavailable: ") {
		t.Errorf("without a signer: %v", err)
	}
	defer f.start()()
	for {
		if _, err := client.SignLegacy(t.Context(), builder); err == nil {
			return // otherwise the test times out
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// liar is a signer with wrong responses.
type liar struct {
	externaljwt.UnimplementedExternalJWTSignerServer

	keys func() *externaljwt.FetchKeysResponse
	sign func(claims string) *externaljwt.SignJWTResponse
}

func (l liar) FetchKeys(context.Context, *externaljwt.FetchKeysRequest) (*externaljwt.FetchKeysResponse, error) {
	return l.keys(), nil
}

func (l liar) Sign(_ context.Context, request *externaljwt.SignJWTRequest) (*externaljwt.SignJWTResponse, error) {
	return l.sign(request.GetClaims()), nil
}

func serve(t *testing.T, l externaljwt.ExternalJWTSignerServer) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "liar.sock")
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	externaljwt.RegisterExternalJWTSignerServer(server, l)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	return socket
}

// TestClientChecksEveryResponse: a wrong response is an error.
func TestClientChecksEveryResponse(t *testing.T) {
	honest := newFixture(t, testkit.Keys("p256", "rsa2048"))
	fetched, err := dial(t, honest.main).FetchKeys(t.Context(), &externaljwt.FetchKeysRequest{})
	if err != nil {
		t.Fatal(err)
	}
	answer := func(change func(*externaljwt.FetchKeysResponse)) func() *externaljwt.FetchKeysResponse {
		return func() *externaljwt.FetchKeysResponse {
			response := &externaljwt.FetchKeysResponse{Keys: []*externaljwt.Key{}, DataTimestamp: fetched.GetDataTimestamp(), RefreshHintSeconds: 60}
			for _, key := range fetched.GetKeys() {
				response.Keys = append(response.Keys, &externaljwt.Key{KeyId: key.GetKeyId(), Key: key.GetKey()})
			}
			change(response)
			return response
		}
	}
	for name, tc := range map[string]struct {
		in   func(*externaljwt.FetchKeysResponse)
		want string
	}{
		"no keys":            {func(r *externaljwt.FetchKeysResponse) { r.Keys = nil }, "has 0 keys, 1 to 1000 are needed"},
		"no hint":            {func(r *externaljwt.FetchKeysResponse) { r.RefreshHintSeconds = 0 }, "its refresh hint is 0 s"},
		"a damaged key":      {func(r *externaljwt.FetchKeysResponse) { r.Keys[1].Key = []byte("?") }, "its key 2: does not parse"},
		"an id of its own":   {func(r *externaljwt.FetchKeysResponse) { r.Keys[0].KeyId = "mine" }, `its key 1 has the id "mine", and should have `},
		"a hidden first key": {func(r *externaljwt.FetchKeysResponse) { r.Keys[0].ExcludeFromOidcDiscovery = true }, "its first key, which signs, is excluded from discovery"},
	} {
		socket := serve(t, liar{keys: answer(tc.in)})
		if _, err := signer.Dial(t.Context(), socket); err == nil || !strings.HasPrefix(err.Error(), "fetch keys: signer at "+socket+": "+tc.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, tc := range map[string]struct {
		in   func(claims string) *externaljwt.SignJWTResponse
		want string
	}{
		"nothing": {func(string) *externaljwt.SignJWTResponse { return &externaljwt.SignJWTResponse{} }, `signs with key "", and names `},
		"another key": {func(claims string) *externaljwt.SignJWTResponse {
			return segments(t, testkit.Keys("p384"), claims)
		}, `signs with key "` + testkit.Keys("p384").Signing().String() + `", and names `},
		"another payload": {func(string) *externaljwt.SignJWTResponse {
			other := builder
			other.ServiceAccountUID = "another"
			claims, _ := token.LegacyPayload(other)
			return segments(t, testkit.Keys("p256"), claims)
		}, "answered with no such token: token signature is wrong"},
	} {
		client, err := signer.Dial(t.Context(), serve(t, liar{keys: answer(func(*externaljwt.FetchKeysResponse) {}), sign: tc.in}))
		if err != nil {
			t.Fatal(err)
		}
		if compact, err := client.SignLegacy(t.Context(), builder); err == nil || !strings.Contains(err.Error(), tc.want) || compact != "" {
			t.Errorf("%s: %v", name, err)
		}
		_ = client.Close()
	}
}

// quoting returns errors that hold the payload.
type quoting struct{ liar }

func (quoting) Sign(_ context.Context, request *externaljwt.SignJWTRequest) (*externaljwt.SignJWTResponse, error) {
	return nil, status.Error(codes.InvalidArgument, "cannot sign "+request.GetClaims())
}

func TestAnErrorHoldsNoPayload(t *testing.T) {
	fetched, err := dial(t, newFixture(t, testkit.Keys("p256")).main).FetchKeys(t.Context(), &externaljwt.FetchKeysRequest{})
	if err != nil {
		t.Fatal(err)
	}
	socket := serve(t, quoting{liar{keys: func() *externaljwt.FetchKeysResponse { return fetched }}})
	client, err := signer.Dial(t.Context(), socket)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	want := "sign token: signer at " + socket + ": InvalidArgument (the message is redacted, because it contains a token)"
	if _, err := client.SignLegacy(t.Context(), builder); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func segments(t *testing.T, set *keys.Set, claims string) *externaljwt.SignJWTResponse {
	t.Helper()
	s, err := token.NewSigner(func() *keys.Set { return set }).SignLegacyPayload(claims)
	if err != nil {
		t.Error(err)
	}
	return &externaljwt.SignJWTResponse{Header: s.Header, Signature: s.Signature}
}

func TestNewRefusesAnInvalidConfig(t *testing.T) {
	good := signer.Config{Keys: func() *keys.Set { return nil }, ReadAt: time.Now, RefreshHint: time.Second, MaxExpiration: time.Hour}
	for name, change := range map[string]func(*signer.Config){
		"no keys": func(c *signer.Config) { c.Keys = nil }, "no time": func(c *signer.Config) { c.ReadAt = nil },
		"no hint": func(c *signer.Config) { c.RefreshHint = 0 }, "too short a life": func(c *signer.Config) { c.MaxExpiration = time.Hour - 1 },
	} {
		cfg := good
		change(&cfg)
		if _, err := signer.New(cfg); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := signer.New(good); err != nil {
		t.Error(err)
	}
}

func TestAPanicIsTheFailureOfOneRequest(t *testing.T) {
	good := testkit.Keys("p256")
	f := newFixture(t, good)
	client := dial(t, f.main)
	request := &externaljwt.SignJWTRequest{Claims: encode(podClaims)}
	f.keys.Store(nil) // causes a panic
	if _, err := client.Sign(t.Context(), request); status.Code(err) != codes.Internal || !strings.Contains(err.Error(), "internal error of the signer") {
		t.Errorf("got %v", err)
	}
	f.keys.Store(good)
	if _, err := client.Sign(t.Context(), request); err != nil {
		t.Errorf("the next request: %v", err)
	}
}
