package tokengeneration

import (
	"context"
	"regexp"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/record"

	"github.com/sakeeper/sakeeper/pkg/internal/workqueue"
	"github.com/sakeeper/sakeeper/pkg/testkit"
	"github.com/sakeeper/sakeeper/pkg/testkit/fakeapi"
	"github.com/sakeeper/sakeeper/pkg/token"
)

// runningController is the controller with its informers and a fake API server.
type runningController struct {
	*Controller
	t        *testing.T
	server   *fakeapi.Server
	recorder *record.FakeRecorder
	tokens   *pausableTokens
	stop     func()
}

func newRunningController(t *testing.T, mode Mode, objects ...runtime.Object) *runningController {
	t.Helper()
	r := &runningController{t: t, server: fakeapi.New(objects...), recorder: record.NewFakeRecorder(100), tokens: &pausableTokens{}}
	r.Controller = newController(t, r.server, r.server.Metadata, func(cfg *Config) { cfg.Mode, cfg.Tokens, cfg.Recorder = mode, r.tokens, r.recorder })
	return r
}

func startController(t *testing.T, mode Mode, objects ...runtime.Object) *runningController {
	t.Helper()
	r := newRunningController(t, mode, objects...)
	r.stop = testkit.Start(testkit.Context(t), t, r.Run, testkit.Informer(r.cfg.Namespaces), testkit.Informer(r.cfg.Secrets), testkit.Informer(r.cfg.ServiceAccounts))
	return r
}

// pausableTokens returns [workqueue.ErrRequeueLater] while it is paused.
type pausableTokens struct{ paused atomic.Bool }

func (t *pausableTokens) Sign(_ context.Context, c token.LegacyClaims) (string, time.Duration, error) {
	if t.paused.Load() {
		return "", 0, workqueue.ErrRequeueLater
	}
	return secretBytes + c.SecretName, 0, nil
}

// set creates or replaces an object as a user does, and waits until the controller is idle.
func (r *runningController) set(obj runtime.Object) {
	r.server.Set(obj)
	synctest.Wait()
}

func (r *runningController) remove(obj runtime.Object) {
	r.server.Remove(obj)
	synctest.Wait()
}

func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// writes returns the writes since the last call, sorted, with the random part of names left out.
func (r *runningController) writes() []string {
	var writes []string
	for _, request := range testkit.Requests(r.server.Requests()) {
		if request.Verb != "list" {
			writes = append(writes, request.Verb+" "+generatedSuffix.ReplaceAllString(request.Name, "-token-*"))
		}
	}
	slices.Sort(writes)
	return writes
}

var generatedSuffix = regexp.MustCompile(`-token-[a-z0-9]{5}$`)

// expectWrites lets 15 seconds pass, and compares the writes since the last call.
func (r *runningController) expectWrites(step string, want ...string) {
	r.t.Helper()
	pass(15 * time.Second)
	if diff := cmp.Diff(want, r.writes()); diff != "" {
		r.t.Errorf("%s (-want +got):\n%s", step, diff)
	}
}

// references returns the names in the account's secrets.
func (r *runningController) references(account string) []string {
	var names []string
	for _, ref := range fakeapi.Get[corev1.ServiceAccount](r.server, account).Secrets {
		names = append(names, ref.Name)
	}
	return names
}

// rejectReferences makes the API server reject references, and counts dry runs of them.
func rejectReferences(dryRuns *atomic.Int32) func(clienttesting.Action) *fakeapi.Fault {
	return func(action clienttesting.Action) *fakeapi.Fault {
		patch, ok := action.(clienttesting.PatchActionImpl)
		if !ok {
			return nil
		}
		if len(patch.PatchOptions.DryRun) > 0 {
			dryRuns.Add(1)
		}
		return &fakeapi.Fault{Err: testkit.QuotaExceeded()}
	}
}

func createdLongAgo(o metav1.Object) {
	o.SetCreationTimestamp(metav1.NewTime(time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC)))
}
