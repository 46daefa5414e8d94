package tokeninventory

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"

	"github.com/sakeeper/sakeeper/pkg/keys"
	"github.com/sakeeper/sakeeper/pkg/testkit"
	"github.com/sakeeper/sakeeper/pkg/testkit/leaks"
	"github.com/sakeeper/sakeeper/pkg/token"
)

func TestMain(m *testing.M) { leaks.Main(m) }

// server is an API server with the answers to GETs by path. It needs no network.
type server struct {
	t       *testing.T
	mu      sync.Mutex
	answers map[string]any // an object, or a status code
	listed  int            // lists of pods
}

// paths of what a pass reads.
const (
	secretsPath  = "/api/v1/secrets"
	accountsPath = "/api/v1/serviceaccounts"
	podsPath     = "/api/v1/pods"
	rolesPath    = "/apis/rbac.authorization.k8s.io/v1/roles"
	keysPath     = "/openid/v1/jwks"
	trackingPath = "/api/v1/namespaces/kube-system/configmaps/kube-apiserver-legacy-service-account-token-tracking"
)

// newServer has the account ci/bot, which is cluster-admin, with a token that was made a year ago and
// never used; the account ci/idle, without a binding; and a token of an account that is gone.
func newServer(t *testing.T) *server {
	t.Helper()
	set := testkit.Keys("p256")
	jwks, err := json.Marshal(set.JWKS())
	if err != nil {
		t.Fatal(err)
	}
	list := func(kind string, items ...any) any {
		return map[string]any{"kind": kind, "apiVersion": "v1", "metadata": map[string]any{}, "items": items}
	}
	rbac := func(kind string, items ...any) any {
		return map[string]any{"kind": kind, "apiVersion": rbacv1.SchemeGroupVersion.String(), "metadata": map[string]any{}, "items": items}
	}
	signed := func(account, secret string) *corev1.Secret {
		compact, err := token.NewSigner(func() *keys.Set { return set }).SignLegacy(t.Context(), token.LegacyClaims{
			Namespace: "ci", SecretName: secret, ServiceAccountName: account, ServiceAccountUID: string(testkit.AccountUID),
		})
		if err != nil {
			t.Fatal(err)
		}
		return testkit.Secret("ci/"+secret, testkit.WithAccount(account), testkit.WithData(corev1.ServiceAccountTokenKey, compact))
	}
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "bot"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "all"},
		Subjects: []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: "ci", Name: "bot"}},
	}
	all := &rbacv1.ClusterRole{
		ObjectMeta: metav1.ObjectMeta{Name: "all"}, Rules: []rbacv1.PolicyRule{{Verbs: []string{"*"}, APIGroups: []string{"*"}, Resources: []string{"*"}}},
	}
	tracking := testkit.ConfigMap("kube-system/tracking", testkit.WithData("since", "2020-01-01"))
	const group = "/apis/rbac.authorization.k8s.io/v1/"
	return &server{t: t, answers: map[string]any{
		secretsPath:                   list("SecretList", signed("bot", "bot-token"), signed("idle", "idle-token"), signed("gone", "gone-token")),
		accountsPath:                  list("ServiceAccountList", testkit.ServiceAccount("ci/bot"), testkit.ServiceAccount("ci/idle")),
		podsPath:                      list("PodList"),
		rolesPath:                     rbac("RoleList"),
		group + "rolebindings":        rbac("RoleBindingList"),
		group + "clusterroles":        rbac("ClusterRoleList", all),
		group + "clusterrolebindings": rbac("ClusterRoleBindingList", binding),
		keysPath:                      json.RawMessage(jwks),
		trackingPath:                  tracking,
	}}
}

func (s *server) set(path string, answer any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answers[path] = answer
}

// passes returns how many passes there were since the last call. Each lists pods once.
func (s *server) passes() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer func() { s.listed = 0 }()
	return s.listed
}

// RoundTrip implements [http.RoundTripper].
func (s *server) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	answer, known := s.answers[r.URL.Path]
	if r.URL.Path == podsPath {
		s.listed++
	}
	s.mu.Unlock()
	if !known || r.Method != http.MethodGet {
		s.t.Errorf("%s %s", r.Method, r.URL)
	}
	if r.URL.Query().Get("labelSelector") != "" { // managed Secrets
		answer = map[string]any{"kind": "SecretList", "apiVersion": "v1", "metadata": map[string]any{}}
	}
	recorder := httptest.NewRecorder()
	recorder.Header().Set("Content-Type", "application/json")
	if code, ok := answer.(int); ok {
		recorder.WriteHeader(code)
		answer = metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure, Code: int32(code), Reason: map[int]metav1.StatusReason{
			http.StatusForbidden: metav1.StatusReasonForbidden, http.StatusNotFound: metav1.StatusReasonNotFound,
		}[code]}
	}
	err := json.NewEncoder(recorder).Encode(answer)
	return recorder.Result(), err
}

// fixture is a controller of a server.
type fixture struct {
	*Controller

	server   *server
	registry *prometheus.Registry
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{server: newServer(t), registry: prometheus.NewRegistry()}
	client, err := kubernetes.NewForConfig(&rest.Config{Host: "http://server", Transport: f.server, QPS: -1})
	if err != nil {
		t.Fatal(err)
	}
	f.Controller, err = New(Config{Client: client, Interval: time.Hour, Clock: at{}, Registerer: f.registry})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// at is a clock that shows a year after the objects were made.
type at struct{}

func (at) Now() time.Time                    { return testkit.Instant().AddDate(1, 0, 0) }
func (a at) Since(t time.Time) time.Duration { return a.Now().Sub(t) }

const (
	unusedAdmin   = `sakeeper_long_lived_tokens{kind="legacy",reach="cluster-admin",verdict="unused"} 1`
	unusedNothing = `sakeeper_long_lived_tokens{kind="legacy",reach="nothing",verdict="unused"} 1`
	gone          = `sakeeper_long_lived_tokens{kind="legacy",reach="nothing",verdict="account gone"} 1`
	completed     = `sakeeper_token_inventory_last_pass_timestamp_seconds 1.798859045e+09`
)

// expect compares the exported metrics.
func (f *fixture) expect(t *testing.T, want ...string) {
	t.Helper()
	var text strings.Builder
	for _, line := range want {
		name, _, _ := strings.Cut(strings.Split(line, " ")[0], "{")
		if !strings.Contains(text.String(), "# TYPE "+name+" ") {
			help := map[bool]string{true: tokensHelp, false: completedHelp}[name == tokensName]
			fmt.Fprintf(&text, "# HELP %s %s\n# TYPE %s gauge\n", name, help, name)
		}
		text.WriteString(line + "\n")
	}
	if err := testutil.GatherAndCompare(f.registry, strings.NewReader(text.String()), tokensName, completedName); err != nil {
		t.Error(err)
	}
}

// TestWhatIsNotReadIsNeverZero takes away what a pass reads.
func TestWhatIsNotReadIsNeverZero(t *testing.T) {
	const unknownReach, unknownVerdict = `reach="unknown"`, `verdict="unknown"`
	with := func(line, old, updated string) string { return strings.Replace(line, old, updated, 1) }
	// Of an alive token with an unknown verdict.
	admin, nothing := with(unusedAdmin, `verdict="unused"`, unknownVerdict), with(unusedNothing, `verdict="unused"`, unknownVerdict)
	cases := map[string]struct {
		in      map[string]any
		want    []string
		wantErr string
	}{
		"everything is read": {want: []string{gone, unusedAdmin, unusedNothing, completed}},
		"no Secrets":         {in: map[string]any{secretsPath: http.StatusForbidden}, wantErr: "list secrets: "},
		"no roles": {
			in:      map[string]any{rolesPath: http.StatusForbidden},
			want:    []string{with(gone, `reach="nothing"`, unknownReach), unusedAdmin, with(unusedNothing, `reach="nothing"`, unknownReach)},
			wantErr: "list roles: ",
		},
		"no accounts": {
			in: map[string]any{accountsPath: http.StatusForbidden},
			want: []string{
				admin, `sakeeper_long_lived_tokens{kind="legacy",reach="unknown",verdict="unknown"} 2`,
			},
			wantErr: "list serviceaccounts: ",
		},
		"no pods":                          {in: map[string]any{podsPath: http.StatusForbidden}, want: []string{gone, admin, nothing}, wantErr: "list pods: "},
		"no keys":                          {in: map[string]any{keysPath: http.StatusForbidden}, want: []string{gone, admin, nothing}, wantErr: "get /openid/v1/jwks: "},
		"no date since when uses are kept": {in: map[string]any{trackingPath: http.StatusForbidden}, want: []string{gone, admin, nothing}, wantErr: "get configmaps "},
		"an API server that publishes no keys": {
			in: map[string]any{keysPath: http.StatusNotFound}, want: []string{gone, admin, nothing, completed},
		},
		"an API server that records no uses": {
			in: map[string]any{trackingPath: http.StatusNotFound},
			want: []string{
				gone, with(unusedAdmin, "unused", "never expires"), with(unusedNothing, "unused", "never expires"), completed,
			},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			testkit.EndQueue(t, f)
			for path, answer := range tc.in {
				f.server.set(path, answer)
			}
			_, err := f.sync(t.Context(), everything)
			if got := fmt.Sprint(err); (err != nil) != (tc.wantErr != "") || !strings.Contains(got, tc.wantErr) {
				t.Errorf("got %v, want %q", err, tc.wantErr)
			}
			f.expect(t, tc.want...)
		})
	}
}

// TestALostRightRemovesTheCounts, and an API server that goes away does not.
func TestALostRightRemovesTheCounts(t *testing.T) {
	cases := map[string]struct {
		in   int
		want []string
	}{
		"a right is taken away":        {in: http.StatusForbidden, want: []string{completed}},
		"the API server cannot answer": {in: http.StatusInternalServerError, want: []string{gone, unusedAdmin, unusedNothing, completed}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			testkit.EndQueue(t, f)
			if _, err := f.sync(t.Context(), everything); err != nil {
				t.Fatal(err)
			}
			f.server.set(secretsPath, tc.in)
			if _, err := f.sync(t.Context(), everything); err == nil {
				t.Error("no error")
			}
			f.expect(t, tc.want...)
		})
	}
}

// TestRun: a pass at the start and after each interval, retries that become rare, and no counts in the
// end.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		if f.Ready() {
			t.Error("ready before the first pass")
		}
		f.expect(t)
		stop := testkit.Start(klog.NewContext(t.Context(), logr.Discard()), t, f.Run)
		synctest.Wait()
		if !f.Ready() {
			t.Error("not ready after the first pass")
		}
		f.expect(t, gone, unusedAdmin, unusedNothing, completed)
		time.Sleep(10*time.Hour + time.Minute)
		if n := f.server.passes(); n != 11 {
			t.Errorf("%d passes in 10 hours", n)
		}
		f.server.set(secretsPath, http.StatusForbidden)
		time.Sleep(2 * time.Hour) // the first of which until the next pass
		f.expect(t, completed)
		if n := f.server.passes(); n < 10 || n > 20 {
			t.Errorf("%d passes in an hour in which they fail", n)
		}
		f.server.set(secretsPath, newServer(t).answers[secretsPath])
		time.Sleep(6 * time.Minute)
		f.expect(t, gone, unusedAdmin, unusedNothing, completed)
		stop()
		f.expect(t, completed)
	})
}

func TestNew(t *testing.T) {
	cases := map[string]struct {
		in   func(*Config)
		want string
	}{
		"no client":                  {in: func(cfg *Config) { cfg.Client = nil }, want: "are required"},
		"no clock":                   {in: func(cfg *Config) { cfg.Clock = nil }, want: "are required"},
		"no interval":                {in: func(cfg *Config) { cfg.Interval = 0 }, want: "Interval must be positive, not 0s"},
		"metrics that exist already": {in: func(cfg *Config) { _ = cfg.Registerer.Register(&metrics{}) }, want: "duplicate"},
		"no registerer":              {in: func(cfg *Config) { cfg.Registerer = nil }},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			testkit.EndQueue(t, f)
			cfg := f.cfg
			cfg.Registerer = prometheus.NewRegistry()
			tc.in(&cfg)
			c, err := New(cfg)
			if err == nil {
				testkit.EndQueue(t, c)
			}
			if got := fmt.Sprint(err); (err != nil) != (tc.want != "") || !strings.Contains(got, tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

// TestAPassThatIsInterrupted leaves the counts alone.
func TestAPassThatIsInterrupted(t *testing.T) {
	f := newFixture(t)
	testkit.EndQueue(t, f)
	if _, err := f.sync(t.Context(), everything); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := f.sync(ctx, everything); err == nil {
		t.Error("no error")
	}
	f.expect(t, gone, unusedAdmin, unusedNothing, completed)
}
