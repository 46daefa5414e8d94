package tokencleaner

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/ktesting"
	"k8s.io/utils/clock"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/sakeeper/sakeeper/pkg/cache"
	"github.com/sakeeper/sakeeper/pkg/testkit"
	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
)

// run is a controller that runs with its informers.
type run struct {
	*Controller
	recorder *record.FakeRecorder
	agent    string // the user agent of its requests in the audit log
	stop     func()
}

// run starts a controller with clock. Each of its requests calls before first, which may be
// nil.
func (p *controlPlane) run(clock clock.PassiveClock, before func(*http.Request), change func(*Config)) run {
	p.t.Helper()
	r := run{recorder: record.NewFakeRecorder(1000), agent: "cleaner-" + rand.String(10)}
	config := rest.CopyConfig(p.cleaner)
	config.UserAgent = r.agent
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { return interceptor{next, before} })
	client, err := kubernetes.NewForConfig(config)
	must(p.t, err)
	cfg := Config{Client: client.CoreV1(), Period: period, Interval: time.Hour, Clock: clock, Recorder: r.recorder}
	var err1, err2, err3 error
	cfg.Namespaces, err1 = cache.Namespaces(client)
	cfg.Secrets, err2 = cache.TokenSecrets(client, nil)
	cfg.ServiceAccounts, err3 = cache.ServiceAccounts(client)
	must(p.t, errors.Join(err1, err2, err3))
	if change != nil {
		change(&cfg)
	}
	r.Controller, err = New(cfg)
	must(p.t, err)
	ctx := klog.NewContext(p.t.Context(), ktesting.NewLogger(p.t, ktesting.NewConfig()))
	r.stop = testkit.Start(ctx, p.t, r.Run, testkit.Informer(cfg.Namespaces), testkit.Informer(cfg.Secrets), testkit.Informer(cfg.ServiceAccounts))
	return r
}

// pass runs one pass of a new controller at the given time. It returns its events and its
// requests ("<verb> <resource> <namespace>/<name>"), sorted, without those of the informers and
// for the tracking ConfigMap.
func (p *controlPlane) pass(at time.Time, before func(*http.Request), change func(*Config)) (events, requests []string) {
	p.t.Helper()
	mark, err := p.Audit.Mark(p.t.Context())
	must(p.t, err)
	r := p.run(clocktesting.NewFakePassiveClock(at), before, change)
	p.eventually("the first pass", func(context.Context) error {
		if !r.Ready() {
			return errors.New("not ready")
		}
		return nil
	})
	r.stop()
	all, err := p.Audit.Since(p.t.Context(), mark, func(one controlplane.Request) bool { return one.UserAgent == r.agent })
	must(p.t, err)
	for _, one := range all {
		if one.Response.Code == http.StatusForbidden {
			p.t.Errorf("forbidden: %s %s", one.Verb, one.URI)
		}
		if one.Verb == "list" && one.Object.Resource == "pods" || one.Verb != "list" && one.Verb != "watch" && one.Verb != "get" {
			requests = append(requests, fmt.Sprintf("%s %s %s/%s", one.Verb, one.Object.Resource, one.Object.Namespace, one.Object.Name))
		}
	}
	slices.Sort(requests)
	events = testkit.Events(r.recorder)
	slices.Sort(events)
	return events, requests
}

type interceptor struct {
	next   http.RoundTripper
	before func(*http.Request)
}

func (i interceptor) RoundTrip(r *http.Request) (*http.Response, error) {
	if i.before != nil {
		i.before(r)
	}
	return i.next.RoundTrip(r)
}

// once returns a hook that calls f before the first request with method and path.
func once(method, path string, f func()) func(*http.Request) {
	var done atomic.Bool
	return func(r *http.Request) {
		if r.Method == method && r.URL.Path == path && done.CompareAndSwap(false, true) {
			f()
		}
	}
}
