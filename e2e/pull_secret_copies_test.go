package e2e

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
)

// pullSecretArgs are the flags with which the example works.
func pullSecretArgs(t *testing.T, p controlPlane, more ...string) []string {
	t.Helper()
	return p.sakeeperArgs(t, append(more, "--controllers=*,service-account-template-controller,pull-secret-copy-controller", "--pull-secret-source-namespaces=registry")...)
}

func dockerConfig(password string) map[string][]byte {
	return map[string][]byte{corev1.DockerConfigJsonKey: fmt.Appendf(nil, `{"auths":{"registry.example.com":{"username":"puller","password":%q,"auth":%q}}}`,
		password, base64.StdEncoding.EncodeToString([]byte("puller:"+password)))}
}

// makePullSecretSource creates the source of the example, registry/pull.
func makePullSecretSource(t *testing.T, p controlPlane, password string) {
	t.Helper()
	mustCreateNamespace(t, p, "registry", nil)
	_, err := p.client.CoreV1().Secrets("registry").Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "pull"}, Type: corev1.SecretTypeDockerConfigJson, Data: dockerConfig(password),
	}, metav1.CreateOptions{})
	must(t, err)
}

func changePullSecretSource(t *testing.T, p controlPlane, password string) {
	t.Helper()
	patch, err := json.Marshal(map[string]any{"data": dockerConfig(password)})
	must(t, err)
	_, err = p.client.CoreV1().Secrets("registry").Patch(t.Context(), "pull", types.MergePatchType, patch, metav1.PatchOptions{})
	must(t, err)
}

func applyPullSecretExample(t *testing.T, p controlPlane) {
	t.Helper()
	eventually(t, "the example is applied", func(ctx context.Context) error {
		return p.RunKubectl(ctx, "apply", "--server-side", "-f", "../manifests/examples/pull-secret-copies.yaml")
	})
}

func expectPullSecret(t *testing.T, p controlPlane, namespace, password string) {
	t.Helper()
	eventually(t, "pull secret of "+namespace, func(ctx context.Context) error {
		secret, err := p.client.CoreV1().Secrets(namespace).Get(ctx, "registry", metav1.GetOptions{})
		if err != nil {
			return err
		}
		return differ(dockerConfig(password), secret.Data)
	})
}

func differ(want, got map[string][]byte) error {
	if diff := cmp.Diff(want, got); diff != "" {
		return errors.New(diff)
	}
	return nil
}

// TestPullSecretCopies runs the example with the shipped manifests and both controllers: a copy takes one
// write, a restart takes nothing, the statuses of both controllers stand side by side, and no
// credential is in a log, an event, a metric or a status.
func TestPullSecretCopies(t *testing.T) {
	const first, second = "first-MARKED-credential", "second-MARKED-credential"
	p := newControlPlane(t)
	args := pullSecretArgs(t, p, "-v=7")
	must(t, p.Install(t.Context(), "account-templates", "pull-secret-copies"))
	makePullSecretSource(t, p, first)
	s := startReadySakeeper(t, args)
	applyPullSecretExample(t, p)
	expectPullSecret(t, p, "default", first)
	mark := mustMark(t, p.ControlPlane)
	mustCreateNamespace(t, p, "blue", nil)
	expectPullSecret(t, p, "blue", first)
	expectSettings(t, p, "blue", "default", "automount unset registry")
	got := controlplane.Count(requests(t, p.ControlPlane, mark, "blue"))
	want := map[string]int{"create serviceaccounts": 1, "create configmaps": 1, "patch serviceaccounts": 1, "create secrets": 1}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("requests for the namespace (-want +got):\n%s", diff)
	}
	expectStatus(t, p, `"reason":"Applied","status":"True","type":"Ready"`, `"reason":"Copied","status":"True","type":"CopiesReady"`)
	seen := whatIsTold(t, p, s)
	must(t, s.Stop())

	mark = mustMark(t, p.ControlPlane)
	s = startReadySakeeper(t, args)
	if got := requests(t, p.ControlPlane, mark, "blue"); len(got) > 0 {
		t.Errorf("requests for the namespace after a restart: %v", controlplane.Count(got))
	}
	changePullSecretSource(t, p, second)
	expectPullSecret(t, p, "blue", second)
	expectPullSecret(t, p, "default", second)
	must(t, p.client.CoreV1().Secrets("registry").Delete(t.Context(), "pull", metav1.DeleteOptions{}))
	expectStatus(t, p, `"reason":"NotCopied","status":"False","type":"CopiesReady"`, "blue/registry: the source registry/pull does not exist")
	expectPullSecret(t, p, "blue", second)
	eventually(t, "the event on the template", func(ctx context.Context) error {
		events, err := p.client.CoreV1().Events("default").List(ctx, metav1.ListOptions{FieldSelector: "reason=PullSecretNotCopied"})
		if err == nil && len(events.Items) == 0 {
			err = errors.New("there is none")
		}
		return err
	})
	seen += whatIsTold(t, p, s)
	must(t, p.client.CoreV1().RESTClient().Delete().AbsPath(templatesPath).Do(t.Context()).Error())
	for _, namespace := range []string{"blue", "default"} {
		eventually(t, "the copy is deleted", func(ctx context.Context) error {
			_, err := p.client.CoreV1().Secrets(namespace).Get(ctx, "registry", metav1.GetOptions{})
			if apierrors.IsNotFound(err) {
				return nil
			}
			return fmt.Errorf("it is there: %w", err)
		})
	}
	seen += s.Logs()
	for _, text := range []string{"Copied pull secret", "PullSecretNotCopied", "CopiesReady", "sakeeper_failing_keys"} {
		if !strings.Contains(seen, text) {
			t.Errorf("what was looked through lacks %s", text)
		}
	}
	for _, password := range []string{first, second} {
		encoded := base64.StdEncoding.EncodeToString([]byte("puller:" + password))
		for _, credential := range []string{password, encoded, base64.StdEncoding.EncodeToString(dockerConfig(password)[corev1.DockerConfigJsonKey])} {
			if i := strings.Index(seen, credential); i >= 0 {
				t.Errorf("%q is in %s", credential, seen[max(0, i-200):min(len(seen), i+200)])
			}
		}
	}
}

// whatIsTold returns everything that a credential could be found in by mistake.
func whatIsTold(t *testing.T, p controlPlane, s *controlplane.Sakeeper) string {
	t.Helper()
	var events string
	eventually(t, "events", func(ctx context.Context) error {
		list, err := p.client.CoreV1().Events("").List(ctx, metav1.ListOptions{})
		events = fmt.Sprint(list.Items)
		return err
	})
	templates, err := p.client.CoreV1().RESTClient().Get().AbsPath(templatesPath).Do(t.Context()).Raw()
	must(t, err)
	_, metrics, err := s.Get(t.Context(), "/metrics")
	must(t, err)
	return strings.Join([]string{events, string(templates), metrics, s.Logs()}, "\n")
}

// expectStatus waits until the template of the example has all texts.
func expectStatus(t *testing.T, p controlPlane, texts ...string) {
	t.Helper()
	eventually(t, "status of the template", func(ctx context.Context) error {
		body, err := p.client.CoreV1().RESTClient().Get().AbsPath(templatesPath + "/registry-everywhere").Do(ctx).Raw()
		for _, text := range texts {
			if err == nil && !strings.Contains(string(body), text) {
				err = fmt.Errorf("%s is not in %s", text, body)
			}
		}
		return err
	})
}
