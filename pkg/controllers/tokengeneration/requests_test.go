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
	planned = "robot-token-ddddd"
	surveys = "team type=kubernetes.io/service-account-token"
)

// asks is what the fake makes of the selector: it sorts.
func asks(name string) string {
	return "team metadata.name=" + name + ",type=kubernetes.io/service-account-token"
}

// creates is the one write that makes a Secret.
func creates(name string) testkit.Request {
	return testkit.Request{Verb: "create", Resource: "secrets", Name: "team/" + name, Body: &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: "team", Name: name, Annotations: map[string]string{
			"kubernetes.io/service-account.name": "robot", "kubernetes.io/service-account.uid": string(testkit.AccountUID),
		}},
		Type: "kubernetes.io/service-account-token",
		Data: map[string][]byte{"token": []byte(tokenFor(name, testkit.AccountUID)), "ca.crt": testkit.Bundle().PEM(), "namespace": []byte("team")},
	}}
}

// patches is a reference to the last of names, written to the version in the cache.
func patches(names ...string) testkit.Request {
	var refs []any
	for _, name := range names {
		refs = append(refs, map[string]any{"name": name})
	}
	return testkit.Request{Verb: "patch", Resource: "serviceaccounts", Name: "team/robot", Body: map[string]any{
		"metadata": map[string]any{"uid": string(testkit.AccountUID), "resourceVersion": testkit.ResourceVersion}, "secrets": refs,
	}}
}

func rehearses(names ...string) testkit.Request {
	r := patches(names...)
	r.Verb = "rehearse"
	return r
}

// deletes is the end of what was planned.
func deletes(uid types.UID) testkit.Request {
	return testkit.Request{Verb: "delete", Resource: "secrets", Name: "team/" + planned, Body: &metav1.Preconditions{UID: &uid}}
}

// timeout is what says neither yes nor no.
func timeout() error { return apierrors.NewTimeoutError("etcd is slow", 1) }

func unsupportedRehearsal() error { return apierrors.NewBadRequest("webhook does not support dry run") }

func quotesToken() error {
	return apierrors.NewForbidden(schema.GroupResource{Resource: "secrets"}, planned, errors.New("policy denied "+secretBytes))
}

// answers are those of an API server by "<verb> <resource>"; where there is none, it
// does as it is told.
type answers map[string]error

func (a answers) of(verb, resource string) (err error, carried bool) {
	err, ok := a[verb+" "+resource]
	return err, !ok
}

// forgotten is the plan whose Secret is not there and never will be.
func forgotten(p *plan) { p.name = "" }
