package pullsecretcopy

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	toolscache "k8s.io/client-go/tools/cache"

	"github.com/sakeeper/sakeeper/pkg/api/v1alpha1"
	"github.com/sakeeper/sakeeper/pkg/cache"
	"github.com/sakeeper/sakeeper/pkg/testkit"
)

func copyKey() toolscache.ObjectName { return toolscache.NewObjectName("team", "registry") }

func from(template, namespace, name string) claim {
	return claim{template: template, source: toolscache.NewObjectName(namespace, name)}
}

func TestDecide(t *testing.T) {
	deleting := metav1.NewTime(testkit.Instant().Add(time.Minute))
	right := func() state {
		return state{
			key: copyKey(), namespace: testkit.Namespace("team"), isServed: true, claims: []claim{from("registry", "central", "source")},
			sourceNamespaces: []string{"other", "central"}, source: source(), copied: copied(nil),
		}
	}
	const missing = "the source central/source does not exist, or its type is neither kubernetes.io/dockerconfigjson nor kubernetes.io/dockercfg"
	cases := map[string]struct {
		in   func(*state)
		want plan
	}{
		"a copy that is right":           {want: plan{reason: "copy is right"}},
		"a missing copy":                 {in: func(s *state) { s.copied = nil }, want: plan{action: create, reason: "copy is missing"}},
		"the source changed":             {in: func(s *state) { s.source.ResourceVersion = "8" }, want: plan{action: apply, reason: "copy is of another version"}},
		"the source was created anew":    {in: func(s *state) { s.source.UID = testkit.OtherUID }, want: plan{action: apply, reason: "copy is of another version"}},
		"it is of another source":        {in: func(s *state) { s.copied.Annotations["sakeeper.io/copied-from"] = "central/old" }, want: plan{action: apply, reason: "copy is of another version"}},
		"the annotations were removed":   {in: func(s *state) { s.copied.Annotations = nil }, want: plan{action: apply, reason: "copy is of another version"}},
		"the credentials were changed":   {in: func(s *state) { s.copied.Owned = false }, want: plan{action: apply, reason: "credentials were changed"}},
		"the source has another type":    {in: func(s *state) { s.source.Type = corev1.SecretTypeDockercfg }, want: plan{action: replace, reason: "copy has another type"}},
		"the copy is being deleted":      {in: func(s *state) { s.copied.DeletionTimestamp = &deleting }, want: plan{reason: "copy is being deleted", problem: "the copy is being deleted"}},
		"the source is missing":          {in: func(s *state) { s.source = nil }, want: plan{reason: "source is missing", problem: missing}},
		"without source and copy":        {in: func(s *state) { s.source, s.copied = nil, nil }, want: plan{reason: "source is missing", problem: missing}},
		"a source that is not allowed":   {in: func(s *state) { s.sourceNamespaces = []string{"other"} }, want: plan{reason: "source is not allowed", problem: "the namespace of the source central/source is not one of --pull-secret-source-namespaces"}},
		"no source is allowed":           {in: func(s *state) { s.sourceNamespaces = nil }, want: plan{reason: "source is not allowed", problem: "the namespace of the source central/source is not one of --pull-secret-source-namespaces"}},
		"a source that is a copy":        {in: func(s *state) { s.source.Labels = s.copied.Labels }, want: plan{reason: "source is a copy", problem: "the source central/source is a copy itself"}},
		"the source itself":              {in: func(s *state) { s.claims[0].source, s.copied = s.key, nil }, want: plan{reason: "it is the source itself"}},
		"nobody names it any more":       {in: func(s *state) { s.claims = nil }, want: plan{action: remove, reason: "no template names the copy any more"}},
		"nobody names it":                {in: func(s *state) { s.claims, s.copied = nil, nil }, want: plan{reason: "no template names it"}},
		"it is going already":            {in: func(s *state) { s.claims, s.copied.DeletionTimestamp = nil, &deleting }, want: plan{reason: "copy is being deleted"}},
		"a template that cannot be read": {in: func(s *state) { s.claims, s.isInvalid = nil, true }, want: plan{reason: "a template cannot be read"}},
		"which is no matter to others":   {in: func(s *state) { s.copied, s.isInvalid = nil, true }, want: plan{action: create, reason: "copy is missing"}},
		"no namespace":                   {in: func(s *state) { s.namespace, s.claims = nil, nil }, want: plan{reason: "namespace does not exist"}},
		"a namespace that is going":      {in: func(s *state) { s.namespace, s.copied = testkit.Namespace("team", testkit.Terminating()), nil }, want: plan{reason: "namespace is not active"}},
		"a namespace that is not served": {in: func(s *state) { s.isServed, s.copied = false, nil }, want: plan{reason: "namespace is not served"}},
		"templates that agree":           {in: func(s *state) { s.claims = append(s.claims, from("second", "central", "source")) }, want: plan{reason: "copy is right"}},
		"templates that contradict each other": {
			in:   func(s *state) { s.claims = append(s.claims, from("second", "other", "source")) },
			want: plan{reason: "copy is right", conflicts: []claim{from("second", "other", "source")}},
		},
		"a template that has less to say": {
			in: func(s *state) {
				s.claims[0].priority = 1
				s.claims = append(s.claims, from("second", "other", "source"))
			},
			want: plan{reason: "copy is right"},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			s := right()
			if tc.in != nil {
				tc.in(&s)
			}
			if diff := cmp.Diff(tc.want, decide(s), cmp.AllowUnexported(plan{}, claim{})); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestClaims(t *testing.T) {
	blue := template("blue", 0, named("registry", "blue", "s"))
	blue.Spec.NamespaceSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"team": "blue"}}
	plainName := template("plain", 9, v1alpha1.PullSecret{Name: "registry"})
	templates := []*v1alpha1.ServiceAccountTemplate{
		template("b", 0, named("registry", "b", "s")), template("a", 0, named("other", "a", "s"), named("registry", "a", "s")), template("first", 7, named("registry", "f", "s")), blue, plainName,
	}
	first := from("first", "f", "s")
	first.priority = 7
	cases := map[string]struct {
		in   *corev1.Namespace
		name string
		want []claim
	}{
		"by priority, then by name":   {in: testkit.Namespace("team"), name: "registry", want: []claim{first, from("a", "a", "s"), from("b", "b", "s")}},
		"of selected namespaces":      {in: testkit.Namespace("team", testkit.WithLabel("team", "blue")), name: "registry", want: []claim{first, from("a", "a", "s"), from("b", "b", "s"), from("blue", "blue", "s")}},
		"another name":                {in: testkit.Namespace("team"), name: "other", want: []claim{from("a", "a", "s")}},
		"a name without source":       {in: testkit.Namespace("team"), name: "none"},
		"kube-system is not selected": {in: testkit.Namespace("kube-system"), name: "registry"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			for _, template := range templates {
				f.cache(t, template)
			}
			if diff := cmp.Diff(tc.want, claimsFor(tc.in, tc.name, f.Controller.templates()), cmp.AllowUnexported(claim{})); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestSecretsOfSomeNamespaces(t *testing.T) {
	f := newFixture(t)
	some, err := NewCopies(f.metadata, []string{"one", "two", "one"})
	if err != nil {
		t.Fatal(err)
	}
	none, err := NewSources(f.metadata, nil)
	if err != nil {
		t.Fatal(err)
	}
	if some.serves("three") || !some.serves("two") || !f.cfg.Copies.serves("three") || none.serves("one") {
		t.Error("other namespaces are served")
	}
	if len(some.Informers()) != 4 || len(f.cfg.Copies.Informers()) != 2 || len(none.Informers()) != 0 {
		t.Errorf("%d, %d and %d informers", len(some.Informers()), len(f.cfg.Copies.Informers()), len(none.Informers()))
	}
	if some.get(copyKey()) != nil || len(some.in("team")) != 0 || !(&cache.PullSecret{ObjectMeta: copied(nil).ObjectMeta}).IsCopy() {
		t.Error("a namespace that is not served has Secrets")
	}
}
