package pullsecretcopy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	utilrand "k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/ktesting"
	"k8s.io/utils/clock"

	"github.com/sakeeper/sakeeper/pkg/api/v1alpha1"
	"github.com/sakeeper/sakeeper/pkg/cache"
	"github.com/sakeeper/sakeeper/pkg/controllers/accounttemplate"
	"github.com/sakeeper/sakeeper/pkg/testkit"
	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane/controlplanetest"
)

const templatesPath = "/apis/sakeeper.io/v1alpha1/serviceaccounttemplates"

// controlPlane is a real API server with the roles of manifests/, and a namespace that may be copied from.
type controlPlane struct{ *controlplanetest.Cluster }

const central = "central"

func newControlPlane(t *testing.T) controlPlane {
	t.Helper()
	p := controlPlane{controlplanetest.Start(t)}
	must(t, p.Install(t.Context(), "account-templates", "pull-secret-copies"))
	p.newNamespace(t, central)
	controlplanetest.Eventually(t, "templates are served", func(ctx context.Context) error {
		return p.Client.CoreV1().RESTClient().Get().AbsPath(templatesPath).Do(ctx).Error()
	})
	return p
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// running is a controller that runs.
type running struct {
	*Controller
	events *record.FakeRecorder
	stop   func()
}

// run runs a controller as a process does, with the rights of its role, until it is ready.
func (p controlPlane) run(t *testing.T) running {
	t.Helper()
	config, err := p.ServiceAccount(controlplane.Namespace, controlplane.Account)
	must(t, err)
	return p.runAs(t, config, []string{central}, nil)
}

func (p controlPlane) runAs(t *testing.T, config *rest.Config, sources, targets []string) running {
	t.Helper()
	config.QPS = -1
	r := running{events: record.NewFakeRecorder(1000)}
	var templates *accounttemplate.Templates
	r.Controller, templates = newController(t, config, r.events, sources, targets)
	r.pace.Interval = time.Second
	run := []func(context.Context) error{r.Run, testkit.Informer(r.cfg.Namespaces), testkit.Informer(templates.Informer)}
	for _, made := range slices.Concat(r.cfg.Sources.Informers(), r.cfg.Copies.Informers()) {
		run = append(run, testkit.Informer(made))
	}
	r.stop = sync.OnceFunc(testkit.Start(klog.NewContext(t.Context(), ktesting.NewLogger(t, ktesting.NewConfig(ktesting.Verbosity(2)))), t, run...))
	t.Cleanup(r.stop)
	controlplanetest.Eventually(t, "ready", func(context.Context) error {
		if !r.Ready() {
			return fmt.Errorf("not ready: %w", r.Err())
		}
		return nil
	})
	return r
}

func newController(t *testing.T, config *rest.Config, recorder record.EventRecorder, sourceNamespaces, targets []string) (*Controller, *accounttemplate.Templates) {
	t.Helper()
	client, errClient := kubernetes.NewForConfig(config)
	meta, errMetadata := metadata.NewForConfig(config)
	templateClient, errTemplateClient := accounttemplate.NewClient(config)
	must(t, errors.Join(errClient, errMetadata, errTemplateClient))
	namespaces, errNamespaces := cache.Namespaces(client)
	templates, errTemplates := accounttemplate.NewTemplates(templateClient)
	sources, errSources := NewSources(meta, sourceNamespaces)
	copies, errCopies := NewCopies(meta, targets)
	must(t, errors.Join(errNamespaces, errTemplates, errSources, errCopies))
	c, err := New(Config{
		Client: client.CoreV1(), Metadata: meta, Namespaces: namespaces, Templates: templates.Informer, TemplatesErr: templates.Err, TemplateClient: templateClient,
		SourceNamespaces: sourceNamespaces, Sources: sources, Copies: copies, Recorder: recorder, Clock: clock.RealClock{}, Workers: 10,
	})
	must(t, err)
	return c, templates
}

// create creates a template of one pull secret, which is deleted after the test.
func (p controlPlane) create(t *testing.T, name string, secret v1alpha1.PullSecret, namespaces ...string) {
	t.Helper()
	must(t, p.tryCreate(t.Context(), name, v1alpha1.ServiceAccountTemplateSpec{
		NamespaceSelector: &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: corev1.LabelMetadataName, Operator: metav1.LabelSelectorOpIn, Values: namespaces}}},
		ImagePullSecrets:  []v1alpha1.PullSecret{secret},
	}))
	t.Cleanup(func() { p.remove(t, name) })
}

func (p controlPlane) tryCreate(ctx context.Context, name string, spec any) error {
	body, err := json.Marshal(map[string]any{"apiVersion": "sakeeper.io/v1alpha1", "kind": "ServiceAccountTemplate", "metadata": map[string]any{"name": name}, "spec": spec})
	if err != nil {
		return err
	}
	return p.Client.CoreV1().RESTClient().Post().AbsPath(templatesPath).SetHeader("Content-Type", "application/json").Body(body).Do(ctx).Error()
}

// change patches the spec of a template.
func (p controlPlane) change(t *testing.T, name, spec string) {
	t.Helper()
	must(t, p.Client.CoreV1().RESTClient().Patch(types.MergePatchType).AbsPath(templatesPath+"/"+name).Body([]byte(`{"spec":`+spec+`}`)).Do(t.Context()).Error())
}

// remove deletes a template, if it is still there.
func (p controlPlane) remove(t *testing.T, name string) {
	t.Helper()
	if err := p.Client.CoreV1().RESTClient().Delete().AbsPath(templatesPath + "/" + name).Do(context.Background()).Error(); err != nil && !apierrors.IsNotFound(err) {
		t.Error(err)
	}
}

func (p controlPlane) newNamespace(t *testing.T, name string) string {
	t.Helper()
	_, err := p.Client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	must(t, err)
	return name
}

func randomName() string { return "t-" + utilrand.String(8) }

// contents are the data of a pull secret with a password.
func contents(secretType corev1.SecretType, password string) map[string][]byte {
	auths := fmt.Sprintf(`{"registry.example.com":{"username":"user","password":%q}}`, password)
	if secretType == corev1.SecretTypeDockerConfigJson {
		auths = `{"auths":` + auths + `}`
	}
	return map[string][]byte{cache.PullSecretKey(secretType): []byte(auths)}
}

func (p controlPlane) newSecret(t *testing.T, namespace, name string, secretType corev1.SecretType, password string) {
	t.Helper()
	_, err := p.Client.CoreV1().Secrets(namespace).Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Type: secretType, Data: contents(secretType, password),
	}, metav1.CreateOptions{FieldManager: "user"})
	must(t, err)
}

// newSource creates a source in central.
func (p controlPlane) newSource(t *testing.T, password string) (name string) {
	t.Helper()
	name = randomName()
	p.newSecret(t, central, name, corev1.SecretTypeDockerConfigJson, password)
	return name
}

func (p controlPlane) patchSecret(t *testing.T, namespace, name string, change map[string]any) {
	t.Helper()
	patch, err := json.Marshal(change)
	must(t, err)
	_, err = p.Client.CoreV1().Secrets(namespace).Patch(t.Context(), name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: "user"})
	must(t, err)
}

func (p controlPlane) deleteSecret(t *testing.T, namespace, name string) {
	t.Helper()
	must(t, p.Client.CoreV1().Secrets(namespace).Delete(t.Context(), name, metav1.DeleteOptions{}))
}

// expectCopy waits until a Secret is a copy with a password.
func (p controlPlane) expectCopy(t *testing.T, namespace, name, password string) *corev1.Secret {
	t.Helper()
	var secret *corev1.Secret
	controlplanetest.Eventually(t, namespace+"/"+name+" is a copy", func(ctx context.Context) (err error) {
		if secret, err = p.Client.CoreV1().Secrets(namespace).Get(ctx, name, metav1.GetOptions{}); err != nil {
			return err
		}
		want := contents(secret.Type, password)
		key := cache.PullSecretKey(secret.Type)
		if string(secret.Data[key]) != string(want[key]) || secret.Labels["sakeeper.io/pull-secret"] != "copy" || secret.Annotations["sakeeper.io/copied-version"] == "" {
			return fmt.Errorf("it has %s, %v, %v", secret.Data[key], secret.Labels, secret.Annotations)
		}
		return nil
	})
	return secret
}

func (p controlPlane) expectNoSecret(t *testing.T, namespace, name string) {
	t.Helper()
	controlplanetest.Eventually(t, namespace+"/"+name+" is gone", func(ctx context.Context) error {
		_, err := p.Client.CoreV1().Secrets(namespace).Get(ctx, name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("it is there: %w", err)
	})
}

// expectCondition waits for the condition of a template with a reason and a message that contains text.
func (p controlPlane) expectCondition(t *testing.T, template, reason, text string) {
	t.Helper()
	controlplanetest.Eventually(t, fmt.Sprint("condition ", reason, " of ", template), func(ctx context.Context) error {
		body, err := p.Client.CoreV1().RESTClient().Get().AbsPath(templatesPath + "/" + template).Do(ctx).Raw()
		if err != nil {
			return err
		}
		var found v1alpha1.ServiceAccountTemplate
		if err := json.Unmarshal(body, &found); err != nil {
			return err
		}
		condition := meta.FindStatusCondition(found.Status.Conditions, "CopiesReady")
		if reason == "" && condition == nil {
			return nil
		}
		if condition == nil || condition.Reason != reason || !strings.Contains(condition.Message, text) || condition.ObservedGeneration != found.Generation {
			return fmt.Errorf("the conditions are %+v", found.Status.Conditions)
		}
		return nil
	})
}

func (p controlPlane) mark(t *testing.T) controlplane.Mark {
	t.Helper()
	mark, err := p.Audit.Mark(t.Context())
	must(t, err)
	return mark
}

// requests are those of the controller for Secrets since mark, without lists and watches.
func (p controlPlane) requests(t *testing.T, mark controlplane.Mark) map[string]int {
	t.Helper()
	requests, err := p.Audit.Since(t.Context(), mark, func(r controlplane.Request) bool {
		return r.User.Username == controlplane.Username && r.Object.Resource == "secrets" && r.Verb != "list" && r.Verb != "watch"
	})
	must(t, err)
	return controlplane.Count(requests)
}
