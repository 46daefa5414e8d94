package cache

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"

	"github.com/sakeeper/sakeeper/pkg/testkit"
)

// livenessFixture is the liveness of a running cache whose last event is a moment old.
type livenessFixture struct {
	*Liveness
	client *fake.Clientset
	probes []string // the versions that were asked for
	answer error    // of each probe
	after  time.Duration
}

func testLiveness(t *testing.T, test func(t *testing.T, f *livenessFixture)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f := &livenessFixture{client: fake.NewClientset(testkit.ServiceAccount("team/robot")), after: time.Second}
		informer, err := ServiceAccounts(f.client)
		mustNil(t, err)
		f.Liveness, err = NewLiveness(informer, func(ctx context.Context, version string) error {
			f.probes = append(f.probes, version)
			select {
			case <-time.After(f.after):
				return f.answer
			case <-ctx.Done():
				return ctx.Err()
			}
		})
		mustNil(t, err)
		if f.Alive(t.Context()) {
			t.Error("alive before its first list")
		}
		defer testkit.Start(t.Context(), t, testkit.Informer(informer))()
		<-informer.HasSyncedChecker().Done()
		synctest.Wait()
		informer.GetStore().Bookmark("7") // the fake API server has no versions
		test(t, f)
		time.Sleep(probeTimeout) // the last probe ends
	})
}

func wait(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (f *livenessFixture) event(t *testing.T) {
	t.Helper()
	_, err := f.client.CoreV1().ServiceAccounts("team").Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: time.Now().Format("a150405"), ResourceVersion: "8"}}, metav1.CreateOptions{})
	mustNil(t, err)
	synctest.Wait()
}

func (f *livenessFixture) expect(t *testing.T, what string, alive bool, probes int) {
	t.Helper()
	got := f.Alive(t.Context())
	synctest.Wait()
	if got != alive || len(f.probes) != probes {
		t.Errorf("%s: alive %t after %d probes, want %t after %d", what, got, len(f.probes), alive, probes)
	}
}

func TestACacheIsAliveFor10SecondsAfterAnEvent(t *testing.T) {
	testLiveness(t, func(t *testing.T, f *livenessFixture) {
		f.answer = errors.New("refused")
		f.expect(t, "after the list", true, 0)
		wait(4 * time.Second)
		f.event(t)
		wait(4 * time.Second)
		f.expect(t, "4 s after an event", true, 0)
		wait(time.Second)
		f.expect(t, "5 s after it", true, 1)
		wait(4999 * time.Millisecond)
		f.expect(t, "just before 10 s", true, 2)
		wait(time.Millisecond)
		f.expect(t, "10 s after it", false, 2)
		if err := f.Err(t.Context()); !errors.Is(err, f.answer) {
			t.Errorf("%v, want %v", err, f.answer)
		}
		f.event(t)
		f.expect(t, "after another event", true, 2)
		mustNil(t, f.Err(t.Context()))
	})
}

func TestACacheIsAliveAfterAProbeThatFoundNoChange(t *testing.T) {
	testLiveness(t, func(t *testing.T, f *livenessFixture) {
		wait(time.Hour)
		f.expect(t, "an hour without a question", false, 1)
		f.expect(t, "during the probe", false, 1)
		wait(time.Second)
		f.expect(t, "after it", true, 1)
		for range 60 { // a question each second
			wait(time.Second)
			f.expect(t, "under steady questions", true, len(f.probes)+btoi(f.due()))
		}
		if n := len(f.probes); n > 14 {
			t.Errorf("%d probes in a minute", n)
		}
		if diff := cmp.Diff("7", f.probes[0]); diff != "" {
			t.Errorf("version (-want +got):\n%s", diff)
		}
		// The answer of the last probe is as old as the probe.
		wait(AliveFor)
		f.expect(t, "10 s later", false, len(f.probes)+1)
	})
}

// due returns true if a question starts a probe now.
func (f *livenessFixture) due() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return !f.isBusy && f.since.Elapsed()-f.shown >= probeAfter
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func TestACacheThatIsBehindIsNotAliveUntilItsWatchDelivers(t *testing.T) {
	testLiveness(t, func(t *testing.T, f *livenessFixture) {
		f.answer = ErrBehind
		wait(time.Minute)
		f.expect(t, "a frozen watch", false, 1)
		mustNil(t, f.Err(t.Context()))
		wait(time.Second)
		if err := f.Err(t.Context()); !errors.Is(err, ErrBehind) {
			t.Errorf("%v, want %v", err, ErrBehind)
		}
		wait(time.Millisecond)
		f.event(t) // while the next probe is under way
		wait(2 * time.Second)
		f.expect(t, "after the event", true, 2)
		mustNil(t, f.Err(t.Context()))
	})
}

// TestAFailureIsProbedForByReadiness, because no other question may come any more.
func TestAFailureIsProbedForByReadiness(t *testing.T) {
	testLiveness(t, func(t *testing.T, f *livenessFixture) {
		f.after = time.Hour
		wait(time.Minute)
		mustNil(t, f.Err(t.Context()))
		f.expect(t, "a frozen connection", false, 1)
		wait(probeTimeout)
		if err := f.Err(t.Context()); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v, want a deadline", err)
		}
		wait(probeTimeout)
		f.after = 0
		if err := f.Err(t.Context()); err == nil {
			t.Error("a failure was forgotten")
		}
		synctest.Wait()
		mustNil(t, f.Err(t.Context()))
		f.expect(t, "after a probe of readiness", true, 3)
	})
}

// TestProbe with a server whose watch ends in each way.
func TestProbe(t *testing.T) {
	pause := func(http.ResponseWriter) { time.Sleep(probeWatch) }
	for name, tc := range map[string]struct {
		list  int
		watch func(http.ResponseWriter)
		want  string
	}{
		"no change":                   {list: http.StatusOK, watch: pause},
		"a change":                    {list: http.StatusOK, watch: func(w http.ResponseWriter) { _, _ = w.Write([]byte(`{"type":"DELETED"}`)) }, want: ErrBehind.Error()},
		"a watch that ends too early": {list: http.StatusOK, watch: func(http.ResponseWriter) {}, want: "watch serviceaccounts: it was ended early"},
		"a watch that breaks": {list: http.StatusOK, watch: func(w http.ResponseWriter) {
			_ = http.NewResponseController(w).Flush()
			time.Sleep(probeWatch)
			panic(http.ErrAbortHandler)
		}, want: "watch serviceaccounts: "},
		"a version that is too old": {list: http.StatusOK, watch: func(w http.ResponseWriter) { w.WriteHeader(http.StatusGone) }, want: "the server"},
		"no list":                   {list: http.StatusForbidden, watch: pause, want: "serviceaccounts"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got []string
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				got = append(got, r.URL.RequestURI())
				if !strings.Contains(r.Header.Get("Accept"), ";as=PartialObjectMetadata") {
					t.Errorf("accepts %s", r.Header.Get("Accept"))
				}
				if r.FormValue("watch") == "" {
					w.WriteHeader(tc.list)
					return
				}
				tc.watch(w)
			}))
			defer server.Close()
			transport := &http.Transport{}
			defer transport.CloseIdleConnections()
			client, err := rest.RESTClientForConfigAndClient(&rest.Config{
				Host: server.URL, APIPath: "/api", ContentConfig: rest.ContentConfig{GroupVersion: &schema.GroupVersion{Version: "v1"}, NegotiatedSerializer: scheme.Codecs},
			}, &http.Client{Transport: transport})
			mustNil(t, err)
			err = NewProbe(client, "serviceaccounts", "a=b")(t.Context(), "7")
			if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%v, want %q", err, tc.want)
			}
			want := []string{"/api/v1/serviceaccounts?limit=1", "/api/v1/serviceaccounts?fieldSelector=a%3Db&resourceVersion=7&timeoutSeconds=1&watch=true"}
			if tc.list != http.StatusOK {
				want = want[:1]
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("requests (-want +got):\n%s", diff)
			}
		})
	}
}
