package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sakeeper/sakeeper/e2e/behaviour"
	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
)

// newInTreePlane starts a control plane with the in-tree plugin and with nothing of sakeeper in it.
func newInTreePlane(t *testing.T) controlPlane {
	t.Helper()
	cp, err := controlplane.Start(controlplane.Options{Dir: t.TempDir(), PodAdmission: true})
	must(t, err)
	t.Cleanup(func() {
		if err := errors.Join(cp.Stop(), rights.note(cp)); err != nil {
			t.Errorf("stop control plane: %v", err)
		}
	})
	return controlPlane{cp, mustClient(t, cp.Admin)}
}

// shell runs a script in a directory, with kubectl as the administrator, and returns its output.
func (p controlPlane) shell(t *testing.T, dir, script string) string {
	t.Helper()
	kubeconfig, err := p.Kubeconfig("shell.kubeconfig", p.Admin)
	must(t, err)
	kubectl, err := controlplane.Binary("kubectl")
	must(t, err)
	cmd := exec.CommandContext(t.Context(), "sh", "-euc", script)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "KUBECONFIG="+kubeconfig, "PATH="+filepath.Dir(kubectl)+":"+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", script, err, out)
	}
	return string(out)
}

// limit sets the annotation of the account default that limits the Secrets of its pods.
func limit(t *testing.T, p controlPlane, namespace string) {
	t.Helper()
	_, err := p.client.CoreV1().ServiceAccounts(namespace).Patch(t.Context(), "default", types.MergePatchType,
		[]byte(`{"metadata":{"annotations":{"kubernetes.io/enforce-mountable-secrets":"true"}}}`), metav1.PatchOptions{})
	must(t, err)
}

// tryUnlisted tries to create a pod with a Secret that its account does not list, where the in-tree
// plugin does not look.
func tryUnlisted(ctx context.Context, p controlPlane, namespace string) error {
	_, err := p.client.CoreV1().Pods(namespace).Create(ctx, csiPod("unlisted", "of-others"), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	return err
}

const refusedByPolicy = `ValidatingAdmissionPolicy 'sakeeper-secret-references' with binding 'sakeeper-secret-references' denied request: `

// expectLimitedByPolicy waits until the policy refuses a pod of the namespace, which comes before any webhook.
func expectLimitedByPolicy(t *testing.T, p controlPlane, namespace string) {
	t.Helper()
	eventually(t, "a refusal of the policy", func(ctx context.Context) error {
		err := tryUnlisted(ctx, p, namespace)
		if apierrors.IsForbidden(err) && strings.Contains(err.Error(), refusedByPolicy) && strings.Contains(err.Error(), `"of-others" is not allowed`) {
			return nil
		}
		return fmt.Errorf("it was created, or: %w", err)
	})
}

// TestCoexistAsShipped: the overlay limits pods without a process and without a webhook, and its
// rights are enough for tokens that expire.
func TestCoexistAsShipped(t *testing.T) {
	p := newInTreePlane(t)
	p.shell(t, "..", "kubectl apply -k manifests/overlays/coexist")
	namespace := newTeam(t, p, "team")
	limit(t, p, namespace)
	expectLimitedByPolicy(t, p, namespace)
	expectToken(t, mustCreatePod(t, p.client, namespace, pod("allowed")))
	listed := newTeam(t, p, "listed")
	limit(t, p, listed)
	_, err := p.client.CoreV1().ServiceAccounts(listed).Patch(t.Context(), "default", types.MergePatchType, []byte(`{"secrets":[{"name":"of-others"}]}`), metav1.PatchOptions{})
	must(t, err)
	eventually(t, "a pod with a Secret that its account lists", func(ctx context.Context) error { return tryUnlisted(ctx, p, listed) })
	unlimited := newTeam(t, p, "unlimited")
	eventually(t, "a pod of an account without the annotation", func(ctx context.Context) error { return tryUnlisted(ctx, p, unlimited) })

	startReadySakeeper(t, p.sakeeperArgs(t, "--controllers=token-request-controller"))
	serve(t, p, namespace, `"allowed"`)
	mustCreateAccount(t, p.client, namespace, "robot")
	_, err = p.client.CoreV1().Secrets(namespace).Create(t.Context(), managed("s", nil), metav1.CreateOptions{})
	must(t, err)
	expectManaged(t, p, namespace, "s", "", corev1.ServiceAccountTokenKey, corev1.ServiceAccountRootCAKey, corev1.ServiceAccountNamespaceKey)
	for _, kind := range []string{"mutatingwebhookconfigurations", "validatingwebhookconfigurations"} {
		if out := p.shell(t, "..", "kubectl get -o name "+kind); out != "" {
			t.Errorf("there are %s", out)
		}
	}
}

// moving is a control plane under load, while its overlay is changed by the steps of the chapter.
type moving struct {
	controlPlane
	root     string // of a copy of the manifests
	limited  string // a namespace whose account default limits its pods
	load     *behaviour.Load
	unlisted *attempts
}

// run runs the block of manifests/README.md that begins with that text.
func (m *moving) run(t *testing.T, beginning string) {
	t.Helper()
	script, err := behaviour.Block(filepath.Join(m.root, "manifests", "README.md"), beginning)
	must(t, err)
	m.shell(t, m.root, script)
}

// some waits for more pods, and for more attempts to create one with an unlisted Secret.
func (m *moving) some(t *testing.T, when string) {
	t.Helper()
	created, refused := m.load.Count()+20, m.unlisted.count()+20
	eventually(t, "pods "+when, func(context.Context) error {
		if c, r := m.load.Count(), m.unlisted.count(); c < created || r < refused {
			return fmt.Errorf("%d of %d were created, %d of %d refused", c, created, r, refused)
		}
		return nil
	})
}

// attempts are those to create a pod with an unlisted Secret, one after the other, at most 20 a second.
type attempts struct {
	stop    func()
	mu      sync.Mutex
	refused int
	created int
	others  []error // that say nothing of the Secret
}

func startAttempts(t *testing.T, p controlPlane, namespace string) *attempts {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	a := &attempts{}
	var done sync.WaitGroup
	done.Go(func() {
		for range time.Tick(50 * time.Millisecond) {
			if ctx.Err() != nil {
				return
			}
			err := tryUnlisted(context.WithoutCancel(ctx), p, namespace)
			a.mu.Lock()
			switch {
			case err == nil:
				a.created++
			case apierrors.IsForbidden(err) && strings.Contains(err.Error(), `"of-others" is not allowed`):
				a.refused++
			default:
				a.others = append(a.others, err)
			}
			a.mu.Unlock()
		}
	})
	a.stop = func() { cancel(); done.Wait() }
	t.Cleanup(a.stop)
	return a
}

func (a *attempts) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.refused
}

// TestFromCoexistWebhookToCoexistAndBack follows the chapter's steps under load: no pod is refused that
// should not be, and none is created that should be refused.
func TestFromCoexistWebhookToCoexistAndBack(t *testing.T) {
	p := newInTreePlane(t)
	w, err := controlplane.NewWebhook()
	must(t, err)
	m := &moving{controlPlane: p, root: filepath.Join(coexistAt(t, w), "..", "..", ".."), limited: newTeam(t, p, "limited")}
	limit(t, p, m.limited)
	startWebhook := func() *controlplane.Sakeeper {
		t.Helper()
		// A pod goes on serving for a while after SIGTERM, as the manifests say.
		return startReadySakeeper(t, p.webhookArgs(t, w, "--mutating-webhook-configuration=", "--secret-reference-scope=all", "--shutdown-delay-duration=5s"))
	}
	const thereIsTheWebhook = "kubectl wait --for=jsonpath='{.webhooks[0].name}'"
	m.run(t, "kubectl apply -k manifests/overlays/coexist-webhook")
	webhook := startWebhook()
	m.run(t, thereIsTheWebhook)
	eventually(t, "the webhook refuses", func(ctx context.Context) error {
		err := tryUnlisted(ctx, p, m.limited)
		if err == nil || !strings.Contains(err.Error(), "validate.pods.sakeeper.io") {
			return fmt.Errorf("it was created, or: %w", err)
		}
		return nil
	})
	m.load = behaviour.StartLoad(t.Context(), p.client, newTeam(t, p, "busy"), 10)
	m.unlisted = startAttempts(t, p, m.limited)
	m.some(t, "under coexist-webhook")

	m.run(t, "kubectl apply -k manifests/overlays/coexist\n")
	expectLimitedByPolicy(t, p, m.limited)
	m.run(t, "kubectl delete validatingwebhookconfiguration sakeeper-webhook\n")
	must(t, webhook.Stop())
	m.some(t, "under coexist")
	for _, object := range []string{"serviceaccount/sakeeper-webhook", "deployment/sakeeper-webhook", "clusterrole/sakeeper:webhook", "secret/sakeeper-webhook-certificates"} {
		if out := m.shell(t, m.root, "kubectl -n sakeeper-system get --ignore-not-found -o name "+object); out != "" {
			t.Errorf("%s is left", out)
		}
	}
	m.shell(t, m.root, "kubectl -n sakeeper-system get deployment/sakeeper-controllers serviceaccount/sakeeper-controllers")

	m.run(t, "kubectl apply -k manifests/overlays/coexist-webhook")
	webhook = startWebhook()
	m.run(t, thereIsTheWebhook)
	m.run(t, "kubectl delete -k manifests/components/policies/secret-references")
	m.some(t, "under coexist-webhook again")
	m.unlisted.stop()
	result := m.load.Stop()
	t.Logf("%d pods were created, %d refused, %d not answered; %d with an unlisted Secret were refused",
		result.Created, len(result.Refused), len(result.Unreachable), m.unlisted.count())
	if len(result.Refused)+len(result.Unreachable)+result.WithoutToken > 0 {
		t.Errorf("refused: %v; not answered: %v; %d without a token", result.Reasons(), result.Unreachable, result.WithoutToken)
	}
	if m.unlisted.created > 0 || len(m.unlisted.others) > 0 {
		t.Errorf("%d pods with an unlisted Secret were created; others failed: %v", m.unlisted.created, m.unlisted.others)
	}
	must(t, webhook.Stop())
	if err := tryUnlisted(t.Context(), p, m.limited); !apierrors.IsInternalError(err) {
		t.Errorf("a configuration without its pods: %v", err)
	}
}
