package kind

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/sakeeper/sakeeper/pkg/testkit"
	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
)

// patience is the timeout for what should take seconds.
const patience = 5 * time.Minute

const namespace = controlplane.Namespace

// cluster is a kind cluster, and its node of the control plane.
type cluster struct {
	name, node string
	root       string
	kubeconfig string
	overlay    string
	admin      *rest.Config
	client     kubernetes.Interface
}

// newCluster creates a cluster from a config in testdata, loads the image, and deletes the
// cluster when the test ends.
func newCluster(t *testing.T, name, config string) *cluster {
	t.Helper()
	root, err := controlplane.RepositoryRoot()
	must(t, err)
	c := &cluster{
		name: "sakeeper-e2e-" + name, node: "sakeeper-e2e-" + name + "-control-plane", root: root,
		kubeconfig: filepath.Join(t.TempDir(), "kubeconfig"),
	}
	args := []string{"create", "cluster", "--name", c.name, "--config", filepath.Join("testdata", config+".yaml"), "--kubeconfig", c.kubeconfig, "--wait", "2m"}
	if image := os.Getenv("KIND_NODE_IMAGE"); image != "" {
		args = append(args, "--image", image)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s", c.describe())
		}
		if out, err := c.command("bin/tools/kind", "delete", "cluster", "--name", c.name, "--kubeconfig", c.kubeconfig); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	})
	out, err := c.command("bin/tools/kind", args...)
	if err != nil {
		t.Fatalf("kind create cluster: %v: %s", err, out)
	}
	if config == "bare" {
		c.expectBare(t)
	}
	out, err = c.command("bin/tools/kind", "load", "docker-image", "--name", c.name, "sakeeper:dev")
	if err != nil {
		t.Fatalf("kind load: %v: %s", err, out)
	}
	c.admin, err = clientcmd.BuildConfigFromFlags("", c.kubeconfig)
	must(t, err)
	c.admin.QPS = -1
	c.client, err = kubernetes.NewForConfig(c.admin)
	must(t, err)
	return c
}

// command runs a program and returns its output; a relative path is relative to the repository.
func (c *cluster) command(program string, args ...string) (string, error) {
	if strings.Contains(program, "/") && !filepath.IsAbs(program) {
		program = filepath.Join(c.root, program)
	}
	cmd := exec.Command(program, args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+c.kubeconfig)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return strings.TrimSpace(out.String()), err
}

// kubectl runs kubectl. If it fails, the test fails with its output.
func (c *cluster) kubectl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := c.try(args...)
	if err != nil {
		t.Fatalf("kubectl %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return out
}

func (c *cluster) try(args ...string) (string, error) {
	kubectl, err := controlplane.Binary("kubectl")
	if err != nil {
		return "", err
	}
	return c.command(kubectl, args...)
}

// onNode runs a program on the node.
func (c *cluster) onNode(args ...string) (string, error) {
	return c.command("docker", append([]string{"exec", c.node}, args...)...)
}

// manifests returns the path of a directory below manifests.
func (c *cluster) manifests(path ...string) string {
	return filepath.Join(append([]string{c.root, "manifests"}, path...)...)
}

// waitRolledOut waits until the rollout of the workloads (kind/name) is complete.
func (c *cluster) waitRolledOut(t *testing.T, in string, workloads ...string) {
	t.Helper()
	for _, workload := range workloads {
		c.kubectl(t, "-n", in, "rollout", "status", workload, "--timeout", patience.String())
	}
}

// describe returns the state of the cluster, for a test that has failed.
func (c *cluster) describe() string {
	var all strings.Builder
	for _, args := range [][]string{
		{"get", "pods", "-A", "-o", "wide", "--field-selector", "metadata.namespace!=busy"},
		{"-n", namespace, "get", "events", "--sort-by", ".lastTimestamp"},
		{"-n", namespace, "logs", "-l", "app.kubernetes.io/component=controllers", "--tail", "40", "--prefix"},
		{"-n", namespace, "logs", "-l", "app.kubernetes.io/component=webhook", "--tail", "40", "--prefix"},
	} {
		out, err := c.try(args...)
		fmt.Fprintf(&all, "kubectl %s: %v\n%s\n", strings.Join(args, " "), err, out)
	}
	return all.String()
}

// newNamespace creates a namespace of a user.
func (c *cluster) newNamespace(t *testing.T, name string) {
	t.Helper()
	c.kubectl(t, "create", "namespace", name)
	t.Cleanup(func() { _, _ = c.try("delete", "namespace", name, "--wait=false") })
}

// waitAccount waits for the default account of a namespace.
func (c *cluster) waitAccount(t *testing.T, namespace string) {
	t.Helper()
	eventually(t, "default account of "+namespace, func(ctx context.Context) error {
		_, err := c.client.CoreV1().ServiceAccounts(namespace).Get(ctx, "default", metav1.GetOptions{})
		return err
	})
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
	testkit.Await(t, 100*time.Millisecond, patience, what, check)
}
