package reach_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/sakeeper/sakeeper/pkg/inventory/reach"
	"github.com/sakeeper/sakeeper/pkg/testkit"
	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
)

// TestAllowsIsTheAnswerOfTheAPIServer asks the API server and the package the same questions about
// random roles and bindings.
func TestAllowsIsTheAnswerOfTheAPIServer(t *testing.T) {
	const questions = 2000
	cp, err := controlplane.Start(controlplane.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cp.Stop(); err != nil {
			t.Error(err)
		}
	})
	config := rest.CopyConfig(cp.Admin)
	config.QPS = -1
	client := kubernetes.NewForConfigOrDie(config)
	stop, err := cp.StartControllerManager(controlplane.ControllerManager{Controllers: []string{"clusterrole-aggregation-controller"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = stop() })

	g := generator{rand.New(rand.NewPCG(1, 2))}
	g.seed(t, client)
	objects := read(t, client)
	policy := reach.New(objects)

	allowed := 0
	var mu sync.Mutex
	var workers sync.WaitGroup
	ask := make(chan question)
	for range 4 {
		workers.Go(func() {
			for q := range ask {
				got, want := q.answers(t, client, policy)
				mu.Lock()
				if want {
					allowed++
				}
				if got != want {
					t.Errorf("%+v: got %v, the API server says %v", q, got, want)
				}
				mu.Unlock()
			}
		})
	}
	for range questions {
		ask <- g.question()
	}
	close(ask)
	workers.Wait()
	t.Logf("%d questions, %d allowed", questions, allowed)
	if allowed < questions/10 || allowed > questions*9/10 {
		t.Errorf("the questions are too much alike: %d of %d are allowed", allowed, questions)
	}
}

type question struct {
	account reach.Account
	request reach.Request
}

func (q question) answers(t *testing.T, client kubernetes.Interface, policy *reach.Policy) (got, want bool) {
	t.Helper()
	_, got = policy.Allows(q.account.User(), q.account.Groups(), q.request)
	r := q.request
	review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{User: q.account.User(), Groups: q.account.Groups()}}
	if r.Path != "" {
		review.Spec.NonResourceAttributes = &authorizationv1.NonResourceAttributes{Path: r.Path, Verb: r.Verb}
	} else {
		review.Spec.ResourceAttributes = &authorizationv1.ResourceAttributes{
			Verb: r.Verb, Group: r.Group, Resource: r.Resource, Subresource: r.Subresource, Namespace: r.Namespace, Name: r.Name,
		}
	}
	answer, err := client.AuthorizationV1().SubjectAccessReviews().Create(t.Context(), review, metav1.CreateOptions{})
	if err != nil {
		t.Error(err)
		return got, got
	}
	return got, answer.Status.Allowed
}

// generator makes random roles, bindings and questions from a few words, so that they often meet.
type generator struct{ *rand.Rand }

func (g generator) some(words ...string) []string {
	var chosen []string
	for range 1 + g.IntN(2) {
		chosen = append(chosen, words[g.IntN(len(words))])
	}
	return chosen
}

func (g generator) one(words ...string) string { return words[g.IntN(len(words))] }

func namespaces() []string { return []string{"team-a", "team-b", "kube-system"} }
func accounts() []string   { return []string{"default", "ci", "monitor"} }

func (g generator) rule(namespaced bool) rbacv1.PolicyRule {
	rule := rbacv1.PolicyRule{Verbs: g.some("get", "list", "create", "update", "impersonate", "escalate", "*", "*")}
	if !namespaced && g.IntN(4) == 0 {
		rule.NonResourceURLs = g.some("*", "/metrics", "/metrics/*", "/metri*", "/logs/*", "/api/**")
		return rule
	}
	rule.APIGroups = g.some("", "apps", "rbac.authorization.k8s.io", "*")
	rule.Resources = g.some("pods", "pods/*", "pods/exec", "*/scale", "*/exec", "deployments", "deployments/scale", "secrets", "clusterroles", "*/", "*")
	if g.IntN(3) == 0 {
		rule.ResourceNames = g.some("one", "two", "*")
	}
	return rule
}

func (g generator) rules(namespaced bool) []rbacv1.PolicyRule {
	var rules []rbacv1.PolicyRule
	for range 1 + g.IntN(2) {
		rules = append(rules, g.rule(namespaced))
	}
	return rules
}

func (g generator) subjects(namespaced bool) []rbacv1.Subject {
	namespace, name := g.one(namespaces()...), g.one(accounts()...)
	switch g.IntN(8) {
	case 0:
		return []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: "system:serviceaccount:" + namespace + ":" + name}}
	case 1:
		return []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.GroupKind, Name: "system:serviceaccounts:" + namespace}}
	case 2:
		return []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.GroupKind, Name: g.one("system:masters", "strangers", "system:serviceaccounts:team")}}
	case 3:
		if namespaced {
			return []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.GroupKind, Name: g.one("system:serviceaccounts", "system:authenticated")}}
		}
	case 4:
		if namespaced {
			return []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Name: name}} // of the binding's namespace
		}
	}
	return []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: namespace, Name: name}, {Kind: rbacv1.ServiceAccountKind, Namespace: "team-b", Name: "nobody"}}
}

func (g generator) question() question {
	q := question{account: reach.Account{Namespace: g.one(namespaces()...), Name: g.one(accounts()...)}}
	q.request.Verb = g.one("get", "list", "create", "update", "impersonate", "escalate")
	if g.IntN(5) == 0 {
		q.request.Path = g.one("/metrics", "/metrics/", "/metrics/cadvisor", "/logs", "/logs/x", "/api", "/version", "/", "/healthz")
		return q
	}
	q.request.Group = g.one("", "apps", "rbac.authorization.k8s.io", "batch")
	q.request.Resource = g.one("pods", "deployments", "secrets", "clusterroles", "jobs")
	q.request.Subresource = g.one("", "", "exec", "scale", "*")
	q.request.Namespace = g.one("", "team-a", "team-b", "kube-system", "elsewhere")
	q.request.Name = g.one("", "", "one", "two", "three")
	return q
}

// seed creates the objects, and returns when the API server authorizes by all of them.
func (g generator) seed(t *testing.T, client kubernetes.Interface) {
	t.Helper()
	for _, name := range namespaces()[:2] {
		create(t, client.CoreV1().Namespaces().Create, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}})
	}
	rbac := client.RbacV1()
	for i := range 24 {
		role := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("random-%d", i)}, Rules: g.rules(false)}
		if i%4 == 0 {
			role.Labels = map[string]string{"aggregate": fmt.Sprint(i % 3)}
		}
		create(t, rbac.ClusterRoles().Create, role)
	}
	for i := range 3 {
		create(t, rbac.ClusterRoles().Create, &rbacv1.ClusterRole{
			ObjectMeta:      metav1.ObjectMeta{Name: fmt.Sprintf("aggregated-%d", i)},
			AggregationRule: &rbacv1.AggregationRule{ClusterRoleSelectors: []metav1.LabelSelector{{MatchLabels: map[string]string{"aggregate": fmt.Sprint(i)}}}},
		})
	}
	clusterRole := func() rbacv1.RoleRef {
		name := g.one(fmt.Sprintf("random-%d", g.IntN(24)), fmt.Sprintf("aggregated-%d", g.IntN(3)), "missing")
		return rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name}
	}
	for i := range 24 {
		create(t, rbac.ClusterRoleBindings().Create, &rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("random-%d", i)}, Subjects: g.subjects(false), RoleRef: clusterRole(),
		})
	}
	for _, namespace := range namespaces() {
		for i := range 10 {
			meta := metav1.ObjectMeta{Namespace: namespace, Name: fmt.Sprintf("random-%d", i)}
			create(t, rbac.Roles(namespace).Create, &rbacv1.Role{ObjectMeta: meta, Rules: g.rules(true)})
			ref := clusterRole()
			if i%2 == 0 {
				ref = rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: meta.Name}
			}
			create(t, rbac.RoleBindings(namespace).Create, &rbacv1.RoleBinding{ObjectMeta: meta, Subjects: g.subjects(true), RoleRef: ref})
		}
	}
	awaitAggregation(t, client)
	awaitAuthorizer(t, client)
}

func awaitAggregation(t *testing.T, client kubernetes.Interface) {
	t.Helper()
	testkit.Await(t, 50*time.Millisecond, 2*time.Minute, "aggregation", func(ctx context.Context) error {
		for i := range 3 {
			name := fmt.Sprintf("aggregated-%d", i)
			role, err := client.RbacV1().ClusterRoles().Get(ctx, name, metav1.GetOptions{})
			if err != nil {
				return err
			}
			if len(role.Rules) == 0 {
				return errors.New(name + " has no rules yet")
			}
		}
		return nil
	})
}

// awaitAuthorizer creates the last object of each kind, and waits until the API server authorizes by
// them: it has then seen all that came before.
func awaitAuthorizer(t *testing.T, client kubernetes.Interface) {
	t.Helper()
	rbac := client.RbacV1()
	rules := []rbacv1.PolicyRule{{Verbs: []string{"last"}, APIGroups: []string{""}, Resources: []string{"last"}}}
	cluster, meta := metav1.ObjectMeta{Name: "last"}, metav1.ObjectMeta{Namespace: "team-a", Name: "last"}
	subjects := func(user string) []rbacv1.Subject {
		return []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: user}}
	}
	create(t, rbac.ClusterRoles().Create, &rbacv1.ClusterRole{ObjectMeta: cluster, Rules: rules})
	create(t, rbac.Roles("team-a").Create, &rbacv1.Role{ObjectMeta: meta, Rules: rules})
	create(t, rbac.ClusterRoleBindings().Create, &rbacv1.ClusterRoleBinding{
		ObjectMeta: cluster, Subjects: subjects("everywhere"), RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "last"},
	})
	create(t, rbac.RoleBindings("team-a").Create, &rbacv1.RoleBinding{
		ObjectMeta: meta, Subjects: subjects("here"), RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "last"},
	})
	testkit.Await(t, 50*time.Millisecond, time.Minute, "the authorizer", func(ctx context.Context) error {
		for _, user := range []string{"everywhere", "here"} {
			review, err := client.AuthorizationV1().SubjectAccessReviews().Create(ctx, &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
				User: user, ResourceAttributes: &authorizationv1.ResourceAttributes{Verb: "last", Resource: "last", Namespace: "team-a"},
			}}, metav1.CreateOptions{})
			if err != nil {
				return err
			}
			if !review.Status.Allowed {
				return errors.New(user + " is not allowed yet")
			}
		}
		return nil
	})
}

func read(t *testing.T, client kubernetes.Interface) reach.Objects {
	t.Helper()
	all := metav1.ListOptions{}
	roles, err1 := client.RbacV1().Roles("").List(t.Context(), all)
	clusterRoles, err2 := client.RbacV1().ClusterRoles().List(t.Context(), all)
	bindings, err3 := client.RbacV1().RoleBindings("").List(t.Context(), all)
	clusterBindings, err4 := client.RbacV1().ClusterRoleBindings().List(t.Context(), all)
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(clusterRoles.Items, func(r rbacv1.ClusterRole) bool { return r.AggregationRule != nil && len(r.Rules) > 1 }) {
		t.Error("no ClusterRole is aggregated from several")
	}
	return reach.Objects{Roles: roles.Items, ClusterRoles: clusterRoles.Items, RoleBindings: bindings.Items, ClusterRoleBindings: clusterBindings.Items}
}

func create[T any](t *testing.T, create func(context.Context, T, metav1.CreateOptions) (T, error), object T) {
	t.Helper()
	if _, err := create(t.Context(), object, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}
