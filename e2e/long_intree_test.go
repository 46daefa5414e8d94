package e2e

import (
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sakeeper/sakeeper/pkg/keys"
	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
	"github.com/sakeeper/sakeeper/pkg/token"
)

// TestLongComparisonWithInTree makes the same changes in a cluster with kube-controller-manager
// and in one with sakeeper, and compares the objects.
func TestLongComparisonWithInTree(t *testing.T) {
	inTree, ours := newControlPlane(t), newControlPlane(t)
	mustStartManager(t, inTree, controlplane.ControllerManager{SigningKey: true, Controllers: []string{
		"serviceaccount-controller", "serviceaccount-token-controller", "root-ca-certificate-publisher-controller",
		"namespace-controller",
	}})
	mustStartManager(t, ours, controlplane.ControllerManager{Controllers: []string{"namespace-controller"}})
	// In-tree keeps tokens that are none, which sakeeper reviews and replaces.
	startReadySakeeper(t, ours.sakeeperArgs(t, "--resign-tokens=never"))

	for _, step := range history() {
		alike := t.Run(step.name, func(t *testing.T) {
			for _, p := range []controlPlane{inTree, ours} {
				step.do(t, p)
				expectPlaneSettled(t, p)
			}
			eventually(t, "both clusters are alike", func(ctx context.Context) error {
				want, err := snapshot(ctx, inTree)
				if err != nil {
					return err
				}
				got, err := snapshot(ctx, ours)
				if err != nil {
					return err
				}
				if diff := cmp.Diff(want, got); diff != "" {
					return fmt.Errorf("(-in-tree +sakeeper):\n%s", diff)
				}
				return nil
			})
		})
		if !alike {
			t.Fatal("the steps after this one build on it")
		}
	}
	t.Run("tokens are the same to the byte", func(t *testing.T) { expectSameBytes(t, inTree) })
}

func mustStartManager(t *testing.T, p controlPlane, m controlplane.ControllerManager) {
	t.Helper()
	stop, err := p.StartControllerManager(m)
	must(t, err)
	t.Cleanup(func() { _ = stop() })
}

// expectPlaneSettled creates a Secret, and waits until it is filled.
func expectPlaneSettled(t *testing.T, p controlPlane) {
	t.Helper()
	account := expectAccount(t, p.client, "kube-public", "default")
	_ = p.client.CoreV1().Secrets("kube-public").Delete(t.Context(), "barrier", metav1.DeleteOptions{}) // that of the previous step
	mustCreateSecret(t, p.client, "kube-public", tokenSecret("barrier", "default"))
	expectFilled(t, p.client, "kube-public", "barrier", account, p.Admin.CAData)
}

type step struct {
	name string
	do   func(*testing.T, controlPlane)
}

func history() []step {
	const ns = "team"
	secret := func(name, account string, change func(*corev1.Secret)) func(*testing.T, controlPlane) {
		return func(t *testing.T, p controlPlane) {
			s := tokenSecret(name, account)
			change(s)
			mustCreateSecret(t, p.client, ns, s)
		}
	}
	change := func(name string, change func(*corev1.Secret)) func(*testing.T, controlPlane) {
		return func(t *testing.T, p controlPlane) {
			s, err := p.client.CoreV1().Secrets(ns).Get(t.Context(), name, metav1.GetOptions{})
			must(t, err)
			change(s)
			_, err = p.client.CoreV1().Secrets(ns).Update(t.Context(), s, metav1.UpdateOptions{})
			must(t, err)
		}
	}
	changeCA := func(change func(*corev1.ConfigMap)) func(*testing.T, controlPlane) {
		return func(t *testing.T, p controlPlane) {
			cm, err := p.client.CoreV1().ConfigMaps(ns).Get(t.Context(), "kube-root-ca.crt", metav1.GetOptions{})
			must(t, err)
			change(cm)
			_, err = p.client.CoreV1().ConfigMaps(ns).Update(t.Context(), cm, metav1.UpdateOptions{})
			must(t, err)
		}
	}
	deleteAccount := func(name string) func(*testing.T, controlPlane) {
		return func(t *testing.T, p controlPlane) {
			must(t, p.client.CoreV1().ServiceAccounts(ns).Delete(t.Context(), name, metav1.DeleteOptions{}))
		}
	}
	deleteSecret := func(name string) func(*testing.T, controlPlane) {
		return func(t *testing.T, p controlPlane) {
			must(t, p.client.CoreV1().Secrets(ns).Delete(t.Context(), name, metav1.DeleteOptions{}))
		}
	}
	return []step{
		{"namespace", func(t *testing.T, p controlPlane) {
			_, err := p.client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}}, metav1.CreateOptions{})
			must(t, err)
			expectAccount(t, p.client, ns, "default")
			expectRootCA(t, p.client, ns, p.Admin.CAData)
		}},
		{"accounts", func(t *testing.T, p controlPlane) {
			mustCreateAccount(t, p.client, ns, "builder", "plain", "rich", "opaque", "never")
			mustCreateAccount(t, p.client, ns, "tester")
			mustCreateAccount(t, p.client, ns, "leaver")
		}},
		{"plain token secret", secret("plain", "builder", func(*corev1.Secret) {})},
		{"token secret with data and labels of the user", secret("rich", "builder", func(s *corev1.Secret) {
			s.Labels = map[string]string{"mine": "yes"}
			s.Annotations["mine"] = "yes"
			s.Data = map[string][]byte{"mine": []byte("yes"), "ca.crt": []byte("wrong")}
		})},
		{"token secret with a token of the user", secret("own-token", "builder", func(s *corev1.Secret) {
			s.Data = map[string][]byte{"token": []byte("mine")}
		})},
		{"immutable token secret", secret("immutable", "builder", func(s *corev1.Secret) { s.Immutable = new(true) })},
		// With a UID: without one, sakeeper waits five seconds for the account.
		{"token secret of nobody", secret("orphan", "nobody", func(s *corev1.Secret) {
			s.Annotations[corev1.ServiceAccountUIDKey] = "00000000-0000-0000-0000-000000000000"
		})},
		{"token secret of another uid", secret("stranger", "builder", func(s *corev1.Secret) {
			s.Annotations[corev1.ServiceAccountUIDKey] = "00000000-0000-0000-0000-000000000000"
		})},
		{"secret of another type with the annotations", func(t *testing.T, p controlPlane) {
			s := tokenSecret("opaque", "leaver")
			s.Type = corev1.SecretTypeOpaque
			mustCreateSecret(t, p.client, ns, s)
		}},
		{"token secret of the leaver", secret("of-leaver", "leaver", func(*corev1.Secret) {})},
		{"token secret with a generated name", secret("tester-token-bcdfg", "tester", func(*corev1.Secret) {})},
		// Only now: sakeeper removes a generated name whose Secret does not exist.
		{"its reference", func(t *testing.T, p controlPlane) {
			account := expectAccount(t, p.client, ns, "tester")
			account.Secrets = []corev1.ObjectReference{{Name: "tester-token-bcdfg"}}
			_, err := p.client.CoreV1().ServiceAccounts(ns).Update(t.Context(), account, metav1.UpdateOptions{})
			must(t, err)
		}},
		{"ca.crt is changed", change("plain", func(s *corev1.Secret) { s.Data["ca.crt"] = []byte("wrong") })},
		{"namespace is removed", change("plain", func(s *corev1.Secret) { delete(s.Data, "namespace") })},
		{"token is removed", change("plain", func(s *corev1.Secret) { delete(s.Data, "token") })},
		{"token is changed", change("rich", func(s *corev1.Secret) { s.Data["token"] = []byte("mine") })},
		{"uid annotation is removed", change("plain", func(s *corev1.Secret) { delete(s.Annotations, corev1.ServiceAccountUIDKey) })},
		{"ca.crt is removed as well", change("plain", func(s *corev1.Secret) { delete(s.Data, "ca.crt") })},
		{"secret is given to an account of another uid", change("own-token", func(s *corev1.Secret) {
			s.Annotations[corev1.ServiceAccountNameKey] = "tester"
		})},
		{"root CA is changed", changeCA(func(cm *corev1.ConfigMap) { cm.Data["ca.crt"] = "wrong" })},
		{"root CA gets more keys", changeCA(func(cm *corev1.ConfigMap) {
			cm.Data["more"] = "x"
			cm.BinaryData = map[string][]byte{"binary": {1}}
			cm.Labels = map[string]string{"mine": "yes"}
		})},
		{"root CA gets another description", changeCA(func(cm *corev1.ConfigMap) {
			cm.Annotations["kubernetes.io/description"] = "mine"
		})},
		{"root CA with another description is changed", changeCA(func(cm *corev1.ConfigMap) { cm.Data = nil })},
		{"root CA loses its description", changeCA(func(cm *corev1.ConfigMap) { cm.Annotations = nil })},
		// In another namespace: after five changes of one object, sakeeper would back off.
		{"root CA is deleted", func(t *testing.T, p controlPlane) {
			must(t, p.client.CoreV1().ConfigMaps(metav1.NamespacePublic).Delete(t.Context(), "kube-root-ca.crt", metav1.DeleteOptions{}))
			expectRootCA(t, p.client, metav1.NamespacePublic, p.Admin.CAData)
		}},
		{"default account is deleted", func(t *testing.T, p controlPlane) {
			deleteAccount("default")(t, p)
			expectAccount(t, p.client, ns, "default")
		}},
		{"referenced secret is deleted", deleteSecret("rich")},
		{"referenced secret of another type is deleted", deleteSecret("opaque")},
		{"secret with a generated name is deleted", deleteSecret("tester-token-bcdfg")},
		{"leaver leaves", deleteAccount("leaver")},
		{"builder is replaced", func(t *testing.T, p controlPlane) {
			deleteAccount("builder")(t, p)
			expectGone(t, p.client, ns, "plain")
			// It names no UID, because it could not be filled: sakeeper gives its account 5 s to appear.
			expectGone(t, p.client, ns, "immutable")
			mustCreateAccount(t, p.client, ns, "builder")
		}},
		{"the new builder gets a token", secret("plain", "builder", func(*corev1.Secret) {})},
		{"namespace goes", func(t *testing.T, p controlPlane) {
			must(t, p.client.CoreV1().Namespaces().Delete(t.Context(), ns, metav1.DeleteOptions{}))
		}},
	}
}

// snapshot is all objects that the controllers write, with placeholders for values that differ
// between any two clusters.
func snapshot(ctx context.Context, p controlPlane) (map[string]any, error) {
	accounts, err := p.client.CoreV1().ServiceAccounts("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	secrets, err := p.client.CoreV1().Secrets("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	configMaps, err := p.client.CoreV1().ConfigMaps("").List(ctx, metav1.ListOptions{FieldSelector: "metadata.name=kube-root-ca.crt"})
	if err != nil {
		return nil, err
	}
	words := words{uids: map[types.UID]string{}, ca: string(p.Admin.CAData)}
	world := map[string]any{}
	for _, a := range accounts.Items {
		if a.Namespace == controlplane.Namespace && a.Name == controlplane.Account {
			continue
		}
		words.uids[a.UID] = "uid of " + a.Name
		world["service account "+a.Namespace+"/"+a.Name] = []any{a.Labels, a.Annotations, references(&a), a.ImagePullSecrets}
	}
	for _, cm := range configMaps.Items {
		world["config map "+cm.Namespace+"/"+cm.Name] = []any{cm.Labels, cm.Annotations, words.ofStrings(cm.Data), cm.BinaryData}
	}
	for _, s := range secrets.Items {
		delete(s.Labels, "kubernetes.io/legacy-token-last-used") // written by the API server
		if len(s.Labels) == 0 {
			s.Labels = nil
		}
		annotations := map[string]string{}
		for key, value := range s.Annotations {
			annotations[key] = words.of(value)
		}
		data := map[string]string{}
		for key, value := range s.Data {
			data[key] = words.of(string(value))
		}
		world["secret "+s.Namespace+"/"+s.Name] = []any{s.Type, s.Labels, annotations, data, s.Immutable}
	}
	return world, nil
}

// words replaces UIDs, the CA and tokens by placeholders.
type words struct {
	uids map[types.UID]string
	ca   string
}

func (w words) ofStrings(data map[string]string) map[string]string {
	named := map[string]string{}
	for key, value := range data {
		named[key] = w.of(value)
	}
	return named
}

func (w words) of(value string) string {
	if value == w.ca {
		return "the CA"
	}
	if name, ok := w.uids[types.UID(value)]; ok {
		return name
	}
	parts := strings.Split(value, ".")
	payload, err := base64.RawURLEncoding.DecodeString(parts[min(1, len(parts)-1)])
	if len(parts) != 3 || err != nil {
		return value
	}
	claims := string(payload)
	for uid, name := range w.uids {
		claims = strings.ReplaceAll(claims, string(uid), name)
	}
	return "token " + claims
}

// expectSameBytes signs the claims of an in-tree token again: RS256 is deterministic, so header,
// payload and signature must be the same.
func expectSameBytes(t *testing.T, inTree controlPlane) {
	t.Helper()
	data, err := os.ReadFile(inTree.SigningKeyFile)
	must(t, err)
	key, err := keys.ParsePrivate(data)
	must(t, err)
	set := keys.NewSet(key)
	current := func() *keys.Set { return set }
	secret, err := inTree.client.CoreV1().Secrets("kube-public").Get(t.Context(), "barrier", metav1.GetOptions{})
	must(t, err)
	want := string(secret.Data["token"])
	claims, err := token.NewVerifier(current).VerifyLegacy(want)
	must(t, err)
	got, err := token.NewSigner(current).SignLegacy(t.Context(), claims)
	must(t, err)
	if got != want {
		t.Error("sakeeper signs the same claims with the same key into another token")
	}
}
