package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
)

const (
	definitionPath = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/serviceaccounttemplates.sakeeper.io"
	templatePolicy = "sakeeper-account-templates"
	noDefinition   = "failed to find resource referenced by paramKind"
	withTemplates  = "--controllers=*,service-account-template-controller"
)

// needTemplatePolicy skips the test on API servers that lack its kind.
func needTemplatePolicy(t *testing.T, p controlPlane) {
	t.Helper()
	if !servesMutatingPolicies(t, p) {
		t.Skip("account-templates needs MutatingAdmissionPolicy v1, which Kubernetes has since 1.36")
	}
}

// awaitTemplatePolicy waits until the API server evaluates the policy with the templates of
// applyExamples.
func awaitTemplatePolicy(t *testing.T, p controlPlane) {
	t.Helper()
	eventually(t, "the policy", func(ctx context.Context) error {
		created, err := tryAccount(ctx, p)
		if err == nil && settings(created) != "automount unset registry" {
			err = errors.New("an account has " + settings(created))
		}
		return err
	})
}

// tryAccount creates an account without effect.
func tryAccount(ctx context.Context, p controlPlane) (*corev1.ServiceAccount, error) {
	return p.client.CoreV1().ServiceAccounts("default").Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "probe"}},
		metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
}

// firstEvent returns the account default of a new namespace as the event of its creation has it.
func firstEvent(t *testing.T, p controlPlane, namespace string, labels map[string]string) *corev1.ServiceAccount {
	t.Helper()
	events, err := p.client.CoreV1().ServiceAccounts(namespace).Watch(t.Context(), metav1.ListOptions{FieldSelector: "metadata.name=default"})
	must(t, err)
	defer events.Stop()
	mustCreateNamespace(t, p, namespace, labels)
	select {
	case <-t.Context().Done():
		t.Fatal("the test ended")
	case event := <-events.ResultChan():
		if account, ok := event.Object.(*corev1.ServiceAccount); ok && event.Type == watch.Added {
			return account
		}
		t.Fatalf("the first event is %s %v", event.Type, event.Object)
	}
	return nil
}

// TestAccountTemplatesBeforeTheController: the account default of a new namespace has its settings when it
// is created, so that no pod gets others; the controller owns them after one write, and takes them back.
func TestAccountTemplatesBeforeTheController(t *testing.T) {
	p := newControlPlaneWith(t, controlplane.Options{PodAdmission: true})
	needTemplatePolicy(t, p)
	must(t, p.Install(t.Context(), "account-templates", "policies/account-templates"))
	args := p.sakeeperArgs(t, withTemplates)
	s := startReadySakeeper(t, args)
	applyExamples(t, p)
	awaitTemplatePolicy(t, p)
	for _, name := range []string{"hardened", "registry", "team-blue"} {
		expectTemplateReady(t, p, name)
	}
	mark := mustMark(t, p.ControlPlane)
	const want = "automount false registry"
	if created := firstEvent(t, p, "blue", map[string]string{"team": "blue"}); settings(created) != want {
		t.Errorf("the account is created with %s", settings(created))
	}
	created := mustCreatePod(t, p.client, "blue", pod("first"))
	if len(created.Spec.Volumes) > 0 || len(created.Spec.ImagePullSecrets) != 1 || created.Spec.ImagePullSecrets[0].Name != "registry" {
		t.Errorf("the first pod has volumes %v and pull secrets %v", created.Spec.Volumes, created.Spec.ImagePullSecrets)
	}
	expectSettings(t, p, "blue", "builder", "automount false blue-registry registry")
	eventually(t, "the annotation of the policy is gone", func(ctx context.Context) error {
		account, err := p.client.CoreV1().ServiceAccounts("blue").Get(ctx, "default", metav1.GetOptions{})
		if err == nil && account.Annotations[api.TemplatesAtCreationAnnotation] != "" {
			err = fmt.Errorf("it has %v", account.Annotations)
		}
		return err
	})
	got := controlplane.Count(requests(t, p.ControlPlane, mark, "blue"))
	// The second patch creates builder.
	if diff := cmp.Diff(map[string]int{"create serviceaccounts": 1, "create configmaps": 1, "patch serviceaccounts": 2}, got); diff != "" {
		t.Errorf("requests for the namespace (-want +got):\n%s", diff)
	}
	must(t, s.Stop())
	mark = mustMark(t, p.ControlPlane)
	startReadySakeeper(t, args)
	got = controlplane.Count(requests(t, p.ControlPlane, mark, "blue"))
	if diff := cmp.Diff(map[string]int{}, got); diff != "" {
		t.Errorf("requests for the namespace after a restart (-want +got):\n%s", diff)
	}
	must(t, p.client.CoreV1().RESTClient().Delete().AbsPath(templatesPath).Do(t.Context()).Error())
	account := expectSettings(t, p, "blue", "default", "automount unset")
	for _, entry := range account.ManagedFields {
		if entry.Manager == api.TemplateFieldManager {
			t.Errorf("the controller still owns %s", entry.FieldsV1.GetRawBytes())
		}
	}
}

// TestAccountTemplatesOfUsersBeforeTheController: what a user says at the creation stays, unless a template
// forces it; a template with an invalid selector selects nothing.
func TestAccountTemplatesOfUsersBeforeTheController(t *testing.T) {
	p := newControlPlane(t)
	needTemplatePolicy(t, p)
	must(t, p.Install(t.Context(), "account-templates", "policies/account-templates"))
	applyExamples(t, p)
	awaitTemplatePolicy(t, p)
	create := func(ctx context.Context, name string) string {
		created, err := p.client.CoreV1().ServiceAccounts("default").Create(ctx, &corev1.ServiceAccount{
			ObjectMeta:                   metav1.ObjectMeta{Name: name},
			AutomountServiceAccountToken: new(true), ImagePullSecrets: []corev1.LocalObjectReference{{Name: "mine"}},
		}, metav1.CreateOptions{FieldManager: "a-user", DryRun: []string{metav1.DryRunAll}})
		must(t, err)
		return settings(created)
	}
	if got := create(t.Context(), "default"); got != "automount true mine" {
		t.Errorf("what the user said is %s", got)
	}
	change := func(name, spec string) {
		must(t, p.client.CoreV1().RESTClient().Patch(types.MergePatchType).AbsPath(templatesPath+"/"+name).Body([]byte(`{"spec":`+spec+`}`)).Do(t.Context()).Error())
	}
	eventuallyCreated := func(want string) {
		eventually(t, want, func(ctx context.Context) error {
			if got := create(ctx, "default"); got != want {
				return errors.New("it has " + got)
			}
			return nil
		})
	}
	change("hardened", `{"force":true}`)
	eventuallyCreated("automount false mine")
	change("registry", `{"force":true}`)
	eventuallyCreated("automount false registry")
	change("hardened", `{"namespaceSelector":{"matchExpressions":[{"key":"a b","operator":"DoesNotExist"}]}}`)
	eventuallyCreated("automount true registry")
}

// deleteDefinition deletes the definition of templates, and waits until it is gone. An API server can take
// minutes to delete one that it did not serve yet.
func deleteDefinition(t *testing.T, p controlPlane) {
	t.Helper()
	client := p.client.CoreV1().RESTClient()
	eventually(t, "templates are served", func(ctx context.Context) error { return client.Get().AbsPath(templatesPath).Do(ctx).Error() })
	must(t, client.Delete().AbsPath(definitionPath).Do(t.Context()).Error())
	eventually(t, "the definition is gone", func(ctx context.Context) error {
		switch err := client.Get().AbsPath(definitionPath).Do(ctx).Error(); {
		case err == nil:
			return errors.New("it is there")
		case !apierrors.IsNotFound(err):
			return err
		}
		return nil
	})
}

// TestAccountTemplatePolicyWithoutDefinition: without the definition, an API server that has not seen it
// creates no account, and one that has goes on without templates. The right order is the policy first.
func TestAccountTemplatePolicyWithoutDefinition(t *testing.T) {
	p := newControlPlane(t)
	needTemplatePolicy(t, p)
	must(t, p.Install(t.Context(), "account-templates", "policies/account-templates"))
	applyExamples(t, p)
	awaitTemplatePolicy(t, p)
	remove := func(path string) {
		must(t, p.client.CoreV1().RESTClient().Delete().AbsPath(path).Do(t.Context()).Error())
	}

	deleteDefinition(t, p)
	eventually(t, "accounts without templates", func(ctx context.Context) error {
		created, err := tryAccount(ctx, p)
		if err == nil && settings(created) != "automount unset" {
			err = errors.New("an account has " + settings(created))
		}
		return err
	})
	must(t, p.KillServer())
	must(t, p.StartServer(t.Context()))
	eventually(t, "a refusal", func(ctx context.Context) error {
		_, err := tryAccount(ctx, p)
		if err == nil || !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), templatePolicy) || !strings.Contains(err.Error(), noDefinition) {
			return fmt.Errorf("the account is created, or: %w", err)
		}
		return nil
	})

	const registrations = "/apis/admissionregistration.k8s.io/v1/"
	remove(registrations + "mutatingadmissionpolicybindings/" + templatePolicy)
	remove(registrations + "mutatingadmissionpolicies/" + templatePolicy)
	eventually(t, "accounts, without the policy", func(ctx context.Context) error {
		_, err := tryAccount(ctx, p)
		return err
	})
	// Installed again: the definition first.
	began := time.Now()
	must(t, p.Install(t.Context(), "account-templates"))
	eventually(t, "the policy is installed", func(ctx context.Context) error { return p.Install(ctx, "policies/account-templates") })
	applyExamples(t, p)
	awaitTemplatePolicy(t, p)
	t.Logf("definition, policy and templates work after %v", time.Since(began))
}
