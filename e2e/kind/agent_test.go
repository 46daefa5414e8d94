package kind

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sakeeper/sakeeper/e2e/behaviour"
	"github.com/sakeeper/sakeeper/pkg/testkit"
)

// agent is the pod of testdata/agent.yaml.
type agent struct {
	*cluster
	uid   string
	first string
}

// startAgent starts the pod, which uses its own token and the address of the API server that
// every pod has.
func (c *cluster) startAgent(t *testing.T) agent {
	t.Helper()
	c.newNamespace(t, "agent")
	c.waitAccount(t, "agent")
	c.kubectl(t, "-n", "agent", "apply", "-f", "testdata/agent.yaml")
	c.kubectl(t, "-n", "agent", "wait", "--for=condition=Ready", "pod/app", "--timeout", patience.String())
	pod, err := c.client.CoreV1().Pods("agent").Get(t.Context(), "app", metav1.GetOptions{})
	must(t, err)
	if !slices.ContainsFunc(pod.Spec.Volumes, func(v corev1.Volume) bool { return strings.HasPrefix(v.Name, "kube-api-access-") }) {
		t.Errorf("the pod was given no token: %v", pod.Spec.Volumes)
	}
	a := agent{cluster: c, uid: string(pod.UID)}
	eventually(t, "a token in the file", func(context.Context) (err error) {
		a.first, err = a.token()
		return err
	})
	return a
}

// token returns the current token in the file.
func (a agent) token() (string, error) {
	out, err := a.onNode("cat", "/var/lib/kubelet/pods/"+a.uid+"/volumes/kubernetes.io~empty-dir/tokens/token")
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return out, nil
}

// expectRenewal waits for a renewal, which comes after 80 % of ten minutes.
func (a agent) expectRenewal(t *testing.T) {
	var second string
	testkit.Await(t, time.Second, 10*time.Minute, "another token", func(context.Context) (err error) {
		if second, err = a.token(); err == nil && second == a.first {
			err = errors.New("it is the first one")
		}
		return err
	})
	if user, err := behaviour.WhoAmI(t.Context(), a.admin, second); err != nil || user != "system:serviceaccount:agent:robot" {
		t.Errorf("the token is that of %q: %v", user, err)
	}
}
