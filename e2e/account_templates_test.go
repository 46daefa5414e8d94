package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
)

const templatesPath = "/apis/sakeeper.io/v1alpha1/serviceaccounttemplates"

// applyExamples applies manifests/examples/account-templates.yaml with kubectl.
func applyExamples(t *testing.T, p controlPlane) {
	t.Helper()
	eventually(t, "the examples are applied", func(ctx context.Context) error {
		return p.RunKubectl(ctx, "apply", "--server-side", "--force-conflicts", "-f", "../manifests/examples/account-templates.yaml")
	})
}

// expectSettings waits until an account has automount and pull secrets.
func expectSettings(t *testing.T, p controlPlane, namespace, name, want string) *corev1.ServiceAccount {
	t.Helper()
	var account *corev1.ServiceAccount
	eventually(t, namespace+"/"+name+" has "+want, func(ctx context.Context) (err error) {
		if account, err = p.client.CoreV1().ServiceAccounts(namespace).Get(ctx, name, metav1.GetOptions{}); err != nil {
			return err
		}
		if got := settings(account); got != want {
			return errors.New("it has " + got)
		}
		return nil
	})
	return account
}

func settings(account *corev1.ServiceAccount) string {
	text := "automount unset"
	if account.AutomountServiceAccountToken != nil {
		text = fmt.Sprint("automount ", *account.AutomountServiceAccountToken)
	}
	for _, secret := range account.ImagePullSecrets {
		text += " " + secret.Name
	}
	return text
}

// TestAccountTemplates runs the examples with the shipped manifests: each account is written once, a
// restart writes nothing, and what templates no longer say is removed.
func TestAccountTemplates(t *testing.T) {
	p := newControlPlane(t)
	args := p.sakeeperArgs(t, "--controllers=*,service-account-template-controller")
	must(t, p.Install(t.Context(), "account-templates"))
	s := startReadySakeeper(t, args)
	applyExamples(t, p)
	for _, name := range []string{"hardened", "registry", "team-blue"} {
		expectTemplateReady(t, p, name)
	}
	mark := mustMark(t, p.ControlPlane)
	mustCreateNamespace(t, p, "blue", map[string]string{"team": "blue"})
	const hardened, builder = "automount false registry", "automount false blue-registry registry"
	expectSettings(t, p, "blue", "default", hardened)
	account := expectSettings(t, p, "blue", "builder", builder)
	if account.Labels["team"] != "blue" || account.Annotations["example.com/contact"] != "blue@example.com" {
		t.Errorf("builder has %v, %v", account.Labels, account.Annotations)
	}
	expectSettings(t, p, "kube-system", "default", "automount unset")
	got := controlplane.Count(requests(t, p.ControlPlane, mark, "blue"))
	want := map[string]int{"create serviceaccounts": 1, "create configmaps": 1, "patch serviceaccounts": 2}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("requests for the namespace (-want +got):\n%s", diff)
	}
	must(t, s.Stop())
	must(t, p.client.CoreV1().RESTClient().Delete().AbsPath(templatesPath+"/team-blue").Do(t.Context()).Error())
	mark = mustMark(t, p.ControlPlane)
	startReadySakeeper(t, args)
	expectSettings(t, p, "blue", "builder", "automount unset registry")
	got = controlplane.Count(requests(t, p.ControlPlane, mark, "blue"))
	if diff := cmp.Diff(map[string]int{"patch serviceaccounts": 1}, got); diff != "" {
		t.Errorf("requests for the namespace after a restart, of which one takes back (-want +got):\n%s", diff)
	}

	must(t, p.client.CoreV1().RESTClient().Delete().AbsPath(templatesPath).Do(t.Context()).Error())
	expectSettings(t, p, "blue", "default", "automount unset")
	expectSettings(t, p, "blue", "builder", "automount unset")
}

// TestAccountTemplatesOfUsers: what a user set stays and is named, until the template says force.
func TestAccountTemplatesOfUsers(t *testing.T) {
	p := newControlPlane(t)
	must(t, p.Install(t.Context(), "account-templates"))
	startReadySakeeper(t, p.sakeeperArgs(t, "--controllers=*,service-account-template-controller"))
	_, err := p.client.CoreV1().ServiceAccounts("default").Create(t.Context(), &corev1.ServiceAccount{
		ObjectMeta: metav1.ObjectMeta{Name: "robot"}, ImagePullSecrets: []corev1.LocalObjectReference{{Name: "mine"}},
	}, metav1.CreateOptions{FieldManager: "a-user"})
	must(t, err)
	applyExamples(t, p)
	const told = `default/robot: imagePullSecrets is set by the field manager "a-user"`
	eventually(t, "the event on the template", func(ctx context.Context) error {
		events, err := p.client.CoreV1().Events("default").List(ctx, metav1.ListOptions{FieldSelector: "reason=TemplateConflict"})
		for _, event := range events.Items {
			if event.InvolvedObject.Name == "registry" && strings.Contains(event.Message, told) {
				return nil
			}
		}
		return errors.Join(err, fmt.Errorf("there are %v", events.Items))
	})
	expectSettings(t, p, "default", "robot", "automount unset mine")
	must(t, p.client.CoreV1().RESTClient().Patch(types.MergePatchType).AbsPath(templatesPath+"/registry").Body([]byte(`{"spec":{"force":true}}`)).Do(t.Context()).Error())
	expectSettings(t, p, "default", "robot", "automount unset registry")
}

// TestAccountTemplatesWithoutDefinition: the process says what is missing, and goes on when it is
// there.
func TestAccountTemplatesWithoutDefinition(t *testing.T) {
	p := newControlPlane(t)
	must(t, p.Install(t.Context(), "account-templates"))
	deleteDefinition(t, p)
	s := startSakeeper(t, p.sakeeperArgs(t, "--controllers=*,service-account-template-controller"))
	const why = "service-account-template-controller: the API server has no resource serviceaccounttemplates.sakeeper.io: apply manifests/components/account-templates"
	eventually(t, "what is missing", func(ctx context.Context) error {
		code, body, err := s.Get(ctx, "/readyz")
		if err == nil && (code != http.StatusServiceUnavailable || !strings.Contains(body, why)) {
			err = fmt.Errorf("%d: %s", code, body)
		}
		return err
	})
	expectAccount(t, p.client, "default", "default") // the other controllers work
	must(t, p.Install(t.Context(), "account-templates"))
	must(t, s.WaitReady(t.Context()))
}

func expectTemplateReady(t *testing.T, p controlPlane, name string) {
	t.Helper()
	eventually(t, "status of template "+name, func(ctx context.Context) error {
		body, err := p.client.CoreV1().RESTClient().Get().AbsPath(templatesPath + "/" + name).Do(ctx).Raw()
		if err == nil && !strings.Contains(string(body), `"reason":"Applied","status":"True","type":"Ready"`) {
			err = fmt.Errorf("it is %s", body)
		}
		return err
	})
}

func mustCreateNamespace(t *testing.T, p controlPlane, name string, labels map[string]string) {
	t.Helper()
	_, err := p.client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}, metav1.CreateOptions{})
	must(t, err)
}
