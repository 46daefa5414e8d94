package agent

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/utils/clock"

	"github.com/sakeeper/sakeeper/pkg/testkit"
	"github.com/sakeeper/sakeeper/pkg/token"
)

// world is an API server that grants tokens, and an agent with a file "token".
type world struct {
	t     *testing.T
	dir   string
	file  string
	cfg   Config
	agent *Agent

	mu sync.Mutex
	// granted is the lifetime that the API server grants; skew is how far its clock is ahead;
	// down is its answer to every request.
	granted time.Duration
	skew    time.Duration
	down    error
	asked   []time.Time
	specs   []authenticationv1.TokenRequestSpec
	hooked  int
	hookErr error
	// server is the API server's clock as the agent knows it: corrected by each response.
	server followingClock
}

// followingClock is a clock of this machine that is corrected by the responses of the API server,
// as [kube.ServerClock] is.
type followingClock struct {
	local  clock.PassiveClock
	offset atomic.Int64
}

func (c *followingClock) Now() time.Time                  { return c.local.Now().Add(time.Duration(c.offset.Load())) }
func (c *followingClock) Since(t time.Time) time.Duration { return c.Now().Sub(t) }

func newWorld(t *testing.T, change ...func(*Config)) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), granted: time.Hour}
	w.file = filepath.Join(w.dir, "token")
	client := fake.NewClientset()
	client.PrependReactor("create", "serviceaccounts", w.grant)
	w.cfg = Config{
		Client: client.CoreV1(), Namespace: "team", ServiceAccount: "robot", Tokens: []Token{{File: w.file}},
		Lifetime: time.Hour, Writer: RenameWriter{mine()}, Hooks: []Hook{w}, Clock: &w.server, Local: clock.RealClock{}, Registerer: prometheus.NewRegistry(),
	}
	for _, c := range change {
		c(&w.cfg)
	}
	w.server.local = w.cfg.Local
	var err error
	w.agent, err = New(w.cfg)
	must(t, err)
	return w
}

func (w *world) grant(action clienttesting.Action) (bool, runtime.Object, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked = append(w.asked, time.Now())
	w.server.offset.Store(int64(time.Now().Add(w.skew).Sub(w.cfg.Local.Now())))
	request, ok := action.(clienttesting.CreateAction).GetObject().(*authenticationv1.TokenRequest)
	if !ok || action.GetNamespace() != "team" || action.GetSubresource() != "token" {
		w.t.Errorf("asked for %v", action)
	}
	w.specs = append(w.specs, request.Spec)
	if w.down != nil {
		return true, nil, w.down
	}
	issued := time.Now().Add(w.skew)
	payload := fmt.Sprintf(`{"iat":%d,"exp":%d,"jti":"%d"}`, issued.Unix(), issued.Add(w.granted).Unix(), len(w.asked))
	request.Status.Token = "e30." + base64.RawURLEncoding.EncodeToString([]byte(payload)) + ".c2ln"
	return true, request, nil
}

// Run implements Hook.
func (w *world) Run(context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hooked++
	return w.hookErr
}

func (w *world) change(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
}

// expires returns when the token in the file expires, by the clock of the agent.
func (w *world) expires() time.Time {
	w.t.Helper()
	content, err := os.ReadFile(w.file)
	must(w.t, err)
	claims, err := token.UnverifiedBoundClaims(string(content))
	must(w.t, err)
	return claims.Validity.Expires.Add(-w.skew)
}

func (w *world) expectAsked(want int) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.asked) != want {
		w.t.Errorf("%d tokens were asked for, want %d", len(w.asked), want)
	}
}

// live runs the agent of a new world until f returns.
func live(t *testing.T, f func(w *world), change ...func(*Config)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, change...)
		stop := testkit.Start(t.Context(), t, w.agent.Run)
		defer func() {
			stop()
			synctest.Wait()
		}()
		synctest.Wait()
		f(w)
	})
}

// pass waits in the virtual time of the bubble.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func TestATokenIsRenewedWhenItIsDue(t *testing.T) {
	live(t, func(w *world) {
		w.expectAsked(1)
		must(t, w.agent.Ready())
		for range 10 {
			pass(time.Hour)
			if left := time.Until(w.expires()); left < 12*time.Minute {
				t.Errorf("%v are left", left)
			}
		}
		if n := len(w.asked); n < 12 || n > 15 { // after 42 to 48 minutes each
			t.Errorf("%d tokens in 10 hours", n)
		}
		if w.hooked != len(w.asked) {
			t.Errorf("%d hooks for %d tokens", w.hooked, len(w.asked))
		}
	})
}

func TestTokenRequest(t *testing.T) {
	bound := &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: "p", UID: "u"}
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(cfg *Config) {
			cfg.Bound, cfg.Lifetime = bound, 2*time.Hour
			cfg.Tokens = append(cfg.Tokens, Token{File: cfg.Tokens[0].File + "-2", Audiences: []string{"vault", "other"}})
		})
		must(t, w.agent.Once(t.Context()))
		seconds := int64(7200)
		want := []authenticationv1.TokenRequestSpec{
			{ExpirationSeconds: &seconds, BoundObjectRef: bound},
			{ExpirationSeconds: &seconds, BoundObjectRef: bound, Audiences: []string{"vault", "other"}},
		}
		if diff := cmp.Diff(want, w.specs); diff != "" {
			t.Errorf("requests (-want +got):\n%s", diff)
		}
		if w.hooked != 1 {
			t.Errorf("%d hooks, want one after both files", w.hooked)
		}
		for _, token := range w.cfg.Tokens {
			if _, err := os.Stat(token.File); err != nil {
				t.Error(err)
			}
		}
	})
}

func TestAnOutageIsRetried(t *testing.T) {
	live(t, func(w *world) {
		before := w.expires()
		w.change(func() { w.down = testkit.InternalError() })
		pass(70 * time.Minute)
		if got := w.expires(); !got.Equal(before) {
			t.Errorf("the file changed: %v, was %v", got, before)
		}
		if err := w.agent.Ready(); err == nil || err.Error() != w.file+": the token has expired" {
			t.Errorf("ready: %v", err)
		}
		if n := len(w.asked); n > 50 { // a minute apart in the end
			t.Errorf("%d attempts", n)
		}
		w.change(func() { w.down = nil })
		pass(maxDelay)
		must(t, w.agent.Ready())
		if !w.expires().After(time.Now()) {
			t.Error("the token was not renewed")
		}
	})
}

func TestAFileThatIsGoneIsWrittenAgain(t *testing.T) {
	live(t, func(w *world) {
		must(t, os.Remove(w.file))
		pass(fileCheckInterval)
		w.expectAsked(2)
		if !w.expires().After(time.Now()) {
			t.Error("the token has expired")
		}
	})
}

func TestHooksAreRetried(t *testing.T) {
	var others atomic.Int32
	other := hookFunc(func(context.Context) error { others.Add(1); return nil })
	live(t, func(w *world) {
		w.change(func() { w.hookErr, w.hooked = errors.New("boom"), 0 })
		pass(50 * time.Minute)
		if w.hooked < 3 || w.hooked > 15 { // after a second, two, four, and then a minute apart
			t.Errorf("tried %d times", w.hooked)
		}
		if got := others.Load(); got != 2 {
			t.Errorf("another hook ran %d times for two tokens, beside one that fails", got)
		}
		w.change(func() { w.hookErr, w.hooked = nil, 0 })
		pass(2 * maxDelay)
		if w.hooked != 1 {
			t.Errorf("ran %d times", w.hooked)
		}
		w.expectAsked(2) // a hook that fails costs no token
	}, func(cfg *Config) { cfg.Hooks = append(cfg.Hooks, other) })
}

type hookFunc func(context.Context) error

func (f hookFunc) Run(ctx context.Context) error { return f(ctx) }

func TestAHookThatHangsBlocksNothing(t *testing.T) {
	hangs := hookFunc(func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
	live(t, func(w *world) {
		pass(3 * time.Hour)
		if n := len(w.asked); n < 4 || w.hooked != n {
			t.Errorf("%d tokens and %d runs of the other hook in three hours", n, w.hooked)
		}
	}, func(cfg *Config) { cfg.Hooks = append([]Hook{hangs}, cfg.Hooks...) })
}

// TestNoTokenIsRequestedForAFileThatCannotBeWritten: a full disk is noticed before the request.
func TestNoTokenIsRequestedForAFileThatCannotBeWritten(t *testing.T) {
	full := &fullDisk{Writer: RenameWriter{mine()}}
	live(t, func(w *world) {
		full.set(errors.New("no space left on device"))
		must(t, os.Remove(w.file))
		pass(time.Hour)
		w.expectAsked(1)
		full.set(nil)
		pass(maxDelay)
		w.expectAsked(2)
		must(t, w.agent.Ready())
	}, func(cfg *Config) { cfg.Writer = full })
}

type fullDisk struct {
	Writer

	mu  sync.Mutex
	err error
}

func (d *fullDisk) set(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.err = err
}

func (d *fullDisk) Check(file string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err != nil {
		return d.err
	}
	return d.Writer.Check(file)
}

// TestARequestHasATimeout has an API server that never answers.
func TestARequestHasATimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(cfg *Config) { cfg.Client = silent{} })
		began := time.Now()
		if err := w.agent.renew(t.Context(), w.cfg.Tokens[0]); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != requestTimeout {
			t.Errorf("got %v after %v", err, time.Since(began))
		}
	})
}

// silent never answers.
type silent struct {
	typedcorev1.ServiceAccountInterface
}

func (s silent) ServiceAccounts(string) typedcorev1.ServiceAccountInterface { return s }

func (silent) CreateToken(ctx context.Context, _ string, _ *authenticationv1.TokenRequest, _ metav1.CreateOptions) (*authenticationv1.TokenRequest, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// TestAClockThatIsSetDelaysNoRenewal, whether it is set back or ahead.
func TestAClockThatIsSetDelaysNoRenewal(t *testing.T) {
	for name, by := range map[string]time.Duration{"back": -1000 * time.Hour, "ahead": 1000 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			set := &settable{}
			live(t, func(w *world) {
				set.by.Store(int64(by))
				for range 10 {
					pass(49 * time.Minute)
					if left := time.Until(w.expires()); left < 11*time.Minute {
						t.Errorf("%v are left", left)
					}
				}
				if n := len(w.asked); n < 10 || n > 21 {
					t.Errorf("%d tokens in 8 hours", n)
				}
				must(t, w.agent.Ready())
			}, func(cfg *Config) { cfg.Local = set })
		})
	}
}

// TestATokenThatIsNotValidYetIsRenewed: the clock of the API server was two days ahead, and is set
// back. The agent notices that by its own clock, or by that of the API server where it knows it.
func TestATokenThatIsNotValidYetIsRenewed(t *testing.T) {
	live(t, func(w *world) {
		pass(time.Minute)
		w.expectAsked(1)
		w.change(func() { w.skew = 0 })
		w.server.offset.Store(0) // by the Date of any response
		if err := w.agent.Ready(); err == nil || !strings.HasPrefix(err.Error(), w.file+": the token is not valid before 2000-01-03T") {
			t.Errorf("ready: %v", err)
		}
		pass(fileCheckInterval)
		w.expectAsked(2)
		must(t, w.agent.Ready())
		pass(10 * time.Minute)
		w.expectAsked(2)
	}, func(cfg *Config) {
		server, ok := cfg.Hooks[0].(*world)
		if !ok {
			t.Fatal("the hook is no world")
		}
		server.skew = 48 * time.Hour
	})
	// The API server goes on to issue such tokens, as one of several may.
	live(t, func(w *world) {
		w.change(func() { w.skew = 48 * time.Hour })
		pass(10 * time.Minute)
		if n := len(w.asked); n < 10 || n > 11 {
			t.Errorf("%d tokens in ten minutes", n)
		}
	}, func(cfg *Config) {
		cfg.Clock = clock.RealClock{}
		server, ok := cfg.Hooks[0].(*world)
		if !ok {
			t.Fatal("the hook is no world")
		}
		server.skew = 48 * time.Hour
	})
}

// settable is a clock whose time can be set, and whose Since does not change by that.
type settable struct{ by atomic.Int64 }

func (s *settable) Now() time.Time                  { return time.Now().Add(time.Duration(s.by.Load())) }
func (s *settable) Since(t time.Time) time.Duration { return time.Since(t) }

// TestNothingExpiresThatCouldBeRenewed has outages, restarts and suspensions of up to a tenth of
// a lifetime, clocks that differ by up to five minutes and are set, and a server that grants
// other lifetimes.
func TestNothingExpiresThatCouldBeRenewed(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := rand.New(rand.NewPCG(seed, 0))
				upTo := func(d time.Duration) time.Duration { return time.Duration(r.Int64N(int64(d) + 1)) }
				set := &settable{}
				w := newWorld(t, func(cfg *Config) { cfg.Seed, cfg.Local, cfg.Lifetime = fmt.Sprint(seed), set, 24*time.Hour })
				w.cfg.Writer = watched{w.cfg.Writer, w}
				w.change(func() { w.skew = upTo(10*time.Minute) - 5*time.Minute })
				start := func() (stop func()) {
					var err error
					w.cfg.Registerer = nil
					w.agent, err = New(w.cfg)
					must(t, err)
					return testkit.Start(t.Context(), t, w.agent.Run)
				}
				stop := start()
				happened := map[string]int{}
				for range 40 {
					w.change(func() { w.granted = time.Hour + upTo(23*time.Hour) })
					pass(maxDelay + upTo(2*time.Hour))
					h, _ := w.agent.state(w.file)
					trouble, what := upTo(h.validity.Lifetime()/10), ""
					switch r.IntN(4) {
					case 0:
						what = "an outage"
						w.change(func() { w.down = testkit.InternalError() })
						pass(trouble)
						w.change(func() { w.down = nil })
					case 1:
						what = "an absence"
						stop()
						pass(trouble)
						stop = start()
						synctest.Wait()
					case 2:
						what = "a restart in an outage"
						w.change(func() { w.down = testkit.InternalError() })
						stop()
						stop = start()
						pass(trouble)
						w.change(func() { w.down = nil })
					case 3:
						what = "a clock that is set"
						set.by.Store(int64(upTo(10*time.Minute) - 5*time.Minute))
						pass(trouble)
					}
					happened[what]++
					if left := time.Until(w.expires()); left <= 0 {
						t.Fatalf("%s: the token expired %v ago", what, -left)
					}
				}
				stop()
				synctest.Wait()
				t.Logf("%d tokens, %v", len(w.asked), happened)
			})
		})
	}
}

// watched reports a token that had expired before it was replaced.
type watched struct {
	Writer

	w *world
}

func (o watched) Write(file string, content []byte) error {
	if former, err := os.ReadFile(file); err == nil {
		claims, err := token.UnverifiedBoundClaims(string(former))
		must(o.w.t, err)
		if late := time.Since(claims.Validity.Expires.Add(-o.w.skew)); late >= 0 {
			o.w.t.Errorf("a token is replaced %v after it expired", late)
		}
	}
	return o.Writer.Write(file, content)
}

// TestTheExpiryInTheStatusCounts: the API server extends tokens of some lifetimes for old clients,
// and the status of the TokenRequest has the time that was meant.
func TestTheExpiryInTheStatusCounts(t *testing.T) {
	live(t, func(w *world) {
		pass(50 * time.Minute)
		w.expectAsked(2)
	}, func(cfg *Config) {
		cfg.Client = extending{cfg.Client}
	})
}

// extending is an API server whose tokens are good for a year, and should be renewed
// within an hour.
type extending struct {
	typedcorev1.ServiceAccountsGetter
}

func (e extending) ServiceAccounts(namespace string) typedcorev1.ServiceAccountInterface {
	return extendingAccounts{e.ServiceAccountsGetter.ServiceAccounts(namespace)}
}

type extendingAccounts struct {
	typedcorev1.ServiceAccountInterface
}

func (e extendingAccounts) CreateToken(ctx context.Context, name string, request *authenticationv1.TokenRequest, opts metav1.CreateOptions) (*authenticationv1.TokenRequest, error) {
	answer, err := e.ServiceAccountInterface.CreateToken(ctx, name, request, opts)
	if err == nil {
		now := time.Now()
		payload := fmt.Sprintf(`{"iat":%d,"exp":%d}`, now.Unix(), now.AddDate(1, 0, 0).Unix())
		answer.Status.Token = "e30." + base64.RawURLEncoding.EncodeToString([]byte(payload)) + ".c2ln"
		answer.Status.ExpirationTimestamp = metav1.NewTime(now.Add(time.Hour))
	}
	return answer, err
}

func TestOnce(t *testing.T) {
	cases := map[string]struct {
		in      error
		inAfter time.Duration // when the API server is back
		wantErr string
	}{
		"all is well":                  {},
		"it comes back":                {in: errors.New("connection refused"), inAfter: 10 * time.Minute},
		"so does one that is confused": {in: testkit.InternalError(), inAfter: time.Minute},
		"it is another server":         {in: &tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}}, inAfter: time.Minute, wantErr: "request a token of service account team/robot: tls: "},
		"it refuses, and quotes":       {in: testkit.Invalid("spec", "eyJhbGciOi"), inAfter: time.Minute, wantErr: "request a token of service account team/robot: Invalid (the message is redacted"},
		"it refuses":                   {in: testkit.Invalid("spec", "x"), inAfter: time.Minute, wantErr: "request a token of service account team/robot: "},
		"there is no such account":     {in: testkit.NotFound(), inAfter: time.Minute, wantErr: "request a token of service account team/robot: "},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.down = tc.in
				time.AfterFunc(tc.inAfter, func() { w.change(func() { w.down = nil }) })
				err := w.agent.Once(t.Context())
				if tc.wantErr == "" != (err == nil) || err != nil && !strings.HasPrefix(err.Error(), tc.wantErr) {
					t.Errorf("error %v, want %q", err, tc.wantErr)
				}
				pass(tc.inAfter)
			})
		})
	}
	t.Run("the hook fails", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.hookErr = errors.New("boom")
			if err := w.agent.Once(t.Context()); err == nil || err.Error() != "boom" {
				t.Errorf("error %v", err)
			}
		})
	})
	t.Run("it is stopped", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.down = testkit.InternalError()
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			if err := w.agent.Once(ctx); err == nil {
				t.Error("no error")
			}
		})
	})
}

func TestAResponseWithoutATokenIsNotWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := fake.NewClientset()
		client.PrependReactor("create", "serviceaccounts", func(clienttesting.Action) (bool, runtime.Object, error) {
			return true, &authenticationv1.TokenRequest{Status: authenticationv1.TokenRequestStatus{Token: "hunter2"}}, nil
		})
		w := newWorld(t, func(cfg *Config) { cfg.Client = client.CoreV1() })
		err := w.agent.Once(t.Context())
		if !errors.Is(err, token.ErrNoClaims) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("error %v", err)
		}
		if got := names(t, w.dir); len(got) > 0 {
			t.Errorf("wrote %v", got)
		}
	})
}

func TestMetrics(t *testing.T) {
	live(t, func(w *world) {
		want := fmt.Sprintf("# HELP sakeeper_agent_token_expiry_timestamp_seconds When the token in the file expires, in seconds since 1970; 0: there is none yet.\n"+
			"# TYPE sakeeper_agent_token_expiry_timestamp_seconds gauge\nsakeeper_agent_token_expiry_timestamp_seconds{file=%q} %d\n", w.file, w.expires().Unix())
		if err := testutil.GatherAndCompare(w.cfg.Registerer.(*prometheus.Registry), strings.NewReader(want), "sakeeper_agent_token_expiry_timestamp_seconds"); err != nil {
			t.Error(err)
		}
	})
}

func TestNewRefusesAnIncompleteConfig(t *testing.T) {
	for name, spoil := range map[string]func(*Config){
		"no client":    func(c *Config) { c.Client = nil },
		"no namespace": func(c *Config) { c.Namespace = "" },
		"no account":   func(c *Config) { c.ServiceAccount = "" },
		"no lifetime":  func(c *Config) { c.Lifetime = 0 },
		"no writer":    func(c *Config) { c.Writer = nil },
		"no clock":     func(c *Config) { c.Clock = nil },
		"no tokens":    func(c *Config) { c.Tokens = nil },
		"a file twice": func(c *Config) { c.Tokens = append(c.Tokens, c.Tokens[0]) },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := newWorld(t).cfg
			cfg.Registerer = nil
			spoil(&cfg)
			if _, err := New(cfg); err == nil {
				t.Error("no error")
			}
		})
	}
}

// TestTheOwnCredentialIsMeasured: an agent that renews its own credential cannot recover once that
// has expired, so a metric says how much is left.
func TestTheOwnCredentialIsMeasured(t *testing.T) {
	live(t, func(w *world) {
		w.change(func() { w.down = testkit.InternalError() })
		for _, step := range []struct {
			pass time.Duration
			want float64
		}{{0, 1}, {51 * time.Minute, 0.15}, {9 * time.Minute, 0}, {time.Hour, 0}} {
			pass(step.pass)
			if got := w.agent.ownCredentialRemaining(); math.Abs(got-step.want) > 0.001 {
				t.Errorf("%v is left, want %v", got, step.want)
			}
		}
		w.change(func() { w.down = nil })
		pass(maxDelay)
		if got := w.agent.ownCredentialRemaining(); got < 0.9 {
			t.Errorf("renewed, and %v is left", got)
		}
	}, func(cfg *Config) { cfg.OwnCredential = cfg.Tokens[0].File })
	live(t, func(w *world) {
		w.change(func() { w.down = testkit.InternalError() })
		pass(2 * time.Hour)
		if got := w.agent.ownCredentialRemaining(); got != 1 {
			t.Errorf("%v is left of no such token", got)
		}
	})
}
