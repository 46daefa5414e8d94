package accounttemplate

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
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/ktesting"
	"k8s.io/utils/clock"

	"github.com/sakeeper/sakeeper/pkg/api/v1alpha1"
	"github.com/sakeeper/sakeeper/pkg/cache"
	"github.com/sakeeper/sakeeper/pkg/testkit"
	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane/controlplanetest"
)

// controlPlane is a real API server with the roles of manifests/.
type controlPlane struct{ *controlplanetest.Cluster }

func newControlPlane(t *testing.T) controlPlane {
	t.Helper()
	p := controlPlane{controlplanetest.Start(t)}
	must(t, p.Install(t.Context(), "account-templates"))
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

// run runs a controller as a process does, with the rights of its role.
func (p controlPlane) run(t *testing.T) running {
	t.Helper()
	config, err := p.ServiceAccount(controlplane.Namespace, controlplane.Account)
	must(t, err)
	config.QPS = -1
	r := running{events: record.NewFakeRecorder(1000)}
	r.Controller = newController(t, config, r.events)
	r.pace.Interval = time.Second
	ctx := klog.NewContext(t.Context(), ktesting.NewLogger(t, ktesting.NewConfig(ktesting.Verbosity(2))))
	stop := testkit.Start(ctx, t, r.Run,
		testkit.Informer(r.cfg.Namespaces), testkit.Informer(r.cfg.Accounts), testkit.Informer(r.cfg.Templates.Informer))
	r.stop = sync.OnceFunc(stop)
	t.Cleanup(r.stop)
	return r
}

func newController(t *testing.T, config *rest.Config, recorder record.EventRecorder) *Controller {
	t.Helper()
	client, errClient := kubernetes.NewForConfig(config)
	templateClient, errTemplateClient := NewClient(config)
	must(t, errors.Join(errClient, errTemplateClient))
	namespaces, errNamespaces := cache.Namespaces(client)
	accounts, errAccounts := cache.Accounts(client)
	templates, errTemplates := NewTemplates(templateClient)
	must(t, errors.Join(errNamespaces, errAccounts, errTemplates))
	c, err := New(Config{
		Client: client.CoreV1(), Namespaces: namespaces, Accounts: accounts, Templates: templates,
		Recorder: recorder, Clock: clock.RealClock{}, Workers: 10,
	})
	must(t, err)
	return c
}

func (p controlPlane) runReady(t *testing.T) running {
	t.Helper()
	r := p.run(t)
	controlplanetest.Eventually(t, "ready", func(context.Context) error {
		if !r.Ready() {
			return fmt.Errorf("not ready: %w", r.Err())
		}
		return nil
	})
	return r
}

func (p controlPlane) templates(t *testing.T) Client {
	t.Helper()
	client, err := NewClient(p.Admin)
	must(t, err)
	return client
}

// create creates a template, which is deleted after the test.
func (p controlPlane) create(t *testing.T, name string, spec v1alpha1.ServiceAccountTemplateSpec) {
	t.Helper()
	must(t, p.tryCreate(t.Context(), &v1alpha1.ServiceAccountTemplate{
		TypeMeta: metav1.TypeMeta{APIVersion: "sakeeper.io/v1alpha1", Kind: "ServiceAccountTemplate"}, ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: spec,
	}))
	t.Cleanup(func() { p.remove(t, name) })
}

func (p controlPlane) tryCreate(ctx context.Context, template any) error {
	body, err := json.Marshal(template)
	if err != nil {
		return err
	}
	return p.Client.CoreV1().RESTClient().Post().AbsPath("/apis/sakeeper.io/v1alpha1/serviceaccounttemplates").
		SetHeader("Content-Type", "application/json").Body(body).Do(ctx).Error()
}

// remove deletes a template, if it is still there.
func (p controlPlane) remove(t *testing.T, name string) {
	t.Helper()
	err := p.Client.CoreV1().RESTClient().Delete().AbsPath("/apis/sakeeper.io/v1alpha1/serviceaccounttemplates/" + name).Do(context.Background()).Error()
	if err != nil && !apierrors.IsNotFound(err) {
		t.Error(err)
	}
}

// change patches the spec of a template.
func (p controlPlane) change(t *testing.T, name, spec string) {
	t.Helper()
	_, err := p.templates(t).Patch(t.Context(), name, types.MergePatchType, []byte(`{"spec":`+spec+`}`), metav1.PatchOptions{})
	must(t, err)
}

// newNamespace creates a namespace with the label test=<its name> and the ServiceAccount default.
func (p controlPlane) newNamespace(t *testing.T) string {
	t.Helper()
	name := "t-" + utilrand.String(8)
	_, err := p.Client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"test": name}}}, metav1.CreateOptions{})
	must(t, err)
	p.newAccount(t, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: name, Name: "default"}})
	return name
}

func (p controlPlane) newAccount(t *testing.T, account *corev1.ServiceAccount) {
	t.Helper()
	_, err := p.Client.CoreV1().ServiceAccounts(account.Namespace).Create(t.Context(), account, metav1.CreateOptions{FieldManager: "user"})
	must(t, err)
}

// in selects the namespaces of a test.
func in(namespaces ...string) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "test", Operator: metav1.LabelSelectorOpIn, Values: namespaces}}}
}

// hardened are the fields of most tests.
func hardened(namespaces ...string) v1alpha1.ServiceAccountTemplateSpec {
	return v1alpha1.ServiceAccountTemplateSpec{
		NamespaceSelector:            in(namespaces...),
		Labels:                       map[string]v1alpha1.LabelValue{"hardened": "true"},
		AutomountServiceAccountToken: new(false),
		ImagePullSecrets:             []v1alpha1.PullSecret{{Name: "registry"}},
	}
}

// looks describes an account: its labels, annotations, automount and pull secrets.
func (p controlPlane) looks(ctx context.Context, namespace, name string) (string, error) {
	account, err := p.Client.CoreV1().ServiceAccounts(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	var secrets []string
	for _, secret := range account.ImagePullSecrets {
		secrets = append(secrets, secret.Name)
	}
	automount := "unset"
	if account.AutomountServiceAccountToken != nil {
		automount = fmt.Sprint(*account.AutomountServiceAccountToken)
	}
	return strings.ReplaceAll(fmt.Sprintf("labels%v annotations%v %s %v", account.Labels, account.Annotations, automount, secrets), "map[", "["), nil
}

const (
	plain   = "labels[] annotations[] unset []"
	allSet  = "labels[hardened:true] annotations[] false [registry]"
	oneList = "labels[hardened:true] annotations[] false [theirs]"
)

func (p controlPlane) expectLooks(t *testing.T, namespace, name, want string) {
	t.Helper()
	controlplanetest.Eventually(t, namespace+"/"+name+" looks like "+want, func(ctx context.Context) error {
		got, err := p.looks(ctx, namespace, name)
		if err == nil && got != want {
			err = errors.New("it looks like " + got)
		}
		return err
	})
}

// expectCondition waits for a condition of a template whose message contains text.
func (p controlPlane) expectCondition(t *testing.T, template, kind string, status metav1.ConditionStatus, text string) v1alpha1.ServiceAccountTemplateStatus {
	t.Helper()
	var found v1alpha1.ServiceAccountTemplateStatus
	controlplanetest.Eventually(t, fmt.Sprint("condition ", kind, " ", status, " of ", template), func(ctx context.Context) error {
		list, err := p.templates(t).List(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + template})
		if err != nil || len(list.Items) != 1 {
			return fmt.Errorf("%d templates: %w", len(list.Items), err)
		}
		found = list.Items[0].Status
		condition := meta.FindStatusCondition(found.Conditions, kind)
		if condition == nil || condition.Status != status || !strings.Contains(condition.Message, text) || condition.ObservedGeneration != list.Items[0].Generation {
			return fmt.Errorf("the conditions are %+v", found.Conditions)
		}
		return nil
	})
	return found
}

// writes are the writes of ServiceAccounts by the controller since mark.
func (p controlPlane) writes(t *testing.T, mark controlplane.Mark) []string {
	t.Helper()
	requests, err := p.Audit.Since(t.Context(), mark, func(r controlplane.Request) bool {
		return r.User.Username == controlplane.Username && r.Object.Resource == "serviceaccounts" && !slices.Contains([]string{"list", "watch"}, r.Verb)
	})
	must(t, err)
	var writes []string
	for _, r := range requests {
		writes = append(writes, fmt.Sprintf("%s %s/%s", r.Verb, r.Object.Namespace, r.Object.Name))
	}
	return writes
}

func (p controlPlane) mark(t *testing.T) controlplane.Mark {
	t.Helper()
	mark, err := p.Audit.Mark(t.Context())
	must(t, err)
	return mark
}
