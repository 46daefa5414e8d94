package kind

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// plugin runs each command of the kubectl plugin, about an account that may edit its namespace.
func plugin(t *testing.T, c *cluster) {
	const audited = "audited"
	c.newNamespace(t, audited)
	c.kubectl(t, "-n", audited, "create", "serviceaccount", "robot")
	c.kubectl(t, "-n", audited, "create", "rolebinding", "robot", "--clusterrole=edit", "--serviceaccount=audited:robot")
	c.kubectl(t, "-n", audited, "apply", "-f", "testdata/token.yaml")
	var token string
	eventually(t, "a token", func(ctx context.Context) error {
		secret, err := c.client.CoreV1().Secrets(audited).Get(ctx, "robot-token", metav1.GetOptions{})
		if err != nil {
			return err
		}
		if token = string(secret.Data["token"]); token == "" {
			err = errors.New("there is none")
		}
		return err
	})
	file := filepath.Join(t.TempDir(), "token")
	must(t, os.WriteFile(file, []byte(token), 0o600))
	for _, tc := range []struct{ command, want string }{
		{"tokens -n audited -o csv", "robot-token,robot,legacy,"},
		{"tokens -A --deep", "robot-token"},
		{"reach audited/robot", "Reach:    secrets\n"},
		{"reach -A", "robot"},
		{"inspect --review " + file, "accepted as system:serviceaccount:audited:robot"},
		{"keys", "yes"},
		{"report -A", "robot-token"},
	} {
		out, err := c.command("bin/kubectl-sakeeper", strings.Fields(tc.command)...)
		if err != nil || !strings.Contains(out, tc.want) {
			t.Errorf("%s: %v: want %q in\n%s", tc.command, err, tc.want, out)
		}
		if strings.Contains(out, token[strings.LastIndex(token, "."):]) {
			t.Errorf("%s printed a token", tc.command)
		}
	}
}
