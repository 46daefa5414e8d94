package upgrade

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/rand"
	"sigs.k8s.io/yaml"

	"github.com/sakeeper/sakeeper/pkg/testkit"
	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
)

// revision is a tree of this repository with its binary.
type revision struct {
	name, root, binary string
}

// built is the working tree, which make has built.
func built(root string) (revision, error) {
	r := revision{"this revision", root, filepath.Join(root, "bin", "sakeeper")}
	if _, err := os.Stat(r.binary); err != nil {
		return r, fmt.Errorf("%w: run `make build` first", err)
	}
	return r, nil
}

// checkOut writes the files of a revision to dir, and builds them there as its Makefile does.
func checkOut(root, name, dir string) (revision, error) {
	commit, err := git(root, "rev-parse", "--verify", "--quiet", name+"^{commit}")
	if err != nil {
		if shallow, _ := git(root, "rev-parse", "--is-shallow-repository"); shallow == "true" {
			return revision{}, fmt.Errorf("revision %s is not in this clone, which is shallow: run `git fetch --unshallow` first", name)
		}
		return revision{}, fmt.Errorf("FROM: there is no revision %s in this repository", name)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return revision{}, err
	}
	archive := filepath.Join(dir, "..", "older.tar")
	if _, err := git(root, "archive", "--output", archive, commit); err != nil {
		return revision{}, err
	}
	if out, err := exec.Command("tar", "-xf", archive, "-C", dir).CombinedOutput(); err != nil {
		return revision{}, fmt.Errorf("tar: %w: %s", err, out)
	}
	cmd := exec.Command("make", "-C", dir, "build", "RELEASE="+commit)
	cmd.Env = slices.DeleteFunc(os.Environ(), func(entry string) bool { // of a make around this one
		return strings.HasPrefix(entry, "MAKE") || strings.HasPrefix(entry, "MFLAGS=") || strings.HasPrefix(entry, "GO_BUILD=")
	})
	if out, err := cmd.CombinedOutput(); err != nil {
		return revision{}, fmt.Errorf("FROM: revision %s does not build with its own `make build`, %w:\n%s", name, err, out[max(0, len(out)-2000):])
	}
	return revision{"revision " + commit[:12], dir, filepath.Join(dir, "bin", "sakeeper")}, nil
}

func git(root string, args ...string) (string, error) {
	cmd := exec.Command("git", append([]string{"-C", root}, args...)...)
	out, err := cmd.Output()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		err = fmt.Errorf("git %s: %w: %s", strings.Join(args, " "), err, exit.Stderr)
	}
	return strings.TrimSpace(string(out)), err
}

// static returns the manifest of a static pod.
func (r revision) static(t *testing.T, name string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(r.root, "manifests", "overlays", "static-pod", "pods", name+".yaml"))
	must(t, err)
	return string(content)
}

// services are the addresses of the webhook in manifests: a Service, or the node's own.
var services = regexp.MustCompile(`service:\n(?:\s+(?:namespace|name|port): .*\n)*\s+path: (\S+)\n|url: https://127\.0\.0\.1:9443(\S+)\n`)

// manifests returns the objects of a directory below manifests, with the address of the webhook on
// this machine.
func (r revision) manifests(t *testing.T, dir string, w controlplane.Webhook) string {
	t.Helper()
	kubectl, err := controlplane.Binary("kubectl")
	must(t, err)
	cmd := exec.CommandContext(t.Context(), kubectl, "kustomize", filepath.Join(r.root, "manifests", dir))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("kustomize %s of %s: %v: %s", dir, r.name, err, &stderr)
	}
	return services.ReplaceAllString(string(out), "url: https://"+w.Address+"$1$2\n")
}

// apply applies directories below manifests with kubectl, as an administrator does.
func (p plane) apply(t *testing.T, r revision, dirs ...string) {
	t.Helper()
	for _, dir := range dirs {
		file := filepath.Join(t.TempDir(), "manifests.yaml")
		must(t, os.WriteFile(file, []byte(r.manifests(t, dir, p.webhook)), 0o600))
		// An object of a kind that was defined a moment ago may be refused.
		eventually(t, dir+" of "+r.name+" is applied", func(ctx context.Context) error {
			return p.RunKubectl(ctx, "apply", "-f", file)
		})
	}
}

// run runs a script in this repository, with kubectl as the administrator.
func (p plane) run(t *testing.T, script string) {
	t.Helper()
	kubeconfig, err := p.Kubeconfig("run.kubeconfig", p.Admin)
	must(t, err)
	kubectl, err := controlplane.Binary("kubectl")
	must(t, err)
	cmd := exec.CommandContext(t.Context(), "sh", "-euc", script)
	cmd.Dir = newer.root
	cmd.Env = append(os.Environ(), "KUBECONFIG="+kubeconfig, "PATH="+filepath.Dir(kubectl)+":"+os.Getenv("PATH"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", script, err, out)
	}
}

// args returns the arguments of the container in manifests, followed by those for this machine and by
// more: where a flag is given twice, the last one counts.
func (p plane) args(t *testing.T, manifests, container string, more ...string) []string {
	t.Helper()
	args, ok := findArgs(t, manifests, container)
	if !ok {
		t.Fatalf("the manifests have no container %s", container)
	}
	var account string
	var local []string
	switch container {
	case "controllers":
		account = controlplane.Account
		local = append(local, "--leader-elect-resource-namespace="+controlplane.Namespace)
		for flag, file := range map[string]func() string{
			"--root-ca-file":                     func() string { return p.CAFile },
			"--key-dir":                          func() string { return p.keyDirectory(t) },
			"--service-account-private-key-file": func() string { return p.SigningKeyFile },
		} {
			if slices.ContainsFunc(args, func(arg string) bool { return strings.HasPrefix(arg, flag+"=") }) {
				local = append(local, flag+"="+file())
			}
		}
	case "webhook":
		account = controlplane.WebhookAccount
		host, port, err := net.SplitHostPort(p.webhook.Address)
		must(t, err)
		local = append(local, "--webhook-namespace="+controlplane.Namespace, "--bind-address="+host, "--secure-port="+port, "--certificate-hosts="+host)
	}
	identity, err := p.ServiceAccount(controlplane.Namespace, account)
	must(t, err)
	kubeconfig, err := p.Kubeconfig(container+"-"+rand.String(5)+".kubeconfig", identity)
	must(t, err)
	return slices.Concat(args, []string{"--kubeconfig=" + kubeconfig}, local, more)
}

// findArgs returns the arguments of the container of that name, if there is one.
func findArgs(t *testing.T, manifests, container string) (args []string, ok bool) {
	t.Helper()
	documents, err := testkit.Documents([]byte(manifests))
	must(t, err)
	for _, document := range documents {
		var object unstructured.Unstructured
		must(t, yaml.Unmarshal(document, &object.Object))
		for _, path := range [][]string{{"spec", "containers"}, {"spec", "template", "spec", "containers"}} {
			containers, _, err := unstructured.NestedSlice(object.Object, path...)
			if err != nil {
				continue // a spec of another kind
			}
			for _, c := range containers {
				fields, _ := c.(map[string]any)
				if fields["name"] == container {
					args, ok, err = unstructured.NestedStringSlice(fields, "args")
					must(t, err)
					return args, ok
				}
			}
		}
	}
	return nil, false
}

// keyDirectory returns a key directory with the key of the API server, which it makes once, with
// the older revision.
func (p plane) keyDirectory(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(filepath.Dir(p.SigningKeyFile), "keys")
	if _, err := os.Stat(dir); err == nil {
		return dir
	}
	out, err := exec.CommandContext(t.Context(), older.binary, "keys", "import", "--key-dir="+dir, "--file="+p.SigningKeyFile, "--max-token-expiration=8760h").CombinedOutput()
	if err != nil {
		t.Fatalf("keys import: %v: %s", err, out)
	}
	return dir
}
