package tokens

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/kubernetes/pkg/serviceaccount"
)

// getter returns the objects of a state.
type getter struct{ state state }

func meta(objects map[string]object, namespace, name string) (metav1.ObjectMeta, object, error) {
	key := namespace + "/" + name
	if namespace == "" {
		key = name
	}
	found, ok := objects[key]
	if !ok {
		return metav1.ObjectMeta{}, found, apierrors.NewNotFound(schema.GroupResource{}, name)
	}
	made := metav1.ObjectMeta{Namespace: namespace, Name: name, UID: types.UID(found.UID)}
	if found.DeletedFor != nil {
		made.DeletionTimestamp = &metav1.Time{Time: time.Now().Add(-time.Duration(*found.DeletedFor) * time.Second)}
	}
	if found.InvalidSince != "" {
		made.Labels = map[string]string{serviceaccount.InvalidSinceLabelKey: found.InvalidSince}
	}

	return made, found, nil
}

func (g getter) GetServiceAccount(_ context.Context, namespace, name string) (*corev1.ServiceAccount, error) {
	m, _, err := meta(g.state.Accounts, namespace, name)

	return &corev1.ServiceAccount{ObjectMeta: m}, err
}

func (g getter) GetPod(_ context.Context, namespace, name string) (*corev1.Pod, error) {
	m, _, err := meta(g.state.Pods, namespace, name)

	return &corev1.Pod{ObjectMeta: m}, err
}

func (g getter) GetSecret(_ context.Context, namespace, name string) (*corev1.Secret, error) {
	m, found, err := meta(g.state.Secrets, namespace, name)

	return &corev1.Secret{ObjectMeta: m, Data: map[string][]byte{corev1.ServiceAccountTokenKey: []byte(found.Token)}}, err
}

func (g getter) GetNode(_ context.Context, name string) (*corev1.Node, error) {
	m, _, err := meta(g.state.Nodes, "", name)

	return &corev1.Node{ObjectMeta: m}, err
}

func (g getter) GetValidatingWebhookConfiguration(_ context.Context, name string) (*admissionregistrationv1.ValidatingWebhookConfiguration, error) {
	m, _, err := meta(g.state.ValidatingWebhooks, "", name)

	return &admissionregistrationv1.ValidatingWebhookConfiguration{ObjectMeta: m}, err
}

func (g getter) GetMutatingWebhookConfiguration(_ context.Context, name string) (*admissionregistrationv1.MutatingWebhookConfiguration, error) {
	m, _, err := meta(g.state.MutatingWebhooks, "", name)

	return &admissionregistrationv1.MutatingWebhookConfiguration{ObjectMeta: m}, err
}

// inTree returns the result of kube-apiserver, which tries the authenticators for legacy and
// for bound tokens, and adds the group system:authenticated.
func inTree(ctx context.Context, public []any, q question) (answer, error) {
	known, err := serviceaccount.StaticPublicKeysGetter(public)
	if err != nil {
		return answer{}, err
	}
	objects := getter{q.State}
	client := &fake.Clientset{} // patches of the last-used label succeed
	client.AddReactor("patch", "secrets", func(clienttesting.Action) (bool, runtime.Object, error) { return true, &corev1.Secret{}, nil })
	legacy, err := serviceaccount.NewLegacyValidator(true, objects, client.CoreV1())
	if err != nil {
		return answer{}, err
	}
	audiences := authenticator.Audiences(q.APIAudiences)
	verifiers := []authenticator.Token{
		serviceaccount.JWTTokenAuthenticator([]string{serviceaccount.LegacyIssuer}, known, audiences, legacy),
		serviceaccount.JWTTokenAuthenticator(q.Issuers, known, audiences, serviceaccount.NewValidator(objects)),
	}
	asked := authenticator.Audiences(q.Audiences)
	if len(asked) == 0 {
		asked = audiences
	}
	ctx = authenticator.WithAudiences(ctx, asked)
	reasons := errors.New("no authenticator knows it")
	for _, verifier := range verifiers {
		response, ok, err := verifier.AuthenticateToken(ctx, q.Token)
		if ok && err == nil {
			return answer{User: infoOf(response.User), Audiences: response.Audiences}, nil
		}
		if err != nil {
			reasons = err
		}
	}

	return answer{Reason: fmt.Sprintf("in-tree: %v", reasons)}, nil
}

func infoOf(u user.Info) authenticationv1.UserInfo {
	info := authenticationv1.UserInfo{
		Username: u.GetName(), UID: u.GetUID(), Groups: append(slices.Clone(u.GetGroups()), user.AllAuthenticated), Extra: map[string]authenticationv1.ExtraValue{},
	}
	for key, values := range u.GetExtra() {
		info.Extra[key] = values
	}

	return info
}
