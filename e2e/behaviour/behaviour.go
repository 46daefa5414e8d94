// Package behaviour checks a cluster with sakeeper through its API alone. The same checks run
// on a control plane on this machine, where sakeeper is a process, and on a cluster with nodes,
// where it runs in pods.
//
// Every check creates a namespace of its own. The checks also pass on a cluster with the
// in-tree parts.
package behaviour

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/sakeeper/sakeeper/pkg/testkit"
)

// patience is the timeout for what should take milliseconds, on a machine that may do much else.
const patience = 2 * time.Minute

// Cluster is the cluster to check.
type Cluster struct {
	// Admin has the credentials of an administrator.
	Admin *rest.Config
	// TokenRequests: the token-request-controller runs.
	TokenRequests bool
}

// Check runs all checks as subtests.
func (c Cluster) Check(t *testing.T) {
	t.Helper()
	client, err := kubernetes.NewForConfig(c.Admin)
	if err != nil {
		t.Fatal(err)
	}
	checks := map[string]func(*testing.T, site){
		"a namespace has its account and CA, and has them again":  accountAndCA,
		"a token Secret is filled, and goes with its account":     tokenSecret,
		"a reference to a Secret goes with it":                    reference,
		"a pod gets account, token and pull secrets":              podDefaults,
		"a pod of no account is refused":                          podOfNobody,
		"a pod names only the Secrets that its account may mount": podSecrets,
	}
	if c.TokenRequests {
		checks["a managed Secret has a token that rotates, and is revoked"] = managedSecret
	}
	for name, check := range checks {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			check(t, newSite(t, c.Admin, client))
		})
	}
}

// site is a namespace for one check.
type site struct {
	admin     *rest.Config
	client    kubernetes.Interface
	namespace string
}

func newSite(t *testing.T, admin *rest.Config, client kubernetes.Interface) site {
	t.Helper()
	s := site{admin, client, "behaviour-" + rand.String(6)}
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: s.namespace, Labels: map[string]string{"sakeeper.io/token-requests": "allowed"}}}
	_, err := client.CoreV1().Namespaces().Create(t.Context(), namespace, metav1.CreateOptions{})
	must(t, err)
	t.Cleanup(func() {
		_ = client.CoreV1().Namespaces().Delete(context.WithoutCancel(t.Context()), s.namespace, metav1.DeleteOptions{})
	})
	return s
}

func accountAndCA(t *testing.T, s site) {
	t.Helper()
	first := s.account(t, "default")
	eventually(t, "kube-root-ca.crt", s.rootCA)
	must(t, s.client.CoreV1().ServiceAccounts(s.namespace).Delete(t.Context(), "default", metav1.DeleteOptions{}))
	must(t, s.client.CoreV1().ConfigMaps(s.namespace).Delete(t.Context(), "kube-root-ca.crt", metav1.DeleteOptions{}))
	eventually(t, "another default account", func(ctx context.Context) error {
		again, err := s.client.CoreV1().ServiceAccounts(s.namespace).Get(ctx, "default", metav1.GetOptions{})
		if err == nil && again.UID == first.UID {
			err = errors.New("the old one is still there")
		}
		return err
	})
	eventually(t, "kube-root-ca.crt again", s.rootCA)
}

func (s site) rootCA(ctx context.Context) error {
	found, err := s.client.CoreV1().ConfigMaps(s.namespace).Get(ctx, "kube-root-ca.crt", metav1.GetOptions{})
	if err == nil && strings.TrimSpace(found.Data["ca.crt"]) != strings.TrimSpace(string(s.admin.CAData)) {
		err = errors.New("it is not the CA of the API server")
	}
	return err
}

func tokenSecret(t *testing.T, s site) {
	t.Helper()
	s.createAccount(t, "builder")
	s.createSecret(t, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "builder-token", Annotations: map[string]string{corev1.ServiceAccountNameKey: "builder"}},
		Type:       corev1.SecretTypeServiceAccountToken,
	})
	token := s.filled(t, "builder-token", "token", "ca.crt", "namespace")["token"]
	s.expectUser(t, token, "builder")
	must(t, s.client.CoreV1().ServiceAccounts(s.namespace).Delete(t.Context(), "builder", metav1.DeleteOptions{}))
	eventually(t, "the Secret is gone", func(ctx context.Context) error {
		return absent(s.client.CoreV1().Secrets(s.namespace).Get(ctx, "builder-token", metav1.GetOptions{}))
	})
	s.expectRefused(t, token)
}

func reference(t *testing.T, s site) {
	t.Helper()
	s.createAccount(t, "keeper", "keeper-token-bcdfg", "theirs")
	s.createSecret(t, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "keeper-token-bcdfg", Annotations: map[string]string{corev1.ServiceAccountNameKey: "keeper"}},
		Type:       corev1.SecretTypeServiceAccountToken,
	})
	s.filled(t, "keeper-token-bcdfg", "token")
	must(t, s.client.CoreV1().Secrets(s.namespace).Delete(t.Context(), "keeper-token-bcdfg", metav1.DeleteOptions{}))
	eventually(t, "the reference is gone, and the other is not", func(ctx context.Context) error {
		account, err := s.client.CoreV1().ServiceAccounts(s.namespace).Get(ctx, "keeper", metav1.GetOptions{})
		if err == nil && (len(account.Secrets) != 1 || account.Secrets[0].Name != "theirs") {
			err = fmt.Errorf("secrets: %v", account.Secrets)
		}
		return err
	})
}

func podDefaults(t *testing.T, s site) {
	t.Helper()
	account := s.account(t, "default")
	patch := []byte(`{"imagePullSecrets":[{"name":"registry"}]}`)
	_, err := s.client.CoreV1().ServiceAccounts(s.namespace).Patch(t.Context(), account.Name, types.MergePatchType, patch, metav1.PatchOptions{})
	must(t, err)
	var pod *corev1.Pod
	eventually(t, "a pod with the pull secrets of its account", func(ctx context.Context) (err error) {
		if pod, err = s.createPod(ctx, corev1.PodSpec{}); err == nil && len(pod.Spec.ImagePullSecrets) == 0 {
			err = errors.New("it has none")
		}
		return err
	})
	if pod.Spec.ServiceAccountName != "default" || pod.Spec.ImagePullSecrets[0].Name != "registry" {
		t.Errorf("account %q, pull secrets %v", pod.Spec.ServiceAccountName, pod.Spec.ImagePullSecrets)
	}
	if len(pod.Spec.Volumes) != 1 || !strings.HasPrefix(pod.Spec.Volumes[0].Name, "kube-api-access-") || pod.Spec.Volumes[0].Projected == nil {
		t.Errorf("volumes %v", pod.Spec.Volumes)
	}
	mounts := pod.Spec.Containers[0].VolumeMounts
	if len(mounts) != 1 || mounts[0].MountPath != "/var/run/secrets/kubernetes.io/serviceaccount" || !mounts[0].ReadOnly {
		t.Errorf("mounts %v", mounts)
	}
}

func podOfNobody(t *testing.T, s site) {
	t.Helper()
	s.account(t, "default")
	eventually(t, "a pod of no account is refused", func(ctx context.Context) error { // the API server knows the webhook
		_, err := s.createPod(ctx, corev1.PodSpec{ServiceAccountName: "missing"})
		if err == nil {
			t.Fatal("it was created")
		}
		if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "error looking up service account "+s.namespace+"/missing") {
			return fmt.Errorf("got %w", err)
		}
		return nil
	})
}

func podSecrets(t *testing.T, s site) {
	t.Helper()
	s.createAccount(t, "strict")
	patch := []byte(`{"metadata":{"annotations":{"kubernetes.io/enforce-mountable-secrets":"true"}},"secrets":[{"name":"its-own"}]}`)
	_, err := s.client.CoreV1().ServiceAccounts(s.namespace).Patch(t.Context(), "strict", types.MergePatchType, patch, metav1.PatchOptions{})
	must(t, err)
	spec := func(secret string) corev1.PodSpec {
		return corev1.PodSpec{ServiceAccountName: "strict", Volumes: []corev1.Volume{{
			Name: "v", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: secret}},
		}}}
	}
	eventually(t, "a pod with a Secret of others is refused", func(ctx context.Context) error {
		switch _, err := s.createPod(ctx, spec("of-others")); {
		case err == nil:
			return errors.New("it was not")
		case apierrors.IsForbidden(err) && strings.Contains(err.Error(), "of-others"):
			return nil
		default:
			return err
		}
	})
	_, err = s.createPod(t.Context(), spec("its-own"))
	must(t, err)
}

func managedSecret(t *testing.T, s site) {
	t.Helper()
	s.createAccount(t, "ci")
	s.createSecret(t, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{
		Name: "ci", Labels: map[string]string{"sakeeper.io/token": "managed"},
		Annotations: map[string]string{"sakeeper.io/service-account": "ci", "sakeeper.io/lifetime": "10m"},
	}})
	first := s.filled(t, "ci", "token", "ca.crt", "namespace")["token"]
	s.expectUser(t, first, "ci")
	_, err := s.client.CoreV1().Secrets(s.namespace).Patch(t.Context(), "ci", types.MergePatchType, []byte(`{"metadata":{"annotations":{"sakeeper.io/rotate":"now"}}}`), metav1.PatchOptions{})
	must(t, err)
	var second string
	eventually(t, "another token", func(ctx context.Context) error {
		secret, err := s.client.CoreV1().Secrets(s.namespace).Get(ctx, "ci", metav1.GetOptions{})
		if err != nil {
			return err
		}
		if second = string(secret.Data["token"]); second == first {
			return errors.New("it is the first one")
		}
		return nil
	})
	s.expectUser(t, second, "ci")
	must(t, s.client.CoreV1().Secrets(s.namespace).Delete(t.Context(), "ci", metav1.DeleteOptions{}))
	s.expectRefused(t, second)
}

func (s site) account(t *testing.T, name string) *corev1.ServiceAccount {
	t.Helper()
	var account *corev1.ServiceAccount
	eventually(t, "account "+name, func(ctx context.Context) (err error) {
		account, err = s.client.CoreV1().ServiceAccounts(s.namespace).Get(ctx, name, metav1.GetOptions{})
		return err
	})
	return account
}

func (s site) createAccount(t *testing.T, name string, secrets ...string) {
	t.Helper()
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}
	for _, secret := range secrets {
		account.Secrets = append(account.Secrets, corev1.ObjectReference{Name: secret})
	}
	_, err := s.client.CoreV1().ServiceAccounts(s.namespace).Create(t.Context(), account, metav1.CreateOptions{})
	must(t, err)
}

func (s site) createSecret(t *testing.T, secret *corev1.Secret) {
	t.Helper()
	_, err := s.client.CoreV1().Secrets(s.namespace).Create(t.Context(), secret, metav1.CreateOptions{})
	must(t, err)
}

// createPod creates a pod that no node matches.
func (s site) createPod(ctx context.Context, spec corev1.PodSpec) (*corev1.Pod, error) {
	spec.NodeSelector = map[string]string{"sakeeper.io/no": "node"}
	spec.Containers = []corev1.Container{{Name: "c", Image: "none:0"}}
	return s.client.CoreV1().Pods(s.namespace).Create(ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{GenerateName: "p-"}, Spec: spec}, metav1.CreateOptions{})
}

// filled waits until a Secret has all keys, and returns its data.
func (s site) filled(t *testing.T, name string, keys ...string) map[string]string {
	t.Helper()
	data := map[string]string{}
	eventually(t, "secret "+name, func(ctx context.Context) error {
		secret, err := s.client.CoreV1().Secrets(s.namespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, key := range keys {
			if len(secret.Data[key]) == 0 {
				return fmt.Errorf("it has no %s", key)
			}
			data[key] = string(secret.Data[key])
		}
		return nil
	})
	return data
}

// WhoAmI returns the user name that the API server has for a token.
func WhoAmI(ctx context.Context, admin *rest.Config, token string) (string, error) {
	config := rest.AnonymousClientConfig(admin)
	config.BearerToken = token
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return "", err
	}
	review, err := client.AuthenticationV1().SelfSubjectReviews().Create(ctx, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err != nil {
		return "", err
	}
	return review.Status.UserInfo.Username, nil
}

func (s site) expectUser(t *testing.T, token, account string) {
	t.Helper()
	eventually(t, "the token of "+account, func(ctx context.Context) error {
		got, err := WhoAmI(ctx, s.admin, token)
		if want := "system:serviceaccount:" + s.namespace + ":" + account; err == nil && got != want {
			err = fmt.Errorf("it is that of %q, not of %q", got, want)
		}
		return err
	})
}

// expectRefused waits until the API server refuses a token. The API server caches accepted
// tokens for ten seconds.
func (s site) expectRefused(t *testing.T, token string) {
	t.Helper()
	eventually(t, "the token is refused", func(ctx context.Context) error {
		switch user, err := WhoAmI(ctx, s.admin, token); {
		case err == nil:
			return errors.New("it is still that of " + user)
		case apierrors.IsUnauthorized(err):
			return nil
		default:
			return err
		}
	})
}

func absent(_ any, err error) error {
	switch {
	case err == nil:
		return errors.New("it is still there")
	case apierrors.IsNotFound(err):
		return nil
	}
	return err
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually waits until check returns nil, and fails with its last error.
func eventually(t *testing.T, what string, check func(ctx context.Context) error) {
	t.Helper()
	testkit.Await(t, 50*time.Millisecond, patience, what, check)
}
