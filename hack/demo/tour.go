package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/cabundle"
	"github.com/sakeeper/sakeeper/pkg/keys"
	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
	"github.com/sakeeper/sakeeper/pkg/token"
)

const (
	namespace = "team-a"
	account   = "builder"
	secret    = "builder-token"
)

// tour runs the steps. Each step starts its watch before the change to which sakeeper reacts,
// so the times are those of the controllers.
type tour struct {
	steps  *steps
	cp     *controlplane.ControlPlane
	client kubernetes.Interface
	bearer kubernetes.Interface // with the Secret's token and CA
	binary string               // path of sakeeper
	stop   []func() error       // stops the processes that the tour has started
}

func (t *tour) walk(ctx context.Context) (err error) {
	defer func() {
		for _, stop := range t.stop {
			err = errors.Join(err, stop())
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for _, step := range []func(context.Context) error{
		t.namespace, t.serviceAccountAgain, t.podBefore, t.podAfter, t.podRefused, t.template, t.tokenSecret, t.useToken, t.accountDeleted,
		t.managedToken, t.rotate, t.inventory, t.revoke,
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	_, _ = fmt.Fprintln(t.steps.out)
	t.steps.say("A report about the tokens, as they were before the last step: %s", fromHere(t.reportFile()))
	return nil
}

func (t *tour) namespace(ctx context.Context) error {
	t.steps.title("A namespace is created: it gets its ServiceAccount and the root CA")
	accounts, err := t.watch(ctx, "serviceaccounts", "default")
	if err != nil {
		return err
	}
	configMaps, err := t.watch(ctx, "configmaps", api.RootCAConfigMap)
	if err != nil {
		return err
	}
	t.steps.begin()
	if _, err := t.client.CoreV1().Namespaces().Create(ctx,
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{}); err != nil {
		return err
	}
	if _, err := until(ctx, accounts, there[*corev1.ServiceAccount]); err != nil {
		return err
	}
	t.steps.done("serviceaccount default")
	cm, err := until(ctx, configMaps, there[*corev1.ConfigMap])
	if err != nil {
		return err
	}
	t.steps.done("configmap %s", cm.Name)
	ca, err := cabundle.Parse([]byte(cm.Data[corev1.ServiceAccountRootCAKey]))
	if err != nil {
		return fmt.Errorf("published CA: %w", err)
	}
	t.steps.say("SHA-256 of its CA: %s", ca.Fingerprint())
	return nil
}

func (t *tour) serviceAccountAgain(ctx context.Context) error {
	t.steps.title("The default ServiceAccount is deleted: it is created again")
	old, err := t.client.CoreV1().ServiceAccounts(namespace).Get(ctx, "default", metav1.GetOptions{})
	if err != nil {
		return err
	}
	accounts, err := t.watch(ctx, "serviceaccounts", "default")
	if err != nil {
		return err
	}
	t.steps.begin()
	if err := t.client.CoreV1().ServiceAccounts(namespace).Delete(ctx, "default", metav1.DeleteOptions{}); err != nil {
		return err
	}
	again, err := until(ctx, accounts, func(e watch.EventType, a *corev1.ServiceAccount) bool {
		return e != watch.Deleted && a.UID != old.UID
	})
	if err != nil {
		return err
	}
	t.steps.done("serviceaccount default, with a new UID %s", again.UID)
	return nil
}

func (t *tour) tokenSecret(ctx context.Context) error {
	t.steps.title("A token Secret is created: it is filled")
	if _, err := t.client.CoreV1().ServiceAccounts(namespace).Create(ctx,
		&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: account}}, metav1.CreateOptions{}); err != nil {
		return err
	}
	secrets, err := t.watch(ctx, "secrets", secret)
	if err != nil {
		return err
	}
	t.steps.begin()
	if _, err := t.client.CoreV1().Secrets(namespace).Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: secret, Annotations: map[string]string{corev1.ServiceAccountNameKey: account}},
		Type:       corev1.SecretTypeServiceAccountToken,
	}, metav1.CreateOptions{}); err != nil {
		return err
	}
	filled, err := until(ctx, secrets, func(_ watch.EventType, s *corev1.Secret) bool {
		return len(s.Data[corev1.ServiceAccountTokenKey]) > 0
	})
	if err != nil {
		return err
	}
	t.steps.done("secret %s: token, ca.crt and namespace", secret)
	claims, err := t.verify(string(filled.Data[corev1.ServiceAccountTokenKey]))
	if err != nil {
		return fmt.Errorf("verify the token: %w", err)
	}
	t.steps.say("the claims of its token, after the signature was verified:\n%s", claims)
	return nil
}

// verify checks the token, and returns its claims as indented JSON.
func (t *tour) verify(compact string) (string, error) {
	data, err := os.ReadFile(t.cp.SigningKeyFile)
	if err != nil {
		return "", err
	}
	key, err := keys.ParsePrivate(data)
	if err != nil {
		return "", err
	}
	set := keys.NewSet(key)
	if _, err := token.NewVerifier(func() *keys.Set { return set }).VerifyLegacy(compact); err != nil {
		return "", err
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(compact, ".")[1])
	if err != nil {
		return "", err
	}
	var claims map[string]any
	if err := json.Unmarshal(payload, &claims); err != nil {
		return "", err
	}
	pretty, err := json.MarshalIndent(claims, "   ", "  ")
	return "   " + string(pretty), err
}

func (t *tour) useToken(ctx context.Context) error {
	t.steps.title("The token is used: the API server returns the name of its user")
	filled, err := t.client.CoreV1().Secrets(namespace).Get(ctx, secret, metav1.GetOptions{})
	if err != nil {
		return err
	}
	if err := t.bear(filled); err != nil {
		return err
	}
	t.steps.begin()
	name, err := t.whoAmI(ctx)
	if err != nil {
		return err
	}
	t.steps.done("authenticated as %s", name)
	return nil
}

// whoAmI returns the user name that the API server has for the token of the Secret.
func (t *tour) whoAmI(ctx context.Context) (string, error) {
	self, err := t.bearer.AuthenticationV1().SelfSubjectReviews().Create(ctx, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err != nil {
		return "", err
	}
	return self.Status.UserInfo.Username, nil
}

func (t *tour) accountDeleted(ctx context.Context) error {
	t.steps.title("The ServiceAccount is deleted: its token Secret is deleted too")
	secrets, err := t.watch(ctx, "secrets", secret)
	if err != nil {
		return err
	}
	t.steps.begin()
	if err := t.client.CoreV1().ServiceAccounts(namespace).Delete(ctx, account, metav1.DeleteOptions{}); err != nil {
		return err
	}
	if _, err := until(ctx, secrets, gone[*corev1.Secret]); err != nil {
		return err
	}
	t.steps.done("secret %s is gone", secret)
	return t.untilRefused(ctx)
}

// untilRefused waits until the API server refuses the token. The API server caches accepted
// tokens for some seconds.
func (t *tour) untilRefused(ctx context.Context) error {
	err := wait.PollUntilContextCancel(ctx, 100*time.Millisecond, true, func(ctx context.Context) (bool, error) {
		_, err := t.whoAmI(ctx)
		if apierrors.IsUnauthorized(err) {
			return true, nil
		}
		return false, err
	})
	if err != nil {
		return err
	}
	t.steps.done("its token is refused")
	return nil
}

// watch watches one object in the namespace of the tour, from now on.
func (t *tour) watch(ctx context.Context, resource, name string) (watch.Interface, error) {
	options := &metav1.ListOptions{
		Watch: true, FieldSelector: fields.OneTermEqualSelector("metadata.name", name).String(),
	}
	return t.client.CoreV1().RESTClient().Get().Namespace(namespace).Resource(resource).
		VersionedParams(options, scheme.ParameterCodec).Watch(ctx)
}

func there[T any](e watch.EventType, _ T) bool { return e != watch.Deleted }

func gone[T any](e watch.EventType, _ T) bool { return e == watch.Deleted }

// until reads events until ok returns true for one, and ends the watch.
func until[T any](ctx context.Context, events watch.Interface, ok func(watch.EventType, T) bool) (T, error) {
	defer events.Stop()
	var none T
	for {
		select {
		case <-ctx.Done():
			return none, fmt.Errorf("waiting for %T: %w", none, ctx.Err())
		case event, open := <-events.ResultChan():
			if !open {
				return none, errors.New("the watch ended")
			}
			if obj, is := event.Object.(T); is && ok(event.Type, obj) {
				return obj, nil
			}
		}
	}
}
