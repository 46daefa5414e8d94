package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/sakeeper/sakeeper/pkg/api"
)

// actions do each step. An error means that it did not happen, or perhaps not: a user gives up.
var actions = map[string]func(context.Context, *world, step) error{
	"create-namespace":    createNamespace,
	"delete-namespace":    deleteNamespace,
	"create-account":      createAccount,
	"delete-account":      deleteAccount,
	"replace-account":     replaceAccount,
	"create-token-secret": createTokenSecret,
	"create-managed":      createManaged,
	"create-foreign":      createForeign,
	"delete-secret":       deleteSecret,
	"damage-token-secret": damageTokenSecret,
	"damage-managed":      damageManaged,
	"refer":               refer,
	"delete-root-ca":      deleteRootCA,
	"damage-root-ca":      damageRootCA,
	"create-pod":          createPod,
	"request-token":       requestToken,

	"pause": pause, "kill": kill, "restart": restart, "freeze": freeze, "thaw": thaw, "cut": cut, "silence": silence, "heal": heal,
	"rotate-key": rotateKey, "change-ca": changeCA, "foreign-ca": foreignCA, "set-clock": setClock,
	"kill-server": killServer, "freeze-server": freezeServer, "kill-etcd": killEtcd, "save-etcd": saveEtcd, "restore-etcd": restoreEtcd,
}

func key(namespace, name string) string { return namespace + "/" + name }
func namespaceOf(key string) string     { namespace, _, _ := strings.Cut(key, "/"); return namespace }

func createNamespace(ctx context.Context, w *world, s step) error {
	_, err := w.client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{
		ObjectMeta: metav1.ObjectMeta{Name: s.arg(0), Labels: map[string]string{api.TokenRequestsLabel: api.TokenRequestsAllowed}},
	}, metav1.CreateOptions{})
	return err
}

func deleteNamespace(ctx context.Context, w *world, s step) error {
	w.model.forgetNamespace(s.arg(0))
	return w.client.CoreV1().Namespaces().Delete(ctx, s.arg(0), metav1.DeleteOptions{})
}

func createAccount(ctx context.Context, w *world, s step) error {
	created, err := w.client.CoreV1().ServiceAccounts(s.arg(0)).Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: s.arg(1)}}, metav1.CreateOptions{})
	if err == nil {
		w.model.setAccount(key(s.arg(0), s.arg(1)), thing{UID: string(created.UID)})
	}
	return err
}

func deleteAccount(ctx context.Context, w *world, s step) error {
	w.model.forgetAccount(key(s.arg(0), s.arg(1)))
	return w.client.CoreV1().ServiceAccounts(s.arg(0)).Delete(ctx, s.arg(1), metav1.DeleteOptions{})
}

func replaceAccount(ctx context.Context, w *world, s step) error {
	if err := deleteAccount(ctx, w, s); err != nil {
		return err
	}
	return createAccount(ctx, w, s)
}

// owner returns the account of a Secret, with its UID if it lives. Only users delete accounts and
// namespaces.
func (w *world) owner(ctx context.Context, namespace, name string) (account, uid string) {
	account = key(namespace, name)
	if known, ok := w.model.Accounts[account]; ok {
		return account, known.UID
	}
	found, err1 := w.client.CoreV1().ServiceAccounts(namespace).Get(ctx, name, metav1.GetOptions{})
	in, err2 := w.client.CoreV1().Namespaces().Get(ctx, namespace, metav1.GetOptions{})
	if err1 != nil || err2 != nil || in.DeletionTimestamp != nil {
		return account, ""
	}
	w.model.setAccount(account, thing{UID: string(found.UID)})
	return account, string(found.UID)
}

func createTokenSecret(ctx context.Context, w *world, s step) error {
	return w.create(ctx, s, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: s.arg(1), Annotations: map[string]string{corev1.ServiceAccountNameKey: s.arg(2)}},
		Type:       corev1.SecretTypeServiceAccountToken,
	})
}

func createManaged(ctx context.Context, w *world, s step) error {
	return w.create(ctx, s, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{
		Name: s.arg(1), Labels: map[string]string{api.TokenLabel: api.TokenManaged},
		Annotations: map[string]string{api.ServiceAccountAnnotation: s.arg(2), api.LifetimeAnnotation: "10m"},
	}})
}

// create creates a Secret of an account.
func (w *world) create(ctx context.Context, s step, secret *corev1.Secret) error {
	account, uid := w.owner(ctx, s.arg(0), s.arg(2))
	created, err := w.client.CoreV1().Secrets(s.arg(0)).Create(ctx, secret, metav1.CreateOptions{})
	if err == nil && uid != "" {
		w.model.setSecret(key(s.arg(0), s.arg(1)), thing{UID: string(created.UID), Account: account, AccountUID: uid})
	}
	return err
}

func createForeign(ctx context.Context, w *world, s step) error {
	content := map[string]string{"username": s.arg(1), "password": newName()}
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: s.arg(1), Annotations: map[string]string{"mine": "yes"}},
		Type:       corev1.SecretType(s.arg(2)), StringData: content,
	}
	if strings.HasPrefix(s.arg(2), "kubernetes.io/") { // which gets no token, also if it asks for one
		secret.Labels = map[string]string{api.TokenLabel: api.TokenManaged}
		secret.Annotations[api.ServiceAccountAnnotation] = "default"
	}
	created, err := w.client.CoreV1().Secrets(s.arg(0)).Create(ctx, secret, metav1.CreateOptions{})
	if err == nil {
		w.model.setSecret(key(s.arg(0), s.arg(1)), thing{UID: string(created.UID), Content: content, Type: s.arg(2)})
	}
	return err
}

func deleteSecret(ctx context.Context, w *world, s step) error {
	w.model.forgetSecret(key(s.arg(0), s.arg(1)))
	return w.client.CoreV1().Secrets(s.arg(0)).Delete(ctx, s.arg(1), metav1.DeleteOptions{})
}

// patchSecret sets keys of the data; nil removes one.
func (w *world) patchSecret(ctx context.Context, s step, patch string) error {
	_, err := w.client.CoreV1().Secrets(s.arg(0)).Patch(ctx, s.arg(1), types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	return err
}

func damageTokenSecret(ctx context.Context, w *world, s step) error {
	switch s.arg(2) {
	case "exchange": // with the token of another Secret
		return w.exchange(ctx, s)
	case "token":
		return w.patchSecret(ctx, s, `{"data":{"token":null}}`)
	default:
		return w.patchSecret(ctx, s, fmt.Sprintf(`{"data":{%q:"d3Jvbmc="}}`, s.arg(2)))
	}
}

// exchange writes the token of another Secret into this one.
func (w *world) exchange(ctx context.Context, s step) error {
	list, err := w.client.CoreV1().Secrets(s.arg(0)).List(ctx, metav1.ListOptions{FieldSelector: "type=" + string(corev1.SecretTypeServiceAccountToken)})
	if err != nil {
		return err
	}
	for _, other := range list.Items {
		if token := other.Data[corev1.ServiceAccountTokenKey]; other.Name != s.arg(1) && len(token) > 0 {
			mine := slices.IndexFunc(list.Items, func(secret corev1.Secret) bool { return secret.Name == s.arg(1) })
			if mine < 0 || len(list.Items[mine].Data[corev1.ServiceAccountTokenKey]) == 0 {
				return errors.New("no token to exchange")
			}
			changed := list.Items[mine].DeepCopy()
			changed.Data[corev1.ServiceAccountTokenKey] = token
			_, err := w.client.CoreV1().Secrets(s.arg(0)).Update(ctx, changed, metav1.UpdateOptions{})
			return err
		}
	}
	return errors.New("no other token")
}

func damageManaged(ctx context.Context, w *world, s step) error {
	switch s.arg(2) {
	case "rotate":
		return w.patchSecret(ctx, s, fmt.Sprintf(`{"metadata":{"annotations":{%q:%q}}}`, api.RotateAnnotation, newName()))
	case "expired":
		past := time.Now().Add(-time.Hour).UTC()
		return w.patchSecret(ctx, s, fmt.Sprintf(`{"metadata":{"annotations":{%q:%q,%q:%q}}}`, api.IssuedAtAnnotation, past.Format(time.RFC3339),
			api.ExpiresAtAnnotation, past.Add(10*time.Minute).Format(time.RFC3339)))
	case "token":
		return w.patchSecret(ctx, s, `{"data":{"token":null}}`)
	default:
		// What is there before the token is the user's, and stays.
		if found, err := w.client.CoreV1().Secrets(s.arg(0)).Get(ctx, s.arg(1), metav1.GetOptions{}); err != nil || found.Annotations[api.FilledHashAnnotation] == "" {
			return errors.Join(err, errors.New("no token to damage"))
		}
		return w.patchSecret(ctx, s, fmt.Sprintf(`{"data":{%q:"d3Jvbmc="}}`, s.arg(2)))
	}
}

// refer adds a Secret to the list of an account.
func refer(ctx context.Context, w *world, s step) error {
	core := w.client.CoreV1().ServiceAccounts(s.arg(0))
	account, err := core.Get(ctx, s.arg(1), metav1.GetOptions{})
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(account.Secrets, func(r corev1.ObjectReference) bool { return r.Name == s.arg(2) }) {
		account.Secrets = append(account.Secrets, corev1.ObjectReference{Name: s.arg(2)})
		if _, err := core.Update(ctx, account, metav1.UpdateOptions{}); err != nil {
			return err
		}
	}
	name := key(s.arg(0), s.arg(1))
	_, exists := w.model.Secrets[key(s.arg(0), s.arg(2))]
	if known := w.model.Accounts[name]; exists && known.UID == string(account.UID) && !slices.Contains(known.Refers, s.arg(2)) {
		known.Refers = append(known.Refers, s.arg(2))
		w.model.setAccount(name, known)
	}
	return nil
}

func deleteRootCA(ctx context.Context, w *world, s step) error {
	return w.client.CoreV1().ConfigMaps(s.arg(0)).Delete(ctx, api.RootCAConfigMap, metav1.DeleteOptions{})
}

func damageRootCA(ctx context.Context, w *world, s step) error {
	_, err := w.client.CoreV1().ConfigMaps(s.arg(0)).Patch(ctx, api.RootCAConfigMap, types.MergePatchType, []byte(`{"data":{"ca.crt":"wrong"}}`), metav1.PatchOptions{})
	return err
}

// createPod creates a pod that never runs. The webhook must give it a token.
func createPod(ctx context.Context, w *world, s step) error {
	created, err := w.client.CoreV1().Pods(s.arg(0)).Create(ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "p-"},
		Spec:       corev1.PodSpec{ServiceAccountName: s.arg(1), Containers: []corev1.Container{{Name: "c", Image: "none:0"}}},
	}, metav1.CreateOptions{})
	if apierrors.IsForbidden(err) || err != nil {
		return err
	}
	if !slices.ContainsFunc(created.Spec.Volumes, func(v corev1.Volume) bool { return strings.HasPrefix(v.Name, "kube-api-access-") }) {
		w.secrets.add(violation{"pod", fmt.Sprintf("pod %s/%s was admitted without a token", created.Namespace, created.Name)})
	}
	return w.client.CoreV1().Pods(s.arg(0)).Delete(ctx, created.Name, metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)})
}

func requestToken(ctx context.Context, w *world, s step) error {
	account, uid := w.owner(ctx, s.arg(0), s.arg(1))
	if uid == "" {
		return errors.New("the account is not known")
	}
	answer, err := w.client.CoreV1().ServiceAccounts(s.arg(0)).CreateToken(ctx, s.arg(1), &authenticationv1.TokenRequest{
		Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: ptr.To[int64](3600)},
	}, metav1.CreateOptions{})
	if err == nil {
		w.model.Tokens = append(w.model.Tokens, bound{account, uid, answer.Status.Token})
	}
	return err
}
