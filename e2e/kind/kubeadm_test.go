package kind

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sakeeper/sakeeper/e2e/behaviour"
	"github.com/sakeeper/sakeeper/pkg/token"
)

// TestKubeadm follows the chapters for kubeadm, on a node of kubeadm: static pods, then the move
// of its API server to a signer, and a rotation.
func TestKubeadm(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "kubeadm", "bare")
	c.overlay = c.manifests("overlays", "static-pod")
	staticPods(t, c)
	t.Run("it behaves", func(t *testing.T) { behaviour.Cluster{Admin: c.admin}.Check(t) })
	t.Run("a signer and a rotation", func(t *testing.T) { moveToSigner(t, c) })
	t.Run("key files for an API server without it", func(t *testing.T) { backToFiles(t, c) })
	t.Run("a kubeconfig by hand", func(t *testing.T) { kubeconfigByHand(t, c) })
	t.Run("it still behaves", func(t *testing.T) { behaviour.Cluster{Admin: c.admin}.Check(t) })
}

// onNodeMust runs a script on the node.
func (c *cluster) onNodeMust(t *testing.T, script string) string {
	t.Helper()
	out, err := c.onNode("bash", "-euc", script)
	if err != nil {
		t.Fatalf("on the node: %s: %v: %s", script, err, out)
	}
	return out
}

// copyToNode copies a file of the repository, or of this machine.
func (c *cluster) copyToNode(t *testing.T, from, to string) {
	t.Helper()
	if !filepath.IsAbs(from) {
		from = filepath.Join(c.root, from)
	}
	if out, err := c.command("docker", "cp", from, c.node+":"+to); err != nil {
		t.Fatalf("docker cp: %v: %s", err, out)
	}
}

func staticPods(t *testing.T, c *cluster) {
	t.Helper()
	began := time.Now()
	c.copyToNode(t, "manifests", "/opt/manifests")
	script := c.fromChapter(t, "manifests/README.md", "export KUBECONFIG=/etc/kubernetes/admin.conf", "done")
	script = strings.ReplaceAll(script, "registry.example.com/sakeeper:v1", "sakeeper:dev")
	c.onNodeMust(t, "cd /opt\n"+script)
	if modes := c.onNodeMust(t, "stat -c %a /etc/kubernetes/sakeeper-*.conf"); strings.Join(strings.Fields(modes), " ") != "600 600" {
		t.Errorf("the credentials have the modes %q", modes)
	}
	c.kubectl(t, "apply", "-k", c.overlay)
	eventually(t, "the pods are ready", func(context.Context) error {
		for _, part := range []string{"controllers", "webhook"} {
			if out, err := c.try("-n", "kube-system", "wait", "--for=condition=Ready", "pod", "-l", "app.kubernetes.io/component="+part, "--timeout=5s"); err != nil {
				return fmt.Errorf("%s: %w: %s", part, err, out)
			}
		}
		return nil
	})
	t.Logf("from the first file to all ready: %v", time.Since(began).Round(100*time.Millisecond))
	c.kubectl(t, "-n", "kube-system", "rollout", "restart", "ds/kube-proxy", "deploy/coredns")
	c.waitRolledOut(t, "kube-system", "ds/kube-proxy", "deploy/coredns")
	t.Logf("a whole cluster: %v", time.Since(began).Round(100*time.Millisecond))
}

// fromChapter returns the part of a code block in a chapter (a path in the repository) from the line
// that begins with first to the line that ends with last.
func (c *cluster) fromChapter(t *testing.T, chapter, first, last string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(c.root, chapter))
	must(t, err)
	found := regexp.MustCompile(`(?s)\n( *)` + regexp.QuoteMeta(first) + `[^\n]*\n.*?` + regexp.QuoteMeta(last) + `\n`).FindStringSubmatch(string(content))
	if found == nil {
		t.Fatalf("%s has no %q", chapter, first)
	}
	return strings.ReplaceAll(found[0], "\n"+found[1], "\n") // in a list, a block is indented
}

// kubeconfigByHand checks the steps for controllers outside of the cluster.
func kubeconfigByHand(t *testing.T, c *cluster) {
	script := strings.ReplaceAll(c.fromChapter(t, "cmd/sakeeper/controllers.md", "openssl req", "use-context c"), "API-SERVER:6443", "127.0.0.1:6443")
	c.onNodeMust(t, "mkdir /opt/by-hand; cd /opt/by-hand\n"+script)
	user := c.onNodeMust(t, "kubectl --kubeconfig=/opt/by-hand/sakeeper.kubeconfig auth whoami -o jsonpath={.status.userInfo.username}")
	if want := "system:serviceaccount:sakeeper-system:sakeeper-controllers"; strings.TrimSpace(user) != want {
		t.Errorf("the kubeconfig is that of %q, want %q", user, want)
	}
}

// backToFiles checks the steps from a key directory to key files, for an API server without a
// signer.
func backToFiles(t *testing.T, c *cluster) {
	c.onNodeMust(t, c.fromChapter(t, "cmd/sakeeper/signing-keys.md", "cd /etc/kubernetes/pki/sakeeper", "/etc/kubernetes/pki/sa.key"))
	found := c.onNodeMust(t, `cd /etc/kubernetes/pki
	stat -c %a sa.key
	grep -c BEGIN sa.pub
	openssl pkey -in sa.key -pubout | grep -v -- ----- | grep -vcxFf sa.pub || true`)
	if got := strings.Join(strings.Fields(found), " "); got != "600 2 0" {
		t.Errorf("the mode of the key, public keys, and lines of its own that are not among them: %q", got)
	}
}

func moveToSigner(t *testing.T, c *cluster) {
	before := c.newToken(t)
	c.copyToNode(t, "bin/sakeeper", "/usr/local/bin/sakeeper")
	unit := filepath.Join(t.TempDir(), "unit")
	must(t, os.WriteFile(unit, []byte(c.fromChapter(t, "cmd/sakeeper/signing-keys.md", "[Unit]", "WantedBy=multi-user.target")), 0o600))
	c.copyToNode(t, unit, "/etc/systemd/system/sakeeper-signer.service")
	const keys = " --key-dir=/etc/kubernetes/pki/sakeeper "
	c.onNodeMust(t, c.fromChapter(t, "cmd/sakeeper/signing-keys.md", "sakeeper keys import --key-dir=/etc", "sakeeper keys status --key-dir=/etc/kubernetes/pki/sakeeper"))
	c.onNodeMust(t, "systemctl enable --now sakeeper-signer && curl -s --retry 9 --retry-connrefused http://127.0.0.1:9081/readyz")

	// The chapter has this as a diff. The controllers read the keys from the directory.
	c.onNodeMust(t, `cd /etc/kubernetes/manifests
	sed -i -e 's,- --service-account-private-key-file=.*,- --key-dir=/etc/kubernetes/pki/sakeeper,' sakeeper-controllers.yaml
	sed -e '/--service-account-key-file=/d' \
		-e 's,- --service-account-signing-key-file=.*,- --service-account-signing-endpoint=/run/sakeeper/signer.sock,' \
		-e 's,^    volumeMounts:,&\n    - {name: sakeeper\, mountPath: /run/sakeeper},' \
		-e 's,^  volumes:,&\n  - {name: sakeeper\, hostPath: {path: /run/sakeeper\, type: Directory}},' kube-apiserver.yaml > /tmp/new.yaml
	mv /tmp/new.yaml kube-apiserver.yaml`)
	// This response comes from an API server with the new flags, a new process.
	eventually(t, "the API server has the signer", func(context.Context) error {
		_, err := c.onNode("pgrep", "-f", "kube-apiserver.*service-account-signing-endpoint")
		return err
	})
	eventually(t, "the API server answers", func(ctx context.Context) error {
		_, err := behaviour.WhoAmI(ctx, c.admin, before)
		return err
	})
	if id := token.UnverifiedKeyID(c.newToken(t)); id != token.UnverifiedKeyID(before) {
		t.Errorf("the key changed to %s", id)
	}

	published := strings.Fields(c.onNodeMust(t, "sakeeper keys rotate"+keys))[1]
	published = strings.TrimSuffix(published, ":")
	if out := c.onNodeMust(t, "sakeeper keys rotate"+keys); !strings.HasPrefix(out, "nothing to do before ") {
		t.Errorf("rotate at once: %s", out)
	}
	// An hour is too long for a test. This API server fetches the key within a minute.
	eventually(t, "the API server shows the next key", func(context.Context) error {
		jwks, err := c.try("get", "--raw", "/openid/v1/jwks")
		if err == nil && !strings.Contains(jwks, published) {
			err = errors.New("not yet")
		}
		return err
	})
	c.onNodeMust(t, "sakeeper keys rotate --force"+keys)
	var after string
	eventually(t, "a token of the next key", func(context.Context) error {
		if after = c.newToken(t); token.UnverifiedKeyID(after) == token.UnverifiedKeyID(before) {
			return errors.New("it is of the old one")
		}
		return nil
	})
	for _, compact := range []string{before, after} {
		if _, err := behaviour.WhoAmI(t.Context(), c.admin, compact); err != nil {
			t.Errorf("a token of key %s: %v", token.UnverifiedKeyID(compact), err)
		}
	}
	t.Logf("%s", c.onNodeMust(t, "sakeeper keys status"+keys+"--kubeconfig=/etc/kubernetes/admin.conf"))

	c.onNodeMust(t, "systemctl restart sakeeper-signer")
	eventually(t, "a token after a restart of the signer", func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		_, err := c.requestToken(ctx)
		return err
	})
}

func (c *cluster) newToken(t *testing.T) string {
	t.Helper()
	compact, err := c.requestToken(t.Context())
	must(t, err)
	return compact
}

func (c *cluster) requestToken(ctx context.Context) (string, error) {
	request, err := c.client.CoreV1().ServiceAccounts("default").CreateToken(ctx, "default", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		return "", err
	}
	return request.Status.Token, nil
}
