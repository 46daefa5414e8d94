package accounttemplate

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilrand "k8s.io/apimachinery/pkg/util/rand"

	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane/controlplanetest"
)

func (p controlPlane) testMissingDefinition(t *testing.T) {
	t.Helper()
	p.deleteDefinition(t)
	controlplanetest.Eventually(t, "the definition is gone", func(ctx context.Context) error {
		if _, err := p.templates(t).List(ctx, metav1.ListOptions{}); !apierrors.IsNotFound(err) {
			return fmt.Errorf("templates are served: %w", err)
		}
		return nil
	})
	r := p.run(t)
	defer r.stop()
	controlplanetest.Eventually(t, "the missing definition is named", func(context.Context) error {
		if r.Ready() || !errors.Is(r.Err(), errNoDefinition) {
			return fmt.Errorf("ready: %t: %w", r.Ready(), r.Err())
		}
		return nil
	})
	must(t, p.Install(t.Context(), "account-templates"))
	controlplanetest.Eventually(t, "ready", func(context.Context) error {
		if !r.Ready() {
			return fmt.Errorf("not ready: %w", r.Err())
		}
		return nil
	})
}

func (p controlPlane) deleteDefinition(t *testing.T) {
	t.Helper()
	const path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/serviceaccounttemplates.sakeeper.io"
	must(t, p.Client.CoreV1().RESTClient().Delete().AbsPath(path).Do(t.Context()).Error())
}

func (p controlPlane) testDeletedDefinition(t *testing.T) {
	namespace := p.newNamespace(t)
	r := p.runReady(t)
	p.create(t, "deleted", hardened(namespace))
	p.expectLooks(t, namespace, "default", allSet)
	p.deleteDefinition(t)
	p.expectLooks(t, namespace, "default", plain)
	controlplanetest.Eventually(t, "the missing definition is named", func(context.Context) error {
		if r.Ready() || !errors.Is(r.Err(), errNoDefinition) {
			return fmt.Errorf("ready: %t: %w", r.Ready(), r.Err())
		}
		return nil
	})
}

func (p controlPlane) testValidation(t *testing.T) {
	type object = map[string]any
	cases := map[string]struct {
		inSpec object
		want   string // empty: it is accepted
	}{
		"an empty template":                  {inSpec: object{}},
		"names and a selector":               {inSpec: object{"names": []string{"a"}, "serviceAccountSelector": object{}}, want: "names and serviceAccountSelector exclude each other"},
		"to create what a selector selects":  {inSpec: object{"create": true, "serviceAccountSelector": object{}}, want: "create needs names"},
		"to create names":                    {inSpec: object{"create": true, "names": []string{"a"}}},
		"no names":                           {inSpec: object{"names": []string{}}, want: "should have at least 1 items"},
		"a name twice":                       {inSpec: object{"names": []string{"a", "a"}}, want: "Duplicate value"},
		"a name that no account can have":    {inSpec: object{"names": []string{"A_b"}}, want: "should match"},
		"a label":                            {inSpec: object{"labels": object{"example.com/team": "blue", "plain": ""}}},
		"a label under kubernetes.io":        {inSpec: object{"labels": object{"kubernetes.io/name": "x"}}, want: "keys under kubernetes.io and k8s.io cannot be set"},
		"a label under a part of k8s.io":     {inSpec: object{"labels": object{"node.k8s.io/name": "x"}}, want: "keys under kubernetes.io and k8s.io cannot be set"},
		"a label key that is none":           {inSpec: object{"labels": object{"-a": "x"}}, want: "a key is not one of a label"},
		"a label value that is none":         {inSpec: object{"labels": object{"a": "x y"}}, want: "should match"},
		"an annotation":                      {inSpec: object{"annotations": object{"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/x"}}},
		"a domain that ends like kubernetes": {inSpec: object{"annotations": object{"mykubernetes.io/a": "x"}}},
		"an annotation under kubernetes.io":  {inSpec: object{"annotations": object{"Kubernetes.io/enforce-mountable-secrets": "true"}}, want: "keys under kubernetes.io and k8s.io cannot be set"},
		"an annotation key that is none":     {inSpec: object{"annotations": object{"a b": "x"}}, want: "a key is not one of an annotation"},
		"a pull secret twice":                {inSpec: object{"imagePullSecrets": []object{{"name": "a"}, {"name": "a"}}}, want: "Duplicate value"},
		"a pull secret without a name":       {inSpec: object{"imagePullSecrets": []object{{}}}, want: "name: Required value"},
		"a priority that is no number":       {inSpec: object{"priority": "high"}, want: "priority"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			template := "v-" + utilrand.String(8)
			err := p.tryCreate(t.Context(), object{
				"apiVersion": "sakeeper.io/v1alpha1", "kind": "ServiceAccountTemplate", "metadata": object{"name": template}, "spec": tc.inSpec,
			})
			defer p.remove(t, template)
			if tc.want == "" && err != nil || tc.want != "" && (!apierrors.IsInvalid(err) || !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}
