package policy_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/sakeeper/sakeeper/pkg/policy"
	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
)

// server is the API server of all tests, without the in-tree plugin. Each test has policies of its own, for
// namespaces of its own. It is set once, by TestMain.
var server struct {
	*controlplane.ControlPlane
	client kubernetes.Interface
}

func TestMain(m *testing.M) {
	code, err := runTests(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "policy:", err)
		code = 1
	}
	os.Exit(code)
}

func runTests(m *testing.M) (code int, err error) {
	dir, err := os.MkdirTemp("", "sakeeper-policy-")
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if server.ControlPlane, err = controlplane.Start(controlplane.Options{Dir: dir}); err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, server.Stop()) }()
	if err := server.Install(context.Background(), "account-templates"); err != nil { // account-templates needs the definition
		return 1, err
	}
	unlimited := rest.CopyConfig(server.Admin)
	unlimited.QPS = -1
	unlimited.WarningHandler = rest.NoWarnings{}
	if server.client, err = kubernetes.NewForConfig(unlimited); err != nil {
		return 1, err
	}
	return m.Run(), nil
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// needMutatingPolicies skips the test if the API server is older than they are.
func needMutatingPolicies(t *testing.T) {
	t.Helper()
	resources, err := server.client.Discovery().ServerResourcesForGroupVersion(admissionregistrationv1.SchemeGroupVersion.String())
	must(t, err)
	if !slices.ContainsFunc(resources.APIResources, func(r metav1.APIResource) bool { return r.Kind == "MutatingAdmissionPolicy" }) {
		t.Skip("the API server has no MutatingAdmissionPolicy v1, which Kubernetes has since 1.36")
	}
}

// newNamespace makes a namespace of that name with annotations, and with a ServiceAccount "default".
func newNamespace(t *testing.T, name string, annotations map[string]string) {
	t.Helper()
	_, err := server.client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: annotations}}, metav1.CreateOptions{})
	must(t, err)
	newAccount(t, name, "default", nil)
}

func newAccount(t *testing.T, namespace, name string, annotations map[string]string) {
	t.Helper()
	_, err := server.client.CoreV1().ServiceAccounts(namespace).Create(t.Context(),
		&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: annotations}}, metav1.CreateOptions{})
	must(t, err)
}

// install creates the policy for that namespace alone, with names that end in it, and waits until the API server
// evaluates it: probe returns nil when it does.
func install(t *testing.T, namespace, name string, s policy.Settings, probe func(context.Context) error) {
	t.Helper()
	objects, err := policy.Generate([]string{name}, policy.Newest(), s)
	must(t, err)
	for _, object := range objects {
		create(t, namespace, object)
	}
	eventually(t, "the policy "+name+" in "+namespace, probe)
}

// create creates object for that namespace alone, and changes its name in object too.
func create(t *testing.T, namespace string, object runtime.Object) {
	t.Helper()
	only := &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: namespace}}
	registration := server.client.AdmissionregistrationV1()
	var err error
	var remove func() error
	switch o := object.(type) {
	case *admissionregistrationv1.ValidatingAdmissionPolicy:
		o.Name += "." + namespace
		_, err = registration.ValidatingAdmissionPolicies().Create(t.Context(), o, metav1.CreateOptions{})
		remove = func() error {
			return registration.ValidatingAdmissionPolicies().Delete(context.Background(), o.Name, metav1.DeleteOptions{})
		}
	case *admissionregistrationv1.ValidatingAdmissionPolicyBinding:
		o.Name, o.Spec.PolicyName = o.Name+"."+namespace, o.Spec.PolicyName+"."+namespace
		o.Spec.MatchResources = &admissionregistrationv1.MatchResources{NamespaceSelector: only}
		_, err = registration.ValidatingAdmissionPolicyBindings().Create(t.Context(), o, metav1.CreateOptions{})
		remove = func() error {
			return registration.ValidatingAdmissionPolicyBindings().Delete(context.Background(), o.Name, metav1.DeleteOptions{})
		}
	case *admissionregistrationv1.MutatingAdmissionPolicy:
		o.Name += "." + namespace
		_, err = registration.MutatingAdmissionPolicies().Create(t.Context(), o, metav1.CreateOptions{})
		remove = func() error {
			return registration.MutatingAdmissionPolicies().Delete(context.Background(), o.Name, metav1.DeleteOptions{})
		}
	case *admissionregistrationv1.MutatingAdmissionPolicyBinding:
		o.Name, o.Spec.PolicyName = o.Name+"."+namespace, o.Spec.PolicyName+"."+namespace
		o.Spec.MatchResources = &admissionregistrationv1.MatchResources{NamespaceSelector: only}
		_, err = registration.MutatingAdmissionPolicyBindings().Create(t.Context(), o, metav1.CreateOptions{})
		remove = func() error {
			return registration.MutatingAdmissionPolicyBindings().Delete(context.Background(), o.Name, metav1.DeleteOptions{})
		}
	default:
		t.Fatalf("cannot create %T", object)
	}
	must(t, err)
	t.Cleanup(func() {
		if err := remove(); err != nil && !apierrors.IsNotFound(err) {
			t.Error(err)
		}
	})
}

// eventually waits until condition returns nil.
func eventually(t *testing.T, what string, condition func(context.Context) error) {
	t.Helper()
	var last error
	err := wait.PollUntilContextTimeout(t.Context(), 20*time.Millisecond, time.Minute, true, func(ctx context.Context) (bool, error) {
		last = condition(ctx)
		return last == nil, nil
	})
	if err != nil {
		t.Fatalf("%s: %v", what, last)
	}
}

// dryRun are the options for a pod that is admitted, and not created.
var dryRun = metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}

// refusal returns the code and the message of a policy, without the names in front of it; 0 if err is nil.
func refusal(err error) (code int32, message string) {
	status := apierrors.APIStatus(nil)
	if !errors.As(err, &status) {
		if err == nil {
			return 0, ""
		}
		return -1, err.Error()
	}
	_, text, found := strings.Cut(status.Status().Message, " denied request: ")
	if !found {
		text = status.Status().Message
	}
	return status.Status().Code, text
}
