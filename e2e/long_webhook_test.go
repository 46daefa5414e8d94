package e2e

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/sakeeper/sakeeper/pkg/servingcert/pki"
	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
)

// The contestants. Each is called only for the pods in the namespace of its name.
const (
	noWebhook = "no-webhook"
	ours      = "sakeeper"
	doNothing = "do-nothing"
	oneAlone  = "one-webhook" // a mutating webhook that allows, and no validating one
)

// The number of pods. Contestants take turns, so that other load on the machine affects all
// alike.
const (
	rounds      = 3
	oneByOne    = 120 // pods of each per round
	batches     = 4   // of each per round
	inParallel  = 8
	ofEachBatch = 40
)

// The goal is 1.2 on an idle machine. The limit of the test leaves room for other load.
const (
	promisedRatio = 1.2
	judgedRatio   = 2.0
)

func contestants() []string { return []string{noWebhook, ours, doNothing, oneAlone} }

// times are the durations of creations, by contestant.
type times map[string][]time.Duration

func (t times) percentile(name string, n int) time.Duration {
	sorted := slices.Sorted(slices.Values(t[name]))
	return sorted[min(len(sorted)*n/100, len(sorted)-1)]
}

// added is the time that the contestant adds at the median.
func (t times) added(name string) time.Duration {
	return t.percentile(name, 50) - t.percentile(noWebhook, 50)
}

// ratio is the time that sakeeper adds, divided by that of a webhook without logic.
func (t times) ratio() float64 { return float64(t.added(ours)) / float64(t.added(doNothing)) }

// race is one control plane with all contestants.
type race struct {
	controlPlane
	bundle            []byte
	certFile, keyFile string
	dir               string
	pods              map[string]int // number of created pods
}

// TestLongPodCreationCostsNoMoreThanADoNothingWebhook prints times, and checks the ratio of
// times that were measured in turns.
func TestLongPodCreationCostsNoMoreThanADoNothingWebhook(t *testing.T) {
	r := newRace(t)
	s, other := r.register(t)
	r.warmUp(t)
	before := r.calls(t, s, other)
	for mode, run := range map[string]func(*testing.T) times{"one by one": r.oneByOne, fmt.Sprintf("%d in parallel", inParallel): r.inBatches} {
		t.Run(mode, func(t *testing.T) {
			all, best := times{}, 0.0
			for round := range rounds {
				took := run(t)
				for name, more := range took {
					all[name] = append(all[name], more...)
				}
				t.Logf("round %d: ratio %.2f", round+1, took.ratio())
				if took.added(doNothing) > 0 && (best == 0 || took.ratio() < best) {
					best = took.ratio()
				}
				r.clear(t)
			}
			t.Logf("%s, ratio %.2f (promised at most %.1f)\n%s", mode, all.ratio(), promisedRatio, table(t, all))
			if best == 0 || best > judgedRatio {
				t.Errorf("the median that the webhook adds is, at best, %.2f times that of one that does nothing; at most %.1f is judged right", best, judgedRatio)
			}
		})
	}
	want := calls{
		ours:      {r.pods[ours], r.pods[ours]},
		doNothing: {r.pods[doNothing], r.pods[doNothing] + r.pods[oneAlone]},
	}
	if diff := cmp.Diff(want, r.calls(t, s, other).since(before)); diff != "" {
		t.Errorf("mutations and verdicts (-want +got):\n%s", diff)
	}
}

// calls are the numbers of mutating and validating calls of a server.
type calls map[string][2]int

func (r *race) calls(t *testing.T, s *controlplane.Sakeeper, other string) calls {
	t.Helper()
	counts := countsOf(t, s)
	_, text := do(t, caller(t, r.bundle), http.MethodGet, "https://"+other+"/", nil)
	var theirs [2]int
	_, err := fmt.Sscan(text, &theirs[0], &theirs[1])
	must(t, err)
	return calls{
		ours:      {counts[`path="/mutate/pods",result="allowed"`], counts[`path="/validate/pods",result="allowed"`]},
		doNothing: theirs,
	}
}

func (c calls) since(before calls) calls {
	since := calls{}
	for name, n := range c {
		since[name] = [2]int{n[0] - before[name][0], n[1] - before[name][1]}
	}
	return since
}

func newRace(t *testing.T) race {
	t.Helper()
	p := newControlPlane(t)
	unlimited := rest.CopyConfig(p.Admin)
	unlimited.QPS, unlimited.ContentType = -1, "application/vnd.kubernetes.protobuf"
	p.client = mustClient(t, unlimited)
	r := race{controlPlane: p, dir: t.TempDir(), pods: map[string]int{}}
	for _, name := range contestants() {
		newTeam(t, p, name)
	}
	ca := mustAuthority(t, time.Now())
	r.bundle = pki.Bundle(ca.Cert())
	r.certFile, r.keyFile = mustWritePair(t, r.dir, mustServe(t, ca, time.Now()))
	return r
}

// register starts the servers and registers them as the manifests register sakeeper, each for
// its own namespace.
func (r *race) register(t *testing.T) (s *controlplane.Sakeeper, doNothingAddress string) {
	t.Helper()
	w, err := controlplane.NewWebhook()
	must(t, err)
	must(t, r.InstallWebhook(t.Context(), w))
	api := r.client.AdmissionregistrationV1()
	mutating, err := api.MutatingWebhookConfigurations().Get(t.Context(), "sakeeper-webhook", metav1.GetOptions{})
	must(t, err)
	validating, err := api.ValidatingWebhookConfigurations().Get(t.Context(), "sakeeper-webhook", metav1.GetOptions{})
	must(t, err)
	must(t, api.MutatingWebhookConfigurations().Delete(t.Context(), "sakeeper-webhook", metav1.DeleteOptions{}))
	must(t, api.ValidatingWebhookConfigurations().Delete(t.Context(), "sakeeper-webhook", metav1.DeleteOptions{}))

	s = r.startOurs(t, w)
	other := r.startDoNothing(t, r.cannedPatch(t, w))
	enlist := func(name, mutate, validate string) {
		config := func(url string) (admissionregistrationv1.WebhookClientConfig, *metav1.LabelSelector) {
			return admissionregistrationv1.WebhookClientConfig{URL: &url, CABundle: r.bundle},
				&metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: name}}
		}
		if validate != "" {
			v := &admissionregistrationv1.ValidatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: name}, Webhooks: validating.DeepCopy().Webhooks}
			v.Webhooks[0].ClientConfig, v.Webhooks[0].NamespaceSelector = config(validate)
			_, err := api.ValidatingWebhookConfigurations().Create(t.Context(), v, metav1.CreateOptions{})
			must(t, err)
		}
		m := &admissionregistrationv1.MutatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: name}, Webhooks: mutating.DeepCopy().Webhooks}
		m.Webhooks[0].ClientConfig, m.Webhooks[0].NamespaceSelector = config(mutate)
		_, err := api.MutatingWebhookConfigurations().Create(t.Context(), m, metav1.CreateOptions{})
		must(t, err)
	}
	enlist(ours, "https://"+w.Address+"/mutate/pods", "https://"+w.Address+"/validate/pods")
	enlist(doNothing, "https://"+other+"/mutate", "https://"+other+"/allow")
	enlist(oneAlone, "https://"+other+"/allow", "")
	return s, other
}

// startOurs builds sakeeper without the race detector, whose cost would be measured too.
func (r *race) startOurs(t *testing.T, w controlplane.Webhook) *controlplane.Sakeeper {
	t.Helper()
	s, err := controlplane.StartSakeeper(r.build(t, "./cmd/sakeeper"),
		r.webhookArgs(t, w, "--tls-cert-file", r.certFile, "--tls-private-key-file", r.keyFile), nil)
	must(t, err)
	t.Cleanup(func() { _ = s.Stop() })
	must(t, s.WaitReady(t.Context()))
	return s
}

func (r *race) build(t *testing.T, path string) string {
	t.Helper()
	root, err := controlplane.RepositoryRoot()
	must(t, err)
	binary := filepath.Join(r.dir, filepath.Base(path))
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-o", binary, path)
	cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v: %s", path, err, out)
	}
	return binary
}

// cannedPatch is the patch of sakeeper for the pod of all contestants, as the API server sends
// it to webhooks.
func (r *race) cannedPatch(t *testing.T, w controlplane.Webhook) []byte {
	t.Helper()
	defaulted, err := r.client.CoreV1().Pods(noWebhook).Create(t.Context(), pod("sample"), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	must(t, err)
	code, body := do(t, caller(t, r.bundle), http.MethodPost, "https://"+w.Address+"/mutate/pods", mustJSON(t, review(t, noWebhook, defaulted)))
	answer := mustAnswer(t, body)
	if code != http.StatusOK || len(answer.Patch) == 0 {
		t.Fatalf("no patch: %d %s", code, body)
	}
	return answer.Patch
}

func (r *race) startDoNothing(t *testing.T, patch []byte) (address string) {
	t.Helper()
	w, err := controlplane.NewWebhook()
	must(t, err)
	file := filepath.Join(r.dir, "patch.json")
	must(t, os.WriteFile(file, patch, 0o600))
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), r.build(t, "./e2e/donothing"),
		"-address", w.Address, "-cert", r.certFile, "-key", r.keyFile, "-patch", file)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return w.Address
}
