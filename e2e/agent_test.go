package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/sakeeper/sakeeper/pkg/token"
)

// agentPlace is a namespace with the ServiceAccount robot, and a directory for its tokens.
type agentPlace struct {
	controlPlane

	namespace, dir string
}

// newAgentPlace allows subject to request tokens of robot, with the role of the README.
func newAgentPlace(t *testing.T, p controlPlane, subject string) agentPlace {
	t.Helper()
	a := agentPlace{p, newNamespace(t, p.client), t.TempDir()}
	mustCreateAccount(t, p.client, a.namespace, "robot")
	_, err := p.client.RbacV1().Roles(a.namespace).Create(t.Context(), &rbacv1.Role{
		ObjectMeta: metav1.ObjectMeta{Name: "tokens-of-robot"},
		Rules:      []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"serviceaccounts/token"}, ResourceNames: []string{"robot"}, Verbs: []string{"create"}}},
	}, metav1.CreateOptions{})
	must(t, err)
	_, err = p.client.RbacV1().RoleBindings(a.namespace).Create(t.Context(), &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "tokens-of-robot"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "tokens-of-robot"},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: strings.ReplaceAll(subject, "%", a.namespace)}},
	}, metav1.CreateOptions{})
	must(t, err)
	// The API server authorizes by a cache, and an agent that is run once does not try again.
	eventually(t, "the right to request tokens", func(ctx context.Context) error {
		review, err := p.client.AuthorizationV1().SubjectAccessReviews().Create(ctx, &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
			User:               strings.ReplaceAll(subject, "%", a.namespace),
			ResourceAttributes: &authorizationv1.ResourceAttributes{Namespace: a.namespace, Verb: "create", Resource: "serviceaccounts", Subresource: "token", Name: "robot"},
		}}, metav1.CreateOptions{})
		if err == nil && !review.Status.Allowed {
			err = errors.New("not yet")
		}
		return err
	})
	return a
}

func (a agentPlace) path(name string) string { return filepath.Join(a.dir, name) }

// args are the arguments of an agent with the credentials in config.
func (a agentPlace) args(t *testing.T, config *rest.Config, more ...string) []string {
	t.Helper()
	kubeconfig, err := a.Kubeconfig("agent-"+a.namespace+".kubeconfig", config)
	must(t, err)
	return append([]string{"agent", "--kubeconfig", kubeconfig}, more...)
}

// once runs an agent until it exits.
func (a agentPlace) once(t *testing.T, config *rest.Config, more ...string) (output string, err error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), shared.binary, a.args(t, config, append(more, "--once")...)...)
	out, err := cmd.CombinedOutput()
	must(t, checkLogs(string(out)))
	return string(out), err
}

func (a agentPlace) outsider(t *testing.T) *rest.Config {
	t.Helper()
	config, err := a.User("machine")
	must(t, err)
	return config
}

// review creates a TokenReview of the token in a file.
func (a agentPlace) review(ctx context.Context, file string, audiences ...string) (authenticationv1.TokenReviewStatus, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return authenticationv1.TokenReviewStatus{}, err
	}
	answer, err := a.client.AuthenticationV1().TokenReviews().Create(ctx, &authenticationv1.TokenReview{
		Spec: authenticationv1.TokenReviewSpec{Token: string(content), Audiences: audiences},
	}, metav1.CreateOptions{})
	if err != nil {
		return authenticationv1.TokenReviewStatus{}, err
	}
	return answer.Status, nil
}

// expectToken waits until the token in a file is accepted, and returns its claims. The API server's own
// cache may have a former object still to which the token is not bound.
func (a agentPlace) expectToken(t *testing.T, file string, audiences ...string) token.BoundClaims {
	t.Helper()
	eventually(t, "the token in "+file+" is accepted", func(ctx context.Context) error {
		status, err := a.review(ctx, file, audiences...)
		if want := "system:serviceaccount:" + a.namespace + ":robot"; err == nil && (!status.Authenticated || status.User.Username != want) {
			err = fmt.Errorf("the bearer is %q (%s), want %q", status.User.Username, status.Error, want)
		}
		return err
	})
	content, err := os.ReadFile(file)
	must(t, err)
	claims, err := token.UnverifiedBoundClaims(string(content))
	must(t, err)
	return claims
}

func (a agentPlace) expectRefused(t *testing.T, file string) {
	t.Helper()
	eventually(t, "the token in "+file+" is refused", func(ctx context.Context) error {
		status, err := a.review(ctx, file)
		if err == nil && status.Authenticated {
			err = errors.New("it is accepted")
		}
		return err
	})
}

func TestAgentOnAMachineOutside(t *testing.T) {
	t.Parallel()
	p := controlPlane{shared.cp, shared.client}
	a := newAgentPlace(t, p, "machine")
	hooked := a.path("hooked")
	s := startSakeeper(t, a.args(t, a.outsider(t), "--namespace="+a.namespace, "--service-account=robot", "--lifetime=30m", "--mode=0640",
		"--token-file="+a.path("token"), "--token-file="+a.path("vault")+"=https://vault.example.com,other", "--exec=touch "+hooked))
	must(t, s.WaitReady(t.Context()))
	claims := a.expectToken(t, a.path("token"))
	if lifetime := claims.Validity.Lifetime(); lifetime != 30*time.Minute {
		t.Errorf("it is good for %v", lifetime)
	}
	if (claims.Pod != token.Ref{} || claims.Secret != token.Ref{}) {
		t.Errorf("it is bound: %+v", claims)
	}
	a.expectToken(t, a.path("vault"), "https://vault.example.com")
	a.expectToken(t, a.path("vault"), "other")
	if status, err := a.review(t.Context(), a.path("vault")); err != nil || status.Authenticated {
		t.Errorf("the API server takes a token for others: %v, %v", status, err)
	}
	info, err := os.Stat(a.path("token"))
	must(t, err)
	if info.Mode().Perm() != 0o640 {
		t.Errorf("mode %v", info.Mode())
	}
	eventually(t, "the hook ran", func(context.Context) error {
		_, err := os.Stat(hooked)
		return err
	})
	_, metrics, err := s.Get(t.Context(), "/metrics")
	must(t, err)
	if want := fmt.Sprintf("sakeeper_agent_token_expiry_timestamp_seconds{file=%q} %v", a.path("token"), float64(claims.Validity.Expires.Unix())); !strings.Contains(metrics, want) {
		t.Errorf("there is no %s in\n%s", want, metrics)
	}
	must(t, s.Stop())
	a.expectToken(t, a.path("token")) // the old token is still there
}

func TestAgentWithASecretThatRevokes(t *testing.T) {
	t.Parallel()
	a := newAgentPlace(t, controlPlane{shared.cp, shared.client}, "machine")
	mustCreateSecret(t, a.client, a.namespace, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "leash"}})
	_, err := a.once(t, a.outsider(t), "--namespace="+a.namespace, "--service-account=robot", "--bound-secret=leash", "--symlink-swap", "--token-file="+a.path("token"))
	must(t, err)
	if claims := a.expectToken(t, a.path("token")); claims.Secret.Name != "leash" {
		t.Errorf("it is bound to %+v", claims.Secret)
	}
	if target, err := os.Readlink(a.path("token")); err != nil || target != "..data/token" {
		t.Errorf("the file is a symlink to %q, %v", target, err)
	}
	must(t, a.client.CoreV1().Secrets(a.namespace).Delete(t.Context(), "leash", metav1.DeleteOptions{}))
	a.expectRefused(t, a.path("token"))
}

// TestAgentInAPod runs an agent with the token that kubelet would have requested for its pod,
// also while the pod terminates.
func TestAgentInAPod(t *testing.T) {
	t.Parallel()
	a := newAgentPlace(t, controlPlane{shared.cp, shared.client}, "system:serviceaccount:%:robot")
	pod, itself := a.podOfRobot(t, "pod")

	fetch := func(name string, more ...string) token.BoundClaims {
		t.Helper()
		_, err := a.once(t, itself, append(more, "--token-file="+a.path(name))...)
		must(t, err)
		return a.expectToken(t, a.path(name))
	}
	if claims := fetch("own"); claims.Pod.UID != string(pod.UID) || claims.Pod.Name != "pod" {
		t.Errorf("it is bound to %+v", claims.Pod)
	}
	if claims := fetch("unbound", "--bound-pod="); claims.Pod.Name != "" {
		t.Errorf("it is bound to %+v", claims.Pod)
	}
	must(t, a.client.CoreV1().Pods(a.namespace).Delete(t.Context(), "pod", metav1.DeleteOptions{}))
	if claims := fetch("terminating"); claims.Pod.UID != string(pod.UID) {
		t.Errorf("in a terminating pod it is bound to %+v", claims.Pod)
	}
	_, err := a.client.CoreV1().Pods(a.namespace).Patch(t.Context(), "pod", types.JSONPatchType, []byte(`[{"op":"remove","path":"/metadata/finalizers"}]`), metav1.PatchOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		t.Fatal(err)
	}
	a.expectRefused(t, a.path("own"))
	a.expectRefused(t, a.path("terminating"))
	a.expectToken(t, a.path("unbound"))
}

func TestAgentSaysWhyThereIsNoToken(t *testing.T) {
	t.Parallel()
	a := newAgentPlace(t, controlPlane{shared.cp, shared.client}, "another user")
	must(t, os.WriteFile(a.path("token"), []byte("of former times"), 0o600))
	out, err := a.once(t, a.outsider(t), "--namespace="+a.namespace, "--service-account=robot", "--token-file="+a.path("token"))
	if exit := (&exec.ExitError{}); !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Errorf("it ended with %v", err)
	}
	if want := fmt.Sprintf(`sakeeper: request a token of service account %s/robot: serviceaccounts "robot" is forbidden`, a.namespace); !strings.Contains(out, want) {
		t.Errorf("it said %s, want %s", out, want)
	}
	if content, err := os.ReadFile(a.path("token")); err != nil || string(content) != "of former times" {
		t.Errorf("the file holds %q, %v", content, err)
	}
}
