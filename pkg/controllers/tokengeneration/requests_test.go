package tokengeneration

import (
	"errors"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sakeeper/sakeeper/pkg/testkit"
)

const (
	planned       = "robot-token-ddddd"
	listNamespace = "team type=kubernetes.io/service-account-token"
)

// listSecret is the list of one name. The fake client sorts the selector.
func listSecret(name string) string {
	return "team metadata.name=" + name + ",type=kubernetes.io/service-account-token"
}

// creates is the request that creates a Secret.
func creates(name string) testkit.Request {
	return testkit.Request{Verb: "create", Resource: "secrets", Name: "team/" + name, Body: &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: "team", Name: name, Annotations: map[string]string{
			"kubernetes.io/service-account.name": "robot", "kubernetes.io/service-account.uid": string(testkit.AccountUID),
		}},
		Type: "kubernetes.io/service-account-token",
		Data: map[string][]byte{"token": []byte(tokenFor(name, testkit.AccountUID)), "ca.crt": testkit.Bundle().PEM(), "namespace": []byte("team")},
	}}
}

// patches adds a reference to the last of names, with the resourceVersion in the cache.
func patches(names ...string) testkit.Request {
	var refs []any
	for _, name := range names {
		refs = append(refs, map[string]any{"name": name})
	}
	return testkit.Request{Verb: "patch", Resource: "serviceaccounts", Name: "team/robot", Body: map[string]any{
		"metadata": map[string]any{"uid": string(testkit.AccountUID), "resourceVersion": testkit.ResourceVersion}, "secrets": refs,
	}}
}

func dryRuns(names ...string) testkit.Request {
	r := patches(names...)
	r.Verb = "dry-run"
	return r
}

// deletes removes the planned Secret.
func deletes(uid types.UID) testkit.Request {
	return testkit.Request{Verb: "delete", Resource: "secrets", Name: "team/" + planned, Body: &metav1.Preconditions{UID: &uid}}
}

// timeout does not say whether the request was carried out.
func timeout() error { return apierrors.NewTimeoutError("etcd is slow", 1) }

func dryRunUnsupported() error { return apierrors.NewBadRequest("webhook does not support dry run") }

func quotesToken() error {
	return apierrors.NewForbidden(schema.GroupResource{Resource: "secrets"}, planned, errors.New("policy denied "+secretBytes))
}

// responses are errors of an API server by "<verb> <resource>". Other requests are
// carried out.
type responses map[string]error

func (r responses) to(verb, resource string) (err error, apply bool) {
	err, ok := r[verb+" "+resource]
	return err, !ok
}

// withoutSecret is a plan whose Secret does not exist and never will.
func withoutSecret(p *plan) { p.secretName = "" }
