package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/keys"
	"github.com/sakeeper/sakeeper/pkg/testkit"
	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
	"github.com/sakeeper/sakeeper/pkg/token"
)

// later is how long after the seeding the commands are run, by their clock. The API server began to
// record uses of tokens at the seeding.
const later = 400*24*time.Hour + 12*time.Hour

// seeded is a cluster that has each verdict and each reach.
type seeded struct {
	*controlplane.ControlPlane

	client     kubernetes.Interface
	kubeconfig string
	now        time.Time
	// sensitive are the tokens, their signatures and the private key: no output may have them.
	sensitive []string
	keyIDs    map[string]string // by id, what golden files have
	own, old  *token.Signer
}

func startSeeded(t *testing.T) *seeded {
	t.Helper()
	cp, err := controlplane.Start(controlplane.Options{Dir: t.TempDir()})
	mustNil(t, err)
	t.Cleanup(func() {
		if err := cp.Stop(); err != nil {
			t.Error(err)
		}
	})
	s := &seeded{ControlPlane: cp, client: kubernetes.NewForConfigOrDie(cp.Admin), now: time.Now().Add(later), keyIDs: map[string]string{}}
	s.kubeconfig, err = cp.Kubeconfig("admin.kubeconfig", cp.Admin)
	mustNil(t, err)
	s.own, s.old = s.signers(t)
	s.seedAccounts(t)
	s.seedTokens(t)
	s.seedManaged(t)
	s.seedCopies(t)
	return s
}

// signers are one with the key of the API server, and one with a key that it does not have.
func (s *seeded) signers(t *testing.T) (own, old *token.Signer) {
	t.Helper()
	set, err := keys.Files{PrivateKeyFile: s.SigningKeyFile}.Load()
	mustNil(t, err)
	pem, err := os.ReadFile(s.SigningKeyFile)
	mustNil(t, err)
	for line := range strings.SplitSeq(string(pem), "\n") {
		if len(line) > 60 {
			s.sensitive = append(s.sensitive, line)
		}
	}
	former := testkit.Keys("rsa2048")
	s.keyIDs[set.Signing().String()], s.keyIDs[former.Signing().String()] = padded("current-key"), padded("former-key")
	return token.NewSigner(func() *keys.Set { return set }), token.NewSigner(func() *keys.Set { return former })
}

// padded is as long as a key id, so that tables stay as they are.
func padded(text string) string { return text + strings.Repeat("_", 43-len(text)) }

func (s *seeded) account(t *testing.T, name string) *corev1.ServiceAccount {
	t.Helper()
	namespace, name, _ := strings.Cut(name, "/")
	created, err := s.client.CoreV1().ServiceAccounts(namespace).Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}, metav1.CreateOptions{})
	mustNil(t, err)
	return created
}

// grant lets an account do something: everywhere, or in a namespace.
func (s *seeded) grant(t *testing.T, namespace, account, verbs, group, resources string) {
	t.Helper()
	accountNamespace, name, _ := strings.Cut(account, "/")
	role := "for-" + accountNamespace + "-" + name
	rules := []rbacv1.PolicyRule{{Verbs: strings.Split(verbs, ","), APIGroups: []string{group}, Resources: strings.Split(resources, ",")}}
	create(t, s.client.RbacV1().ClusterRoles().Create, &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: role}, Rules: rules})
	ref := rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role}
	subjects := []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: accountNamespace, Name: name}}
	if namespace == "" {
		create(t, s.client.RbacV1().ClusterRoleBindings().Create, &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: role}, RoleRef: ref, Subjects: subjects})
		return
	}
	create(t, s.client.RbacV1().RoleBindings(namespace).Create, &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Name: role}, RoleRef: ref, Subjects: subjects})
}

func (s *seeded) seedAccounts(t *testing.T) {
	t.Helper()
	for _, namespace := range []string{"ci", "shop"} {
		create(t, s.client.CoreV1().Namespaces().Create, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}})
	}
	for _, name := range []string{"ci/root", "ci/deployer", "ci/backup", "ci/former", "ci/deleted", "ci/odd", "shop/web", "shop/monitor", "shop/idle"} {
		s.account(t, name)
	}
	s.grant(t, "", "ci/root", "*", "*", "*")
	s.grant(t, "kube-system", "ci/deployer", "create,patch", "apps", "deployments")
	s.grant(t, "shop", "ci/backup", "get,list", "", "secrets")
	s.grant(t, "shop", "shop/web", "get,update", "", "configmaps")
	s.grant(t, "", "shop/monitor", "get,list,watch", "", "nodes,pods")
}

// legacy creates a token Secret, and returns its token.
func (s *seeded) legacy(t *testing.T, signer *token.Signer, account, secret string, change func(*corev1.Secret)) string {
	t.Helper()
	namespace, name, _ := strings.Cut(account, "/")
	sa, err := s.client.CoreV1().ServiceAccounts(namespace).Get(t.Context(), name, metav1.GetOptions{})
	mustNil(t, err)
	compact, err := signer.SignLegacy(t.Context(), token.LegacyClaims{Namespace: namespace, SecretName: secret, ServiceAccountName: name, ServiceAccountUID: string(sa.UID)})
	mustNil(t, err)
	s.secret(t, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: secret, Annotations: map[string]string{corev1.ServiceAccountNameKey: name, corev1.ServiceAccountUIDKey: string(sa.UID)}},
		Type:       corev1.SecretTypeServiceAccountToken, Data: map[string][]byte{corev1.ServiceAccountTokenKey: []byte(compact)},
	}, compact, change)
	return compact
}

func (s *seeded) secret(t *testing.T, secret *corev1.Secret, compact string, change func(*corev1.Secret)) {
	t.Helper()
	if change != nil {
		change(secret)
	}
	create(t, s.client.CoreV1().Secrets(secret.Namespace).Create, secret)
	s.sensitive = append(s.sensitive, compact, compact[strings.LastIndex(compact, ".")+1:])
}

func (s *seeded) lastUsed(daysAgo int) func(*corev1.Secret) {
	return func(secret *corev1.Secret) {
		secret.Labels = map[string]string{token.LastUsedLabel: s.now.AddDate(0, 0, -daysAgo).Format(time.DateOnly)}
	}
}

func (s *seeded) seedTokens(t *testing.T) {
	t.Helper()
	s.legacy(t, s.own, "ci/root", "root-token", nil)
	s.legacy(t, s.own, "ci/deployer", "deployer-token", s.lastUsed(3))
	s.legacy(t, s.own, "ci/backup", "backup-token", func(secret *corev1.Secret) {
		s.lastUsed(200)(secret)
		secret.Labels[token.InvalidSinceLabel] = s.now.AddDate(0, 0, -9).Format(time.DateOnly)
	})
	s.legacy(t, s.old, "ci/former", "former-token", nil)
	s.legacy(t, s.own, "ci/deleted", "deleted-token", nil)
	mustNil(t, s.client.CoreV1().ServiceAccounts("ci").Delete(t.Context(), "deleted", metav1.DeleteOptions{}))
	s.legacy(t, s.own, "ci/odd", "odd-token", func(secret *corev1.Secret) { secret.Labels = map[string]string{token.LastUsedLabel: "yesterday"} })
	s.legacy(t, s.own, "shop/web", "web-token", nil)
	s.pod(t, "web-1", "web-token")
	s.pod(t, "web-2", "web-token")
	web, err := s.client.CoreV1().ServiceAccounts("shop").Get(t.Context(), "web", metav1.GetOptions{})
	mustNil(t, err)
	web.Secrets = []corev1.ObjectReference{{Name: "web-token"}}
	_, err = s.client.CoreV1().ServiceAccounts("shop").Update(t.Context(), web, metav1.UpdateOptions{})
	mustNil(t, err)
}

// pod creates a pod of the DaemonSet web that mounts a Secret.
func (s *seeded) pod(t *testing.T, name, secret string) {
	t.Helper()
	yes := true
	create(t, s.client.CoreV1().Pods("shop").Create, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "DaemonSet", Name: "web", UID: types.UID("web"), Controller: &yes}}},
		Spec: corev1.PodSpec{
			Containers: []corev1.Container{{Name: "web", Image: "web"}},
			Volumes:    []corev1.Volume{{Name: "token", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: secret}}}},
		},
	})
}

// bound requests a token, which is bound to a Secret if one is given.
func (s *seeded) bound(t *testing.T, account string, lifetime time.Duration, to *corev1.Secret) string {
	t.Helper()
	namespace, name, _ := strings.Cut(account, "/")
	seconds := int64(lifetime / time.Second)
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &seconds}}
	if to != nil {
		request.Spec.BoundObjectRef = &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Secret", Name: to.Name, UID: to.UID}
	}
	granted, err := s.client.CoreV1().ServiceAccounts(namespace).CreateToken(t.Context(), name, request, metav1.CreateOptions{})
	mustNil(t, err)
	return granted.Status.Token
}

// seedManaged makes Secrets as the token-request controller does.
func (s *seeded) seedManaged(t *testing.T) {
	t.Helper()
	managed := func(name, account string, lifetime time.Duration) {
		empty := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, Labels: map[string]string{api.TokenLabel: api.TokenManaged}}}
		created, err := s.client.CoreV1().Secrets("shop").Create(t.Context(), empty, metav1.CreateOptions{})
		mustNil(t, err)
		compact := s.bound(t, account, lifetime, created)
		created.Data = map[string][]byte{"kubeconfig": []byte("apiVersion: v1\nkind: Config\nusers:\n- name: me\n  user: {token: \"" + compact + "\"}\n")}
		_, err = s.client.CoreV1().Secrets("shop").Update(t.Context(), created, metav1.UpdateOptions{})
		mustNil(t, err)
		s.sensitive = append(s.sensitive, compact, compact[strings.LastIndex(compact, ".")+1:])
	}
	managed("monitor-kubeconfig", "shop/monitor", 10*365*24*time.Hour)
	managed("idle-kubeconfig", "shop/idle", time.Hour)
}

// seedCopies makes Secrets that only --deep finds, and garbage.
func (s *seeded) seedCopies(t *testing.T) {
	t.Helper()
	deployer, err := s.client.CoreV1().Secrets("ci").Get(t.Context(), "deployer-token", metav1.GetOptions{})
	mustNil(t, err)
	compact := string(deployer.Data[corev1.ServiceAccountTokenKey])
	s.secret(t, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "argocd-cluster", Labels: map[string]string{"argocd.argoproj.io/secret-type": "cluster"}},
		Data:       map[string][]byte{"config": []byte(`{"bearerToken":"` + compact + `","tlsClientConfig":{"insecure":false}}`)},
	}, compact, nil)
	gone := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "ci", Name: "gone"}}
	gone, err = s.client.CoreV1().Secrets("ci").Create(t.Context(), gone, metav1.CreateOptions{})
	mustNil(t, err)
	bound := s.bound(t, "ci/root", 10*365*24*time.Hour, gone)
	mustNil(t, s.client.CoreV1().Secrets("ci").Delete(t.Context(), "gone", metav1.DeleteOptions{}))
	s.secret(t, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "ci", Name: "env"}, Data: map[string][]byte{".env": []byte("KUBE_TOKEN=" + bound + "\n")}}, bound, nil)
	garbage := strings.Repeat("eyJ.", 1<<18-100)
	create(t, s.client.CoreV1().Secrets("ci").Create, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "garbage"}, Data: map[string][]byte{"garbage": []byte(garbage)}})
	broken := "eyJhbGciOiJSUzI1NiJ9." + "eyJpc3MiOjEyM30" + ".AAAA"
	create(t, s.client.CoreV1().Secrets("ci").Create, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "broken"}, Data: map[string][]byte{"jwt": []byte(broken)}})
}

// user returns a kubeconfig of a user who may do only this.
func (s *seeded) user(t *testing.T, name string, rules ...rbacv1.PolicyRule) string {
	t.Helper()
	config, err := s.User(name)
	mustNil(t, err)
	create(t, s.client.RbacV1().ClusterRoles().Create, &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: rules})
	create(t, s.client.RbacV1().ClusterRoleBindings().Create, &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name},
		Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: name}},
	})
	client := kubernetes.NewForConfigOrDie(config)
	testkit.Await(t, 50*time.Millisecond, time.Minute, "the rights of "+name, func(ctx context.Context) error {
		_, err := client.CoreV1().Secrets("").List(ctx, metav1.ListOptions{Limit: 1, FieldSelector: "metadata.name=none"})
		return err
	})
	path, err := s.Kubeconfig(name+".kubeconfig", config)
	mustNil(t, err)
	return filepath.Clean(path)
}

func create[T any](t *testing.T, create func(context.Context, T, metav1.CreateOptions) (T, error), object T) {
	t.Helper()
	if _, err := create(t.Context(), object, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
}

func mustNil(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
