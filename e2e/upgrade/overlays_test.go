package upgrade

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sakeeper/sakeeper/e2e/behaviour"
	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
)

// TestUpgradeOfCoexist goes from the older coexist to this one, and back, by the steps of the chapter: no
// pod and no token is refused, and no object of a user is changed. Only revisions before ba1f421, whose
// configuration came with webhooks, cannot be gone back to without a refusal.
func TestUpgradeOfCoexist(t *testing.T) {
	const overlay = "overlays/coexist"
	p := newPlane(t, controlplane.Options{PodAdmission: true})
	stop, err := p.StartControllerManager(controlplane.ControllerManager{
		Controllers: []string{"serviceaccount-controller", "root-ca-certificate-publisher-controller"}, SigningKey: true,
	})
	must(t, err)
	t.Cleanup(func() { must(t, stop()) })

	p.apply(t, older, overlay)
	oldManifests, newManifests := older.manifests(t, overlay, p.webhook), newer.manifests(t, overlay, p.webhook)
	webhook := p.startWebhookOf(t, oldManifests)
	controllers := p.startReady(t, older, p.args(t, oldManifests, "controllers"))
	p.create(t)
	p.newLimited(t)
	p.waitLimited(t, "of-others")
	before := p.userObjects(t)
	l := p.startLoad(t)
	l.more(t, "before")

	p.apply(t, newer, overlay)
	controllers = p.roll(t, controllers, newer, p.args(t, newManifests, "controllers"))
	if webhook != nil {
		p.waitLimited(t, "ValidatingAdmissionPolicy")
		p.follow(t, "kubectl delete validatingwebhookconfiguration sakeeper-webhook\n")
		end(t, webhook)
	}
	p.rotate(t, "managed")
	l.more(t, "of this revision")
	p.waitLimited(t, "of-others")
	expectSame(t, "of this revision", before, p.userObjects(t), "managed")

	p.apply(t, older, overlay)
	controllers = p.roll(t, controllers, older, p.args(t, oldManifests, "controllers"))
	if webhook != nil {
		p.startWebhookOf(t, oldManifests)
		p.follow(t, "kubectl wait --for=jsonpath='{.webhooks[0].name}'")
		p.follow(t, "kubectl delete -k manifests/components/policies/secret-references")
	}
	p.rotate(t, "custom")
	l.more(t, "of the older revision again")
	p.waitLimited(t, "of-others")
	expectSame(t, "of the older revision again", before, p.userObjects(t), "managed", "custom")
	share := 0.0
	if strings.Contains(oldManifests, "\nwebhooks:\n") {
		t.Log("the webhook configuration of the older coexist is not empty, so that pods are refused after it was applied again, until its webhook serves")
		share = tenfold * 0.01
	}
	l.end(t, share)
	end(t, controllers)
}

// startWebhookOf starts the older webhook if the manifests have one, and returns nil if not.
func (p plane) startWebhookOf(t *testing.T, manifests string) *controlplane.Sakeeper {
	t.Helper()
	if _, ok := findArgs(t, manifests, "webhook"); !ok {
		return nil
	}
	return p.startReady(t, older, p.args(t, manifests, "webhook"))
}

// follow runs the block of manifests/README.md that begins with that text.
func (p plane) follow(t *testing.T, beginning string) {
	t.Helper()
	script, err := behaviour.Block(filepath.Join(newer.root, "manifests", "README.md"), beginning)
	must(t, err)
	p.run(t, script)
}

// limited is a namespace whose account default limits the Secrets of its pods.
const limited = "limited"

func (p plane) newLimited(t *testing.T) {
	t.Helper()
	p.newNamespace(t, limited, nil)
	p.waitAccount(t, limited)
	p.run(t, "kubectl -n limited annotate serviceaccount default kubernetes.io/enforce-mountable-secrets=true")
}

// waitLimited waits until a pod that names a Secret where the in-tree plugin does not look is refused
// with that text.
func (p plane) waitLimited(t *testing.T, text string) {
	t.Helper()
	pod := newPod(corev1.Volume{Name: "v", VolumeSource: corev1.VolumeSource{CSI: &corev1.CSIVolumeSource{Driver: "d", NodePublishSecretRef: &corev1.LocalObjectReference{Name: "of-others"}}}})
	eventually(t, "a pod with a Secret of others is refused", func(ctx context.Context) error {
		_, err := p.client.CoreV1().Pods(limited).Create(ctx, pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if apierrors.IsForbidden(err) && strings.Contains(err.Error(), text) {
			return nil
		}
		return fmt.Errorf("it was created, or: %w", err)
	})
}

// tenfold: a test fails at ten times what is promised of a machine that is not busy.
const tenfold = 10

// TestUpgradeOfReplace goes from the older replace to this one, and back, as its DaemonSets do: the next
// process is ready before the last one ends. At most 1 % of the pods are refused, and no token.
func TestUpgradeOfReplace(t *testing.T) {
	const overlay = "overlays/replace"
	p := newPlane(t, controlplane.Options{})
	p.apply(t, older, overlay, tokenRequests)
	manifests := older.manifests(t, overlay, p.webhook)
	controllers := p.startReady(t, older, p.args(t, manifests, "controllers", withTokenRequests))
	webhook := p.startReady(t, older, p.args(t, manifests, "webhook"))
	p.create(t)
	l := p.startLoad(t)
	l.more(t, "before")
	before, ca := p.userObjects(t), p.webhookCA(t)
	for i, to := range []revision{newer, older} {
		p.apply(t, to, overlay, tokenRequests)
		manifests := to.manifests(t, overlay, p.webhook)
		controllers = p.roll(t, controllers, to, p.args(t, manifests, "controllers", withTokenRequests))
		webhook = p.roll(t, webhook, to, p.args(t, manifests, "webhook"))
		p.expectWork(t, fmt.Sprint("round-", i))
		p.rotate(t, "managed")
		l.more(t, "of "+to.name)
		expectSame(t, "of "+to.name, before, p.userObjects(t), "managed")
	}
	l.end(t, tenfold*0.01)
	if p.webhookCA(t) != ca {
		t.Error("the webhook has another CA")
	}
	end(t, webhook)
	end(t, controllers)
}

// TestUpgradeOfStaticPods replaces the static pods of the older revision by those of this one, and back.
// kubelet stops the one before it starts the other: no pod is created meanwhile, for 5 seconds at most, and
// no token is refused.
func TestUpgradeOfStaticPods(t *testing.T) {
	const overlay = "overlays/static-pod"
	const promised = 5 * time.Second
	p := newPlane(t, controlplane.Options{})
	p.apply(t, older, overlay, tokenRequests)
	controllers := p.startReady(t, older, p.args(t, older.static(t, "controllers"), "controllers", withTokenRequests))
	webhook := p.startReady(t, older, p.args(t, older.static(t, "webhook"), "webhook"))
	p.create(t)
	l := p.startLoad(t)
	l.more(t, "before")
	before := p.userObjects(t)
	for i, to := range []revision{newer, older} {
		p.apply(t, to, overlay, tokenRequests)
		end(t, controllers)
		controllers = p.startReady(t, to, p.args(t, to.static(t, "controllers"), "controllers", withTokenRequests))
		end(t, webhook)
		webhook = p.startReady(t, to, p.args(t, to.static(t, "webhook"), "webhook"))
		p.expectWork(t, fmt.Sprint("round-", i))
		p.rotate(t, "managed")
		l.more(t, "of "+to.name)
		expectSame(t, "of "+to.name, before, p.userObjects(t), "managed")
	}
	if pods := l.end(t, 1); pods.LongestGap > tenfold*promised {
		t.Errorf("no pod was created for %v", pods.LongestGap)
	}
	end(t, webhook)
	end(t, controllers)
}

// What an administrator adds to replace and to static pods for managed tokens.
const (
	tokenRequests     = "components/token-requests"
	withTokenRequests = "--controllers=*,token-request-controller"
)

// expectWork waits for what the controllers do in a new namespace, and logs how long its account took.
func (p plane) expectWork(t *testing.T, namespace string) {
	t.Helper()
	began := time.Now()
	p.newNamespace(t, namespace, nil)
	p.waitAccount(t, namespace)
	t.Logf("a new namespace had its account after %v", time.Since(began).Round(time.Millisecond))
	_, err := p.client.CoreV1().Secrets(namespace).Create(t.Context(), legacySecret("s", "default", nil), metav1.CreateOptions{})
	must(t, err)
	eventually(t, "its token and its CA", func(ctx context.Context) error {
		secret, err1 := p.client.CoreV1().Secrets(namespace).Get(ctx, "s", metav1.GetOptions{})
		_, err2 := p.client.CoreV1().ConfigMaps(namespace).Get(ctx, api.RootCAConfigMap, metav1.GetOptions{})
		if err := errors.Join(err1, err2); err != nil {
			return err
		}
		if len(secret.Data[corev1.ServiceAccountTokenKey]) == 0 {
			return errors.New("the Secret has no token")
		}
		return nil
	})
}

// webhookCA returns the CA of the webhook's certificate.
func (p plane) webhookCA(t *testing.T) string {
	t.Helper()
	var ca string
	eventually(t, "the CA of the webhook", func(ctx context.Context) error {
		secret, err := p.client.CoreV1().Secrets(controlplane.Namespace).Get(ctx, "sakeeper-webhook-certificates", metav1.GetOptions{})
		if err != nil {
			return err
		}
		if ca = string(secret.Data["ca.crt"]); ca == "" {
			return errors.New("there is none")
		}
		return nil
	})
	return ca
}
