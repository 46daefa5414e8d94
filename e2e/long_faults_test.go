package e2e

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
	"github.com/sakeeper/sakeeper/pkg/testkit/faults"
)

// mustProxy starts a proxy between sakeeper and the API server of p, with the credentials of
// sakeeper.
func mustProxy(t *testing.T, p controlPlane) *faults.Proxy {
	t.Helper()
	identity, err := p.ServiceAccount(controlplane.Namespace, controlplane.Account)
	must(t, err)
	proxy, err := faults.Start(identity)
	must(t, err)
	t.Cleanup(proxy.Close)
	return proxy
}

// argsThrough are the arguments of a sakeeper that goes through proxy. It runs without leader
// election, because a lost lease would end the process.
func (p controlPlane) argsThrough(t *testing.T, proxy *faults.Proxy, more ...string) []string {
	t.Helper()
	kubeconfig := filepath.Join(t.TempDir(), "proxy.kubeconfig")
	must(t, proxy.Kubeconfig(kubeconfig))
	return p.sakeeperArgs(t, append([]string{"--kubeconfig", kubeconfig, "--leader-elect=false"}, more...)...)
}

// trouble is a failure of the API server or the connection to it.
type trouble struct {
	name string
	// begin starts the failure; it lasts until end is called.
	begin func(*testing.T, troubled) (end func())
	// enough returns nil when the failure has lasted long enough.
	enough func(troubled) error
	// apart is the time between attempts that do not count as failures: those of client-go
	// after a Retry-After, and those after a conflict. Zero: there are none.
	apart time.Duration
}

// troubled is a control plane while a failure lasts.
type troubled struct {
	controlPlane

	proxy *faults.Proxy
	// life is the namespace in which tokens are generated, signed anew and cleaned up.
	life string
	// before is the number of requests before the failure, which began at began.
	before int
	began  time.Time
}

// since are the requests since the failure began.
func (w troubled) since() []faults.Request { return w.proxy.Requests()[w.before:] }

// inject injects a fault into all requests for which match returns true.
func inject(fault faults.Fault, match func(faults.Request) bool) func(*testing.T, troubled) func() {
	return func(_ *testing.T, w troubled) func() { return w.proxy.Inject(fault, match).Lift }
}

// manyWrites waits until enough writes have failed, among them each step in the life of a
// token.
func manyWrites(w troubled) error {
	return errors.Join(many(w), met(w, map[string]func(faults.Request) bool{
		"a generated token": func(r faults.Request) bool { return r.Kind() == "create secrets" },
		"a new signature": func(r faults.Request) bool {
			return r.Kind() == "patch secrets" && strings.HasPrefix(r.Name, "former-")
		},
		"a mark": func(r faults.Request) bool {
			return r.Kind() == "patch secrets" && strings.HasPrefix(r.Name, "unused-")
		},
		"a clean-up": func(r faults.Request) bool {
			return r.Kind() == "delete secrets" && strings.HasPrefix(r.Name, "marked-")
		},
	}))
}

// manyRequests is manyWrites for failures of reads too, with which some of these steps begin.
func manyRequests(w troubled) error {
	return errors.Join(many(w), met(w, map[string]func(faults.Request) bool{
		"the search for a generated token": func(r faults.Request) bool { return r.Kind() == "list secrets" },
		"a new signature": func(r faults.Request) bool {
			return r.Kind() == "patch secrets" && strings.HasPrefix(r.Name, "former-")
		},
	}), met(troubled{proxy: w.proxy, before: w.before, life: metav1.NamespaceSystem}, map[string]func(faults.Request) bool{
		"the record of uses of a clean-up": func(r faults.Request) bool { return r.Kind() == "get configmaps" },
	}))
}

// manyOrSo is manyWrites with one of these steps, for failures that hide watch events by chance.
func manyOrSo(w troubled) error {
	return errors.Join(many(w), met(w, map[string]func(faults.Request) bool{
		"a step in the life of a token": func(r faults.Request) bool {
			return r.Kind() == "create secrets" || r.Kind() == "patch secrets" || r.Kind() == "delete secrets" || r.Kind() == "list pods"
		},
	}))
}

// met returns an error for a step that was not attempted in w.life since the failure began.
func met(w troubled, steps map[string]func(faults.Request) bool) error {
	for name, step := range steps {
		if !slices.ContainsFunc(w.since(), func(r faults.Request) bool { return r.Namespace == w.life && step(r) }) {
			return fmt.Errorf("%s was not tried", name)
		}
	}
	return nil
}

// many waits until enough requests for every kind of object have failed, and long enough for
// several retries.
func many(w troubled) error {
	const each = 3
	if err := passed(5 * time.Second)(w); err != nil {
		return err
	}
	counts := map[string]int{}
	for _, r := range w.since() {
		if r.Writes() {
			counts[r.Resource]++
		}
	}
	for _, resource := range []string{"serviceaccounts", "configmaps", "secrets"} {
		if counts[resource] < each {
			return fmt.Errorf("%d writes of %s, want %d", counts[resource], resource, each)
		}
	}
	return nil
}

func passed(d time.Duration) func(troubled) error {
	return func(w troubled) error {
		if left := d - time.Since(w.began); left > 0 {
			return fmt.Errorf("%v are left", left)
		}
		return nil
	}
}

func troubles() []trouble {
	return []trouble{
		{name: "every write is answered with 409", begin: inject(faults.Conflict(), faults.Request.Writes), enough: manyWrites, apart: time.Second},
		{name: "everything is answered with 429 and Retry-After", begin: inject(faults.TooManyRequests(time.Second), nil), enough: manyRequests, apart: time.Second},
		{name: "everything is answered with 500", begin: inject(faults.InternalError(), nil), enough: manyRequests},
		{name: "connections break, before or after the deed", enough: manyOrSo, begin: func(_ *testing.T, w troubled) func() {
			var n atomic.Int64
			// Watches break with their connection, but may start again: without events there
			// are no writes.
			before := w.proxy.Inject(faults.Reset(), func(r faults.Request) bool {
				return r.Writes() || r.Verb == "get" && r.Resource != "configmaps" // which a clean-up reads first
			})
			after := w.proxy.Inject(faults.ResetAfter(), func(faults.Request) bool { return n.Add(1)%2 == 0 })
			return func() { before.Lift(); after.Lift() }
		}},
		{name: "nothing is heard for ten seconds", begin: inject(faults.Silence(), nil), enough: passed(10 * time.Second)},
		{name: "the API server dies and comes back", enough: passed(0), begin: func(t *testing.T, w troubled) func() {
			t.Helper()
			var restart errgroup.Group
			restart.Go(func() error { return errors.Join(w.KillServer(), w.StartServer(t.Context())) })
			must(t, restart.Wait())
			return func() {}
		}},
		{name: "watches expire while objects go", begin: expireWatches, enough: passed(0)},
	}
}

// expireWatches ends every watch until end is called. Then their resourceVersion is too old, so
// that only lists show which objects were deleted.
func expireWatches(t *testing.T, w troubled) (end func()) {
	t.Helper()
	resumes := func(r faults.Request) bool { return r.Resumes }
	// Silence, because refused watches would be retried after very different delays.
	deaf := w.proxy.Inject(faults.Silence(), resumes)
	if got := w.proxy.CutWatches(); got != len(watched()) {
		t.Errorf("%d watches were cut, want those of %v", got, watched())
	}
	return func() {
		var expired sync.Map
		gone := w.proxy.Inject(faults.Expired(), func(r faults.Request) bool {
			if r.Resumes {
				expired.Store(r.Resource, true)
			}
			return r.Resumes
		})
		defer gone.Lift()
		deaf.Lift()
		eventually(t, "every watch has expired", func(context.Context) error {
			for _, resource := range watched() {
				if _, ok := expired.Load(resource); !ok {
					return errors.New("not that of " + resource)
				}
			}
			return nil
		})
	}
}

// watched are the resources of the watches: of Secrets, one is of tokens, and one of type Opaque.
func watched() []string {
	return []string{"namespaces", "serviceaccounts", "secrets", "secrets", "configmaps"}
}

// TestLongFaultsBetweenSakeeperAndTheAPIServer runs a process for each failure: the backoff of
// lists and watches in client-go grows up to a minute, and would last into the next failure.
func TestLongFaultsBetweenSakeeperAndTheAPIServer(t *testing.T) {
	former := filepath.Join(t.TempDir(), "former.key")
	formerKey := mustWriteECKey(t, former)
	p := newControlPlaneWith(t, controlplane.Options{MoreKeyFiles: []string{former}})
	must(t, p.Install(t.Context(), "token-generation"))
	mustBackdateTracking(t, p.client)
	for i, tr := range troubles() {
		t.Run(tr.name, func(t *testing.T) {
			proxy := mustProxy(t, p)
			s := startReadySakeeper(t, p.argsThrough(t, proxy, append(lifeArgs(), "--service-account-key-file="+former)...))
			h := newPast(t, p)
			life := fmt.Sprintf("life-%d", i)
			w := troubled{controlPlane: p, proxy: proxy, life: life, before: len(proxy.Requests()), began: time.Now()}
			end := tr.begin(t, w)
			namespaces := []string{fmt.Sprintf("load-%d-a", i), fmt.Sprintf("load-%d-b", i), fmt.Sprintf("load-%d-c", i)}
			load, ctx := errgroup.WithContext(t.Context())
			for _, namespace := range namespaces {
				load.Go(func() error { return burden(ctx, p.client, namespace) })
			}
			load.Go(func() error { return liveOn(ctx, p.client, life, formerKey) })
			h.happen(t)
			must(t, load.Wait())
			eventually(t, "enough trouble", func(context.Context) error { return tr.enough(w) })
			end()
			// client-go may wait for up to a minute before it retries.
			eventuallyIn(t, 2*time.Minute, "the watches are back", func(context.Context) error {
				if got := proxy.Watches(); got < len(watched()) {
					return fmt.Errorf("%d watches", got)
				}
				return nil
			})
			for _, namespace := range namespaces {
				expectBurdenCarried(t, p, namespace)
			}
			expectLifeWentOn(t, p, life, mustReadKey(t, p.SigningKeyFile))
			h.expectMended(t, "keeper-token-hjklm")
			expectNothingFails(t, s)
			must(t, s.WaitReady(t.Context()))
			expectFewRequests(t, w.since(), time.Since(w.began), tr.apart)
		})
	}
}

func expectNothingFails(t *testing.T, s *controlplane.Sakeeper) {
	t.Helper()
	eventually(t, "no key fails", func(ctx context.Context) error {
		_, metrics, err := s.Get(ctx, "/metrics")
		if err != nil {
			return err
		}
		for line := range strings.Lines(metrics) {
			if strings.HasPrefix(line, "sakeeper_failing_keys{") && !strings.HasSuffix(line, " 0\n") {
				return errors.New(line)
			}
		}
		return nil
	})
}

// expectFewRequests fails when a request was sent too often during a failure and after it, which
// lasted for that long together: an account or ConfigMap that was deleted while no watch told of it
// is missing for a minute.
//
// A key that fails is retried after 5 ms, and after twice as long each time; attempts that do
// not count as failures come every apart. Lists and watches are retried after 0.8 s, and one
// may fall back to the other; each that succeeds returns every object again, whose key is then
// handled at once. Some more are for the requests without a failure, after each change of the
// object.
func expectFewRequests(t *testing.T, requests []faults.Request, lasted, apart time.Duration) {
	t.Helper()
	const changes = 4
	shown := map[string]int{}
	for _, r := range requests {
		if r.Namespace == "" && (r.Verb == "list" || r.Verb == "watch") && !r.Resumes {
			shown[r.Resource]++
		}
	}
	each := changes + 2 + int(math.Log2(float64(lasted)/float64(5*time.Millisecond)+1)) + slices.Max(append(slices.Collect(maps.Values(shown)), 0))
	if apart > 0 {
		each += int(lasted/apart) + 1
	}
	watches := 2 * (changes + int(lasted/(800*time.Millisecond)))

	counts := map[string]int{}
	total := 0
	for _, r := range requests {
		if r.Resource == "events" { // each is another object
			continue
		}
		total++
		counts[r.Kind()+" "+r.Namespace+"/"+r.Name+" by "+r.UserAgent]++
	}
	busiest := ""
	for target, n := range counts {
		limit := each
		switch {
		case strings.HasPrefix(target, "list secrets life-"): // for each account that requests a token, before and after an attempt
			limit *= 2 * lifeAccounts
		case strings.HasPrefix(target, "watch ") || strings.HasPrefix(target, "list "):
			limit = watches
		case strings.Contains(target, "-token-tracking by "): // for each pass of the cleaner
			limit += int(lasted / cleanUpInterval)
		case strings.Contains(target, "/mine by "): // every account of burden refers to it
			limit *= burdenAccounts
		case strings.Contains(target, "/robot by "): // every Secret of liveOn is of that account
			limit *= 3 * lifeAccounts
		case strings.HasPrefix(target, "get serviceaccounts "): // for its Secrets, and for its references
			limit *= 2
		case n > counts[busiest]:
			busiest = target
		}
		if n > limit {
			t.Errorf("%d times %q, want at most %d", n, target, limit)
		}
	}
	t.Logf("the fault and its repair lasted %v; %d requests for %d things, at most %d (of %d) times the same, %q; all by kind: %v",
		lasted.Round(time.Millisecond), total, len(counts), counts[busiest], each, busiest, faults.Count(requests))
}
