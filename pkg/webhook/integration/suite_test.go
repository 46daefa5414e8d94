// Package integration tests the webhook server and its certificates against a real
// kube-apiserver that calls it. The webhook has only the RBAC rights that it needs.
package integration

import (
	"context"
	"maps"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/ktesting"
	"k8s.io/utils/clock"

	"github.com/sakeeper/sakeeper/pkg/servingcert"
	"github.com/sakeeper/sakeeper/pkg/testkit"
	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane/controlplanetest"
	"github.com/sakeeper/sakeeper/pkg/webhook"
	"github.com/sakeeper/sakeeper/pkg/webhook/review"
)

// timeout is how long a test waits for a condition that should take milliseconds.
const timeout = 2 * time.Minute

// address is the host under which the API server calls all replicas.
const address = "127.0.0.1"

// verbosity is the highest at which client-go does not log bodies, which hold the Secret.
const verbosity = 7

// shared is set once, by TestMain.
var shared *controlplanetest.Cluster

func TestMain(m *testing.M) {
	os.Exit(controlplanetest.Run(m, func(c *controlplanetest.Cluster) { shared = c }))
}

// site is one installation of a webhook: a namespace, a Secret, and two configurations that
// send it ConfigMaps of that namespace.
type site struct {
	t *testing.T
	// name is the name of all its objects.
	name     string
	identity *rest.Config
	// mark is where its requests begin in the audit log.
	mark controlplane.Mark
	// restarts: the API server is restarted, and one that has just started knows no roles yet.
	restarts bool
}

func newSite(t *testing.T) *site {
	t.Helper()
	mark, err := shared.Audit.Mark(t.Context())
	must(t, err)
	s := &site{t: t, name: "webhook-" + rand.String(8), mark: mark}
	_, err = shared.Client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: s.meta()}, metav1.CreateOptions{})
	must(t, err)
	s.identity, err = shared.ServiceAccount(s.name, s.name)
	must(t, err)
	s.identity.QPS = -1
	s.grant()
	s.put(nil, servingcert.SecretType)
	t.Cleanup(func() {
		s.deleteConfigurations()
		s.expectNothingForbidden()
	})
	return s
}

func (s *site) meta() metav1.ObjectMeta { return metav1.ObjectMeta{Name: s.name} }

// grant gives the webhook exactly what it needs, and waits until the API server allows it.
func (s *site) grant() {
	s.t.Helper()
	subjects := []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: s.name, Name: s.name}}
	role := &rbacv1.Role{ObjectMeta: s.meta(), Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"secrets"}, ResourceNames: []string{s.name}, Verbs: []string{"get", "list", "watch", "update"}},
	}}
	_, err := shared.Client.RbacV1().Roles(s.name).Create(s.t.Context(), role, metav1.CreateOptions{})
	must(s.t, err)
	_, err = shared.Client.RbacV1().RoleBindings(s.name).Create(s.t.Context(), &rbacv1.RoleBinding{
		ObjectMeta: s.meta(), Subjects: subjects, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: s.name},
	}, metav1.CreateOptions{})
	must(s.t, err)
	cluster := &rbacv1.ClusterRole{ObjectMeta: s.meta(), Rules: []rbacv1.PolicyRule{{
		APIGroups: []string{"admissionregistration.k8s.io"}, Resources: []string{"mutatingwebhookconfigurations", "validatingwebhookconfigurations"},
		ResourceNames: []string{s.name}, Verbs: []string{"list", "watch", "patch"},
	}}}
	_, err = shared.Client.RbacV1().ClusterRoles().Create(s.t.Context(), cluster, metav1.CreateOptions{})
	must(s.t, err)
	_, err = shared.Client.RbacV1().ClusterRoleBindings().Create(s.t.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: s.meta(), Subjects: subjects, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: s.name},
	}, metav1.CreateOptions{})
	must(s.t, err)
	shared.AwaitAllowed(s.t, subjects[0], s.name, role.Rules...)
	shared.AwaitAllowed(s.t, subjects[0], "", cluster.Rules...)
}

func (s *site) requests() []controlplane.Request {
	s.t.Helper()
	requests, err := shared.Audit.Since(context.WithoutCancel(s.t.Context()), s.mark, func(r controlplane.Request) bool {
		return strings.HasPrefix(r.User.Username, "system:serviceaccount:"+s.name+":")
	})
	must(s.t, err)
	return requests
}

func (s *site) expectNothingForbidden() {
	s.t.Helper()
	for _, r := range s.requests() {
		if r.Response.Code == http.StatusForbidden && !s.restarts {
			s.t.Errorf("forbidden: %s %s", r.Verb, r.URI)
		}
		if (r.Verb == "list" || r.Verb == "watch") && !strings.Contains(r.URI, "fieldSelector=metadata.name%3D"+s.name) {
			s.t.Errorf("more than one object is fetched: %s %s", r.Verb, r.URI)
		}
	}
}

// client is how a webhook of the site is called at a replica.
func (s *site) client(r *replica) admissionregistrationv1.WebhookClientConfig {
	return admissionregistrationv1.WebhookClientConfig{URL: new("https://" + net.JoinHostPort(address, strconv.Itoa(r.port)) + "/allow")}
}

// configure creates both configurations; the mutating one calls the first replica,
// the validating one the second. Each has a webhook of another owner too.
func (s *site) configure(first, second *replica) {
	s.t.Helper()
	rules := []admissionregistrationv1.RuleWithOperations{{
		Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Create},
		Rule:       admissionregistrationv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"configmaps"}},
	}}
	selector := &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: s.name}}
	noNamespace := &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: "none"}}
	theirs := admissionregistrationv1.WebhookClientConfig{URL: new("https://other.example/path"), CABundle: testkit.Bundle().PEM()}
	_, err := shared.Client.AdmissionregistrationV1().MutatingWebhookConfigurations().Create(s.t.Context(), &admissionregistrationv1.MutatingWebhookConfiguration{
		ObjectMeta: s.meta(), Webhooks: []admissionregistrationv1.MutatingWebhook{
			{Name: "a.theirs.example", ClientConfig: theirs, Rules: rules, NamespaceSelector: noNamespace, SideEffects: new(admissionregistrationv1.SideEffectClassNone), AdmissionReviewVersions: []string{"v1"}},
			{
				Name: "b.ours.example", ClientConfig: s.client(first), Rules: rules, NamespaceSelector: selector, SideEffects: new(admissionregistrationv1.SideEffectClassNone), AdmissionReviewVersions: []string{"v1"},
				MatchConditions: []admissionregistrationv1.MatchCondition{{Name: "generated", Expression: "object.metadata.generateName != ''"}},
				TimeoutSeconds:  new(int32(7)), ReinvocationPolicy: new(admissionregistrationv1.IfNeededReinvocationPolicy),
			},
		},
	}, metav1.CreateOptions{})
	must(s.t, err)
	_, err = shared.Client.AdmissionregistrationV1().ValidatingWebhookConfigurations().Create(s.t.Context(), &admissionregistrationv1.ValidatingWebhookConfiguration{
		ObjectMeta: s.meta(), Webhooks: []admissionregistrationv1.ValidatingWebhook{
			{Name: "b.ours.example", ClientConfig: s.client(second), Rules: rules, NamespaceSelector: selector, SideEffects: new(admissionregistrationv1.SideEffectClassNone), AdmissionReviewVersions: []string{"v1"}},
			{Name: "a.theirs.example", ClientConfig: theirs, Rules: rules, NamespaceSelector: noNamespace, SideEffects: new(admissionregistrationv1.SideEffectClassNone), AdmissionReviewVersions: []string{"v1"}},
		},
	}, metav1.CreateOptions{})
	must(s.t, err)
}

func (s *site) deleteConfigurations() {
	ctx := context.WithoutCancel(s.t.Context())
	for _, err := range []error{
		shared.Client.AdmissionregistrationV1().MutatingWebhookConfigurations().Delete(ctx, s.name, metav1.DeleteOptions{}),
		shared.Client.AdmissionregistrationV1().ValidatingWebhookConfigurations().Delete(ctx, s.name, metav1.DeleteOptions{}),
	} {
		if err != nil && !apierrors.IsNotFound(err) {
			s.t.Error(err)
		}
	}
}

// call creates a ConfigMap, which both webhooks must allow.
func (s *site) call(ctx context.Context) error {
	_, err := shared.Client.CoreV1().ConfigMaps(s.name).Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{GenerateName: "called-"}}, metav1.CreateOptions{})
	return err
}

// secret is the Secret that all replicas share.
func (s *site) secret() *corev1.Secret {
	s.t.Helper()
	secret, err := shared.Client.CoreV1().Secrets(s.name).Get(s.t.Context(), s.name, metav1.GetOptions{})
	must(s.t, err)
	return secret
}

// put replaces the Secret.
func (s *site) put(data map[string][]byte, kind corev1.SecretType) {
	s.t.Helper()
	err := shared.Client.CoreV1().Secrets(s.name).Delete(s.t.Context(), s.name, metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		s.t.Fatal(err)
	}
	_, err = shared.Client.CoreV1().Secrets(s.name).Create(s.t.Context(), &corev1.Secret{ObjectMeta: s.meta(), Type: kind, Data: maps.Clone(data)}, metav1.CreateOptions{})
	must(s.t, err)
}

// bundles are the caBundles of our two webhooks, mutating first.
func (s *site) bundles(ctx context.Context) ([2]string, error) {
	mutating, err := shared.Client.AdmissionregistrationV1().MutatingWebhookConfigurations().Get(ctx, s.name, metav1.GetOptions{})
	if err != nil {
		return [2]string{}, err
	}
	validating, err := shared.Client.AdmissionregistrationV1().ValidatingWebhookConfigurations().Get(ctx, s.name, metav1.GetOptions{})
	if err != nil {
		return [2]string{}, err
	}
	return [2]string{string(mutating.Webhooks[1].ClientConfig.CABundle), string(validating.Webhooks[0].ClientConfig.CABundle)}, nil
}

// replica is one webhook process.
type replica struct {
	*servingcert.Controller
	port     int
	calls    atomic.Int64
	recorder *record.FakeRecorder
	stop     func()
}

// start runs a replica until the test ends, or stop is called.
func (s *site) start(clk clock.PassiveClock) *replica {
	t := s.t
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", address+":0")
	must(t, err)
	r := &replica{port: listener.Addr().(*net.TCPAddr).Port, recorder: record.NewFakeRecorder(1000)}
	client, err := kubernetes.NewForConfig(s.identity)
	must(t, err)
	cfg := servingcert.Config{
		Client: client.CoreV1(), Configurations: client.AdmissionregistrationV1(),
		SecretName:   toolscache.ObjectName{Namespace: s.name, Name: s.name},
		MutatingName: s.name, ValidatingName: s.name,
		Hosts: []string{address}, Recorder: r.recorder, Clock: clk, Registerer: prometheus.NewRegistry(),
	}
	cfg.Secrets, err = servingcert.Secrets(client, cfg.SecretName)
	must(t, err)
	cfg.Mutating, err = servingcert.Mutating(client, s.name)
	must(t, err)
	cfg.Validating, err = servingcert.Validating(client, s.name)
	must(t, err)
	r.Controller, err = servingcert.New(cfg)
	must(t, err)
	server, err := webhook.New(webhook.Config{
		GetCertificate: r.GetCertificate, Registerer: prometheus.NewRegistry(),
		Handlers: map[string]review.Func{"/allow": func(context.Context, *admissionv1.AdmissionRequest) (*admissionv1.AdmissionResponse, error) {
			r.calls.Add(1)
			return &admissionv1.AdmissionResponse{Allowed: true}, nil
		}},
	})
	must(t, err)
	logger := ktesting.NewLogger(t, ktesting.NewConfig(ktesting.BufferLogs(true), ktesting.Verbosity(verbosity)))
	ctx := klog.NewContext(context.WithoutCancel(t.Context()), logger)
	serve := func(ctx context.Context) error { return server.Run(ctx, listener) }
	stop := testkit.Start(ctx, t, r.Run, serve, testkit.Informer(cfg.Secrets), testkit.Informer(cfg.Mutating), testkit.Informer(cfg.Validating))
	stopped := false
	r.stop = func() {
		if !stopped {
			stopped = true
			stop()
		}
	}
	t.Cleanup(func() {
		r.stop()
		logs := logger.GetSink().(ktesting.Underlier).GetBuffer().String()
		if strings.Contains(logs, "PRIVATE KEY") || strings.Contains(logs, "LS0tLS1CRUdJTiBQUklW") {
			t.Error("the log has a private key")
		}
		if t.Failed() {
			t.Logf("log of the replica at port %d:\n%s", r.port, logs[max(0, len(logs)-8000):])
		}
	})
	return r
}

func (r *replica) ready(context.Context) error { return r.Ready() }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually waits until check returns nil, or fails the test with its last error.
func eventually(t *testing.T, what string, check func(ctx context.Context) error) {
	t.Helper()
	testkit.Await(t, 10*time.Millisecond, timeout, what, check)
}
