package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"

	"github.com/sakeeper/sakeeper/pkg/agent"
	"github.com/sakeeper/sakeeper/pkg/testkit"
	"github.com/sakeeper/sakeeper/pkg/token"
)

// aheadClock is a clock that can be set ahead by hours.
type aheadClock struct{ ahead atomic.Int64 }

func (c *aheadClock) Now() time.Time                  { return time.Now().Add(time.Duration(c.ahead.Load())) }
func (c *aheadClock) Since(t time.Time) time.Duration { return time.Since(t) }

// expectAnother waits until the file has another token, and returns its claims.
func (a agentPlace) expectAnother(t *testing.T, file, former string) token.BoundClaims {
	t.Helper()
	eventuallyIn(t, 2*time.Minute, "another token in "+file, func(context.Context) error {
		content, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		claims, err := token.UnverifiedBoundClaims(string(content))
		if err == nil && claims.ID == former {
			err = errors.New("it is the former one")
		}
		return err
	})
	return a.expectToken(t, file)
}

// expectReady waits until an agent is ready: it knows of a token after it has written it.
func expectReady(t *testing.T, kept *agent.Agent) {
	t.Helper()
	eventually(t, "readiness", func(context.Context) error { return kept.Ready() })
}

// podOfRobot creates a pod with a finalizer, and returns the token that kubelet would have
// requested for it.
func (a agentPlace) podOfRobot(t *testing.T, name string) (*corev1.Pod, *rest.Config) {
	t.Helper()
	pod, err := a.client.CoreV1().Pods(a.namespace).Create(t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Finalizers: []string{"example.com/wait"}},
		Spec: corev1.PodSpec{
			ServiceAccountName: "robot", AutomountServiceAccountToken: new(bool), Containers: []corev1.Container{{Name: "c", Image: "i"}},
		},
	}, metav1.CreateOptions{})
	must(t, err)
	granted, err := a.client.CoreV1().ServiceAccounts(a.namespace).CreateToken(t.Context(), "robot", &authenticationv1.TokenRequest{
		Spec: authenticationv1.TokenRequestSpec{BoundObjectRef: &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID}},
	}, metav1.CreateOptions{})
	must(t, err)
	itself := rest.AnonymousClientConfig(a.Admin)
	itself.BearerToken = granted.Status.Token
	return pod, itself
}

// TestAgentGoesOnInATerminatingPod sends SIGTERM while other containers of the pod still need
// tokens: the agent renews the token once more, and exits after a second signal.
func TestAgentGoesOnInATerminatingPod(t *testing.T) {
	t.Parallel()
	a := newAgentPlace(t, controlPlane{shared.cp, shared.client}, "system:serviceaccount:%:robot")
	pod, itself := a.podOfRobot(t, "pod")
	s := startSakeeper(t, a.args(t, itself, "--token-file="+a.path("token"), "--shutdown-delay-duration=10m"))
	must(t, s.WaitReady(t.Context()))
	first := a.expectToken(t, a.path("token"))
	must(t, a.client.CoreV1().Pods(a.namespace).Delete(t.Context(), pod.Name, metav1.DeleteOptions{}))
	must(t, s.Signal(syscall.SIGTERM))
	eventually(t, "it heard that", func(context.Context) error {
		if !strings.Contains(s.Logs(), "Delayed the shutdown") {
			return errors.New("not yet")
		}
		return nil
	})
	must(t, os.Remove(a.path("token")))
	if second := a.expectAnother(t, a.path("token"), first.ID); second.Pod.UID != string(pod.UID) {
		t.Errorf("it is bound to %+v", second.Pod)
	}
	must(t, s.Stop())
}

// TestAgentRenewsWhatIsDue runs the agent in the test process with a clock that is set ahead,
// because an API server grants no less than ten minutes. The API server is down at the start,
// and when the token is due.
func TestAgentRenewsWhatIsDue(t *testing.T) {
	p := newControlPlane(t)
	s := startReadySakeeper(t, p.sakeeperArgs(t))
	a := newAgentPlace(t, p, "machine")
	must(t, s.Stop())
	outsider, err := p.User("machine")
	must(t, err)
	must(t, p.KillServer())
	ahead := &aheadClock{}
	kept, err := agent.New(agent.Config{
		Client: mustClient(t, outsider).CoreV1(), Namespace: a.namespace, ServiceAccount: "robot", Lifetime: time.Hour, Clock: ahead,
		Tokens: []agent.Token{{File: a.path("token")}}, Writer: agent.RenameWriter{FileAccess: agent.FileAccess{Mode: 0o600, UID: -1, GID: -1}},
	})
	must(t, err)
	defer testkit.Start(t.Context(), t, kept.Run)()
	must(t, p.StartServer(t.Context()))
	first := a.expectAnother(t, a.path("token"), "")

	must(t, p.KillServer())
	ahead.ahead.Store(int64(50 * time.Minute))
	must(t, p.StartServer(t.Context()))
	second := a.expectAnother(t, a.path("token"), first.ID)
	expectReady(t, kept)
	a.expectToken(t, a.path("token"))
	ahead.ahead.Store(int64(100 * time.Minute))
	a.expectAnother(t, a.path("token"), second.ID)
}

// TestAgentNoticesAnotherAccount: the ServiceAccount of a running agent, and the Secret that its
// tokens are bound to, are replaced by others of the same name.
func TestAgentNoticesAnotherAccount(t *testing.T) {
	t.Parallel()
	a := newAgentPlace(t, controlPlane{shared.cp, shared.client}, "machine")
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "bound"}}
	mustCreateSecret(t, a.client, a.namespace, secret.DeepCopy())
	var asked atomic.Int64
	start := func(name string, bound *authenticationv1.BoundObjectReference, audiences ...string) *agent.Agent {
		config := rest.CopyConfig(a.outsider(t))
		review, err := agent.NewReviewer(config)
		must(t, err)
		counted := func(ctx context.Context, compact string) (bool, error) {
			accepted, err := review(ctx, compact)
			if len(audiences) > 0 && err == nil { // else it is asked again
				asked.Add(1)
			}
			return accepted, err
		}
		kept, err := agent.New(agent.Config{
			Client: mustClient(t, config).CoreV1(), Namespace: a.namespace, ServiceAccount: "robot", Lifetime: time.Hour, Clock: clock.RealClock{}, Bound: bound,
			Review: counted, ReviewInterval: time.Second,
			Tokens: []agent.Token{{File: a.path(name), Audiences: audiences}}, Writer: agent.RenameWriter{FileAccess: agent.FileAccess{Mode: 0o600, UID: -1, GID: -1}},
		})
		must(t, err)
		t.Cleanup(testkit.Start(context.WithoutCancel(t.Context()), t, kept.Run))
		return kept
	}
	bound := &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Secret", Name: secret.Name}
	agents := []*agent.Agent{start("token", nil), start("bound", bound), start("vault", nil, "vault")}
	first, firstBound, vault := a.expectAnother(t, a.path("token"), ""), a.expectAnother(t, a.path("bound"), ""), ""
	eventually(t, "a token for vault", func(context.Context) error {
		content, err := os.ReadFile(a.path("vault"))
		vault = string(content)
		return err
	})

	time.Sleep(3 * time.Second) // several intervals: each token was reviewed, which nothing else shows
	must(t, a.client.CoreV1().Secrets(a.namespace).Delete(t.Context(), secret.Name, metav1.DeleteOptions{}))
	mustCreateSecret(t, a.client, a.namespace, secret.DeepCopy())
	secondBound := a.expectAnother(t, a.path("bound"), firstBound.ID)
	if secondBound.Secret.UID == firstBound.Secret.UID {
		t.Errorf("it is bound to the former Secret: %+v", secondBound.Secret)
	}
	must(t, a.client.CoreV1().ServiceAccounts(a.namespace).Delete(t.Context(), "robot", metav1.DeleteOptions{}))
	mustCreateAccount(t, a.client, a.namespace, "robot")
	a.expectAnother(t, a.path("token"), first.ID)
	a.expectAnother(t, a.path("bound"), secondBound.ID)
	for _, kept := range agents {
		expectReady(t, kept)
	}
	if content, err := os.ReadFile(a.path("vault")); err != nil || string(content) != vault || asked.Load() != 1 {
		t.Errorf("a token for another audience was reviewed %d times, and renewed %t: %v", asked.Load(), string(content) != vault, err)
	}
}

// TestLongAgentRenewsWhatIsNotValidYet: the clock of the API server was set back by two days since
// it issued the token, as seen from an agent whose clock of the API server is two days behind.
func TestLongAgentRenewsWhatIsNotValidYet(t *testing.T) {
	t.Parallel()
	a := newAgentPlace(t, controlPlane{shared.cp, shared.client}, "machine")
	server := &aheadClock{}
	kept, err := agent.New(agent.Config{
		Client: mustClient(t, a.outsider(t)).CoreV1(), Namespace: a.namespace, ServiceAccount: "robot", Lifetime: time.Hour, Clock: server, Local: clock.RealClock{},
		Tokens: []agent.Token{{File: a.path("token")}}, Writer: agent.RenameWriter{FileAccess: agent.FileAccess{Mode: 0o600, UID: -1, GID: -1}},
	})
	must(t, err)
	defer testkit.Start(t.Context(), t, kept.Run)()
	first := a.expectAnother(t, a.path("token"), "")
	expectReady(t, kept)
	server.ahead.Store(int64(-48 * time.Hour))
	if err := kept.Ready(); err == nil {
		t.Error("it is ready")
	}
	second := a.expectAnother(t, a.path("token"), first.ID)
	server.ahead.Store(0)
	expectReady(t, kept)
	time.Sleep(15 * time.Second) // what is checked is that nothing happens
	if third := a.expectToken(t, a.path("token")); third.ID != second.ID {
		t.Errorf("token %s was replaced by %s", second.ID, third.ID)
	}
}

func TestAgentGivesFilesToTheirOwner(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root may give files away")
	}
	t.Parallel()
	a := newAgentPlace(t, controlPlane{shared.cp, shared.client}, "machine")
	for name, flags := range map[string][]string{"renamed": nil, "swapped": {"--symlink-swap"}} {
		must(t, os.Mkdir(a.path(name), 0o700))
		file := filepath.Join(a.path(name), "token")
		out, err := a.once(t, a.outsider(t), append(flags, "--namespace="+a.namespace, "--service-account=robot", "--owner=12345:54321", "--mode=0440", "--token-file="+file)...)
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		info, err := os.Stat(file)
		must(t, err)
		stat, ok := info.Sys().(*syscall.Stat_t)
		if got := fmt.Sprintf("%d:%d %v", stat.Uid, stat.Gid, info.Mode()); !ok || got != "12345:54321 -r--r-----" {
			t.Errorf("%s: %s", name, got)
		}
		a.expectToken(t, file)
	}
}
