package agent

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"os"
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
