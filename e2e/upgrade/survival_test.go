package upgrade

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
)

// templates sets what a user may want of the accounts in the namespace team.
const templates = `
apiVersion: sakeeper.io/v1alpha1
kind: ServiceAccountTemplate
metadata: {name: team}
spec:
  namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: team}}
  names: [default, robot, made]
  create: true
  labels: {example.com/team: "yes"}
  annotations: {example.com/contact: team@example.com}
  automountServiceAccountToken: false
  imagePullSecrets: [{name: registry}]
`

// TestWhatTheOlderRevisionDoesNotKnowSurvivesIt: with all controllers of this revision on, objects get what
// only it knows. The older revision then changes none of them, and neither does this one after it. A token
// that is to be rotated when the process changes is rotated once.
func TestWhatTheOlderRevisionDoesNotKnowSurvivesIt(t *testing.T) {
	components := []string{"overlays/outside", tokenRequests, "components/token-generation"}
	p := newPlane(t, controlplane.Options{})
	p.apply(t, newer, append(components, "components/account-templates", "components/token-inventory", "components/policies/secret-references", "components/policies/token-limits")...)
	args, err := p.ControllersArgs()
	must(t, err)
	args = append(args, "--auto-generate-token-secrets=labelled")
	all := append(slices.Clone(args), "--controllers=*,token-request-controller,service-account-template-controller", "--inventory-interval=1s")
	s := p.startReady(t, newer, all)
	p.create(t)
	p.complete(t)
	before := p.objects(t)

	for i, next := range []struct {
		revision
		args []string
	}{{older, append(slices.Clone(args), withTokenRequests)}, {newer, all}} {
		end(t, s)
		former := p.askToRotate(t, "managed")
		p.apply(t, next.revision, components...)
		s = p.startReady(t, next.revision, next.args)
		once := p.waitRotated(t, "managed", former)
		p.expectWork(t, fmt.Sprint("round-", i))
		if again := p.waitRotated(t, "managed", former); again != once {
			t.Errorf("%s rotated a token twice", next.name)
		}
		expectSame(t, "after "+next.name, before, p.objects(t), "managed")
	}
	for secret, key := range withTokens {
		token, err := p.tokenIn(t.Context(), secret, key)
		must(t, err)
		must(t, p.review(t.Context(), secret, token))
	}
}

// complete makes what only controllers that are off by default know, and waits for it.
func (p plane) complete(t *testing.T) {
	t.Helper()
	p.newAccount(t, team, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "generated", Labels: map[string]string{api.AutoTokenLabel: "true"}}})
	file := filepath.Join(t.TempDir(), "templates.yaml")
	must(t, os.WriteFile(file, []byte(templates), 0o600))
	eventually(t, "the template is applied", func(ctx context.Context) error { return p.RunKubectl(ctx, "apply", "-f", file) })
	for secret, text := range map[string]string{"nobody": "nobody", "unknown": unknown} {
		eventually(t, "what is wrong stands on "+secret, func(ctx context.Context) error {
			found, err := p.client.CoreV1().Secrets(team).Get(ctx, secret, metav1.GetOptions{})
			if err == nil && !strings.Contains(found.Annotations[api.ProblemAnnotation], text) {
				err = fmt.Errorf("its annotation is %q", found.Annotations[api.ProblemAnnotation])
			}
			return err
		})
	}
	eventually(t, "a token Secret of the account generated", func(ctx context.Context) error {
		account, err := p.client.CoreV1().ServiceAccounts(team).Get(ctx, "generated", metav1.GetOptions{})
		if err == nil && len(account.Secrets) == 0 {
			err = errors.New("it refers to none")
		}
		return err
	})
	eventually(t, "the status of the template", func(ctx context.Context) error {
		body, err := p.client.CoreV1().RESTClient().Get().AbsPath("/apis/sakeeper.io/v1alpha1/serviceaccounttemplates/team").Do(ctx).Raw()
		if text := string(body); err == nil && (!strings.Contains(text, `"serviceAccounts":3`) || !strings.Contains(text, `"reason":"Applied","status":"True","type":"Ready"`)) {
			err = errors.New("it is " + text)
		}
		return err
	})
}

// TestWhatTheOlderRevisionCannotReadIsRefused: settings of this revision that the older one lacks end its
// start, with their name.
func TestWhatTheOlderRevisionCannotReadIsRefused(t *testing.T) {
	for _, command := range []string{"controllers", "webhook", "signer", "authenticator", "agent", "policies"} {
		now, then := help(t, newer, command), help(t, older, command)
		for _, flag := range missing(flags, now, then) {
			expectRefused(t, older, []string{command, flag + "=1"}, flag)
		}
	}
	for _, name := range missing(controllerNames, help(t, newer, "controllers"), help(t, older, "controllers")) {
		expectRefused(t, older, []string{"controllers", "--controllers=*," + name}, name)
	}
}

var (
	flags           = regexp.MustCompile(`(?m)^ {6}(?:-\w, )?(--[a-z-]+)`)
	controllerNames = regexp.MustCompile(`\b([a-z]+-[a-z-]*controller)\b`)
)

func help(t *testing.T, r revision, command string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), r.binary, command, "--help").CombinedOutput()
	must(t, err)
	return string(out)
}

// missing returns what the pattern finds in now, and not in then.
func missing(pattern *regexp.Regexp, now, then string) []string {
	found := map[string]bool{}
	for _, match := range pattern.FindAllStringSubmatch(now, -1) {
		found[match[1]] = true
	}
	for _, match := range pattern.FindAllStringSubmatch(then, -1) {
		delete(found, match[1])
	}
	return slices.Sorted(maps.Keys(found))
}

// expectRefused runs a command that must fail, with texts in its output.
func expectRefused(t *testing.T, r revision, args []string, texts ...string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), r.binary, args...).CombinedOutput()
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Errorf("%s %v: %v, want exit code 1: %s", r.name, args, err, out)
	}
	for _, text := range texts {
		if !strings.Contains(string(out), text) {
			t.Errorf("%s %v: no %q in: %s", r.name, args, text, out)
		}
	}
	t.Logf("%s %s: %s", r.name, strings.Join(args[:2], " "), strings.TrimSpace(string(out)))
}

// states are those of keys in a table of `sakeeper keys status`.
var states = regexp.MustCompile(`(?m)^\S{16} +RS256 +(signing|published) `)

// TestKeyDirectories: each revision reads the directory of the other. A file in a state that a revision does
// not know ends every command and the start of a signer, which name it, and the directory stays as it is.
func TestKeyDirectories(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	keys := func(r revision, command string) string {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), r.binary, "keys", command, "--key-dir="+dir).CombinedOutput()
		if err != nil {
			t.Fatalf("%s keys %s: %v: %s", r.name, command, err, out)
		}
		return string(out)
	}
	keys(newer, "rotate") // makes the key that signs
	keys(older, "rotate") // and the next one
	before := files(t, dir)
	for _, r := range []revision{older, newer} {
		keys(r, "rotate") // which is too early now
		if rows := states.FindAllStringSubmatch(keys(r, "status"), -1); len(rows) != 2 || rows[0][1] == rows[1][1] {
			t.Errorf("%s: %q", r.name, rows)
		}
	}
	if diff := cmp.Diff(before, files(t, dir)); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}

	published, err := filepath.Glob(filepath.Join(dir, "*.published.*"))
	if err != nil || len(published) != 1 {
		t.Fatalf("%v, %v", published, err)
	}
	held := strings.Replace(published[0], ".published.", ".held.", 1)
	must(t, os.Rename(published[0], held))
	before = files(t, dir)
	for _, r := range []revision{older, newer} {
		texts := []string{filepath.Base(held), `state "held"`}
		if r == newer {
			texts = append(texts, "a newer sakeeper may have written it")
		}
		expectRefused(t, r, []string{"keys", "rotate", "--key-dir=" + dir}, texts...)
		expectRefused(t, r, []string{"keys", "status", "--key-dir=" + dir}, texts...)
		expectRefused(t, r, []string{
			"signer", "--key-dir=" + dir, "--socket=" + filepath.Join(t.TempDir(), "s"), "--metrics-bind-address=0", "--health-probe-bind-address=0",
		}, texts...)
	}
	if diff := cmp.Diff(before, files(t, dir)); diff != "" {
		t.Errorf("files after the refusals (-want +got):\n%s", diff)
	}
}

// files returns the content of the files of a directory, as sums, but for its lock.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	must(t, filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || entry.Name() == ".lock" {
			return err
		}
		content, err := os.ReadFile(path)
		all[entry.Name()] = fmt.Sprintf("%x", sha256.Sum256(content))
		return err
	}))
	return all
}
