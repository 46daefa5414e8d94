package keys

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/client-go/util/keyutil"
	testingclock "k8s.io/utils/clock/testing"

	"k8s.io/utils/clock"

	"github.com/sakeeper/sakeeper/cmd/sakeeper/internal/cmdtest"
)

// keysRun runs 'sakeeper keys' at the clock's time, and replaces the ids of keys in its output.
func keysRun(t *testing.T, clock clock.Clock, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	cmd := NewCommand("v0", clock)
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.SetArgs(args)
	cmd.SetOut(&out)
	err := cmd.ExecuteContext(t.Context())
	return regexp.MustCompile(`[A-Za-z0-9_-]{43}`).ReplaceAllString(out.String(), "<id>"), err
}

// TestKeysRotateByHand is a rotation of two keys by hand, each command twice.
func TestKeysRotateByHand(t *testing.T) {
	f := cmdtest.NewFiles(t)
	clock := testingclock.NewFakeClock(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))
	dir := "--key-dir=" + f.Path("keys")
	steps := []struct {
		pass time.Duration
		in   string
		want []string
		err  string
	}{
		{in: "import --max-token-expiration=8760h --file=" + f.Path("good.key"), want: []string{"key <id>: imported as signing"}},
		{in: "import --max-token-expiration=8760h --file=" + f.Path("good.key"), want: []string{"key <id>: is signing already"}},
		{in: "rotate", want: []string{
			"key <id>: published (no key is published as the next one)",
			"nothing to do before 2026-01-02T04:04:05Z: the next key must be published for 1h0m0s before it signs, because copies of the published keys are kept that long",
		}},
		{pass: 59 * time.Minute, in: "rotate", want: []string{"nothing to do before 2026-01-02T04:04:05Z: the next key must be published for 1h0m0s before it signs, because copies of the published keys are kept that long"}},
		{in: "rotate --publish-for=2h", want: []string{"nothing to do before 2026-01-02T05:04:05Z: the next key must be published for 2h0m0s before it signs, because copies of the published keys are kept that long"}},
		{pass: time.Minute, in: "rotate", want: []string{
			"key <id>: signs now (it was published long enough)", "key <id>: retired, and its private half destroyed (a newer key signs)",
		}},
		{in: "rotate --rotate-after=720h", want: []string{"nothing to do before 2026-02-01T04:04:05Z: the key that signs is to sign for 720h0m0s"}},
		{in: "prune", want: []string{"key <id>: stays until 2027-01-02T04:09:05Z: bound tokens that it signed live up to 8760h0m0s"}},
		{pass: 8760*time.Hour + 5*time.Minute, in: "prune", want: []string{"key <id>: stays: token Secrets may carry tokens of it; ask the API server with --kubeconfig"}},
		{in: "prune --force", err: "--force needs --key, with 8 characters of the key's id at least"},
		{in: "prune --force --key=12345678", err: `--key: 0 keys have an id that begins with "12345678"`},
		{in: "rotate --algorithm=HS256", err: `--algorithm: "HS256" is not one of [RS256 ES256 ES384 ES512]`},
	}
	for _, step := range steps {
		clock.Step(step.pass)
		out, err := keysRun(t, clock, append(strings.Fields(step.in), dir)...)
		if step.err != "" {
			if err == nil || err.Error() != step.err {
				t.Errorf("%s: %v", step.in, err)
			}
			continue
		}
		cmdtest.MustNil(t, err)
		if diff := cmp.Diff(strings.Join(step.want, "\n")+"\n", out); diff != "" {
			t.Errorf("%s (-want +got):\n%s", step.in, diff)
		}
	}
	out, err := keysRun(t, clock, "status", dir)
	cmdtest.MustNil(t, err)
	want := regexp.MustCompile(`^KEY +ALGORITHM +STATE +SINCE +TOKEN SECRETS +NEXT STEP
\S{16} +ES256 +(signing +365d ago +\? +publish now: no key is published as the next one|retired +365d ago +\? +-: token Secrets may carry tokens of it; ask the API server with --kubeconfig)
\S{16} +ES256 +(signing|retired) .*
$`)
	if !want.MatchString(out) {
		t.Errorf("status:\n%s", out)
	}
	entries, err := os.ReadDir(f.Path("keys"))
	cmdtest.MustNil(t, err)
	var retired string
	for _, entry := range entries {
		if _, after, ok := strings.Cut(entry.Name(), ".retired."); ok {
			retired = strings.TrimSuffix(after, ".pub")
		}
	}
	out, err = keysRun(t, clock, "prune", "--force", "--key="+retired, dir)
	cmdtest.MustNil(t, err)
	if out != "key <id>: removed (forced)\n" {
		t.Errorf("forced: %s", out)
	}
	out, err = keysRun(t, clock, "status", "-o=json", dir)
	cmdtest.MustNil(t, err)
	if strings.Count(out, `"id"`) != 1 || !strings.Contains(out, `"signs": true`) || strings.Contains(out, "tokenSecrets") {
		t.Errorf("status: %s", out)
	}
}

func TestKeysWaits(t *testing.T) {
	f := cmdtest.NewFiles(t)
	clock := testingclock.NewFakeClock(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))
	dir := "--key-dir=" + f.Path("keys")
	_, err := keysRun(t, clock, "rotate", "--algorithm=ES256", dir)
	cmdtest.MustNil(t, err)
	done := make(chan string)
	go func() {
		out, err := keysRun(t, clock, "rotate", "--wait", dir)
		if err != nil {
			out = err.Error()
		}
		done <- out
	}()
	for !clock.HasWaiters() {
		time.Sleep(time.Millisecond) // until the goroutine waits; the test ends with its time otherwise
	}
	clock.Step(time.Hour)
	want := `key <id>: published (no key is published as the next one)
waiting until 2026-01-02T04:04:05Z: the next key must be published for 1h0m0s before it signs, because copies of the published keys are kept that long
key <id>: signs now (it was published long enough)
key <id>: retired, and its private half destroyed (a newer key signs)
`
	if diff := cmp.Diff(want, <-done); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// TestForcedPruneRemovesAllFilesOfAKey: also the file of the private half that is left when the
// process ended while it retired the key.
func TestForcedPruneRemovesAllFilesOfAKey(t *testing.T) {
	f := cmdtest.NewFiles(t)
	clock := testingclock.NewFakeClock(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))
	dir := "--key-dir=" + f.Path("keys")
	run := func(args ...string) string {
		t.Helper()
		out, err := keysRun(t, clock, append(args, dir)...)
		cmdtest.MustNil(t, err)
		return out
	}
	run("import", "--max-token-expiration=8760h", "--file="+f.Path("good.key"))
	files := func() []string {
		t.Helper()
		found, err := filepath.Glob(f.Path("keys/2*"))
		cmdtest.MustNil(t, err)
		return found
	}
	stolen := files()[0]
	content, err := os.ReadFile(stolen)
	cmdtest.MustNil(t, err)
	run("rotate")
	clock.Step(time.Hour)
	run("rotate")
	cmdtest.MustNil(t, os.WriteFile(stolen, content, 0o600))
	id := strings.Split(filepath.Base(stolen), ".")[2]
	if out := run("prune", "--force", "--key="+id); !strings.Contains(out, "removed (forced)") {
		t.Errorf("got %s", out)
	}
	for _, file := range files() {
		if strings.Contains(file, id) {
			t.Errorf("%s is left", file)
		}
	}
}

// TestAPIServersReadTheFilesToo: kubeadm starts API servers with key files, which README
// makes of a directory.
func TestAPIServersReadTheFilesToo(t *testing.T) {
	f := cmdtest.NewFiles(t)
	clock := testingclock.NewFakeClock(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))
	for _, args := range []string{"import --max-token-expiration=8760h --file=" + f.Path("good.key"), "rotate", "rotate", "rotate"} {
		_, err := keysRun(t, clock, append(strings.Fields(args), "--key-dir="+f.Path("keys"))...)
		cmdtest.MustNil(t, err)
		clock.Step(time.Hour)
	}
	found, err := filepath.Glob(f.Path("keys/2*"))
	cmdtest.MustNil(t, err)
	if len(found) != 3 {
		t.Errorf("found %v", found)
	}
	for _, file := range found {
		content, err := os.ReadFile(file)
		cmdtest.MustNil(t, err)
		if strings.HasSuffix(file, ".key") {
			_, err = keyutil.ParsePrivateKeyPEM(content)
		} else {
			_, err = keyutil.ParsePublicKeysPEM(content)
		}
		if err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
}

// TestKeysStayAsLongAsExtendedTokens: kube-apiserver gives pods tokens of a year, also where
// --service-account-max-token-expiration is a day.
func TestKeysStayAsLongAsExtendedTokens(t *testing.T) {
	const off, until = " --service-account-extend-token-expiration=false", "key <id>: stays until "
	const year, day = "2027-01-02T04:09:05Z: bound tokens that it signed live up to 8760h0m0s\n", "2026-01-03T04:09:05Z: bound tokens that it signed live up to 24h0m0s\n"
	cases := map[string]struct{ inImport, inPrune, want string }{
		"extended":                         {want: until + year},
		"no longer extended":               {inPrune: off, want: until + year},
		"never extended":                   {inImport: off, inPrune: off, want: until + day},
		"extended since":                   {inImport: off, want: until + year},
		"longer than a year, not extended": {inImport: " --max-token-expiration=17520h" + off, inPrune: off, want: until + "2028-01-02T04:09:05Z: bound tokens that it signed live up to 17520h0m0s\n"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			f := cmdtest.NewFiles(t)
			clock := testingclock.NewFakeClock(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))
			run := func(line string) string {
				out, err := keysRun(t, clock, append(strings.Fields(line), "--key-dir="+f.Path("keys"))...)
				cmdtest.MustNil(t, err)
				return out
			}
			run("import --max-token-expiration=24h --file=" + f.Path("good.key") + tc.inImport)
			run("rotate --max-token-expiration=24h")
			clock.Step(time.Hour)
			run("rotate --max-token-expiration=24h")
			if diff := cmp.Diff(tc.want, run("prune --max-token-expiration=24h"+tc.inPrune)); diff != "" {
				t.Errorf("prune (-want +got):\n%s", diff)
			}
			if out := run("status --max-token-expiration=24h" + tc.inPrune); !strings.Contains(out, strings.TrimPrefix(tc.want, until)) {
				t.Errorf("status: %s", out)
			}
		})
	}
}

func TestKeysRefuses(t *testing.T) {
	f := cmdtest.NewFiles(t)
	cases := map[string]struct {
		in   string
		want string
	}{
		"nothing":                 {"status", "either --key-dir or --secret is required"},
		"both":                    {"prune --key-dir=% --secret=a/b", "either --key-dir or --secret is required"},
		"no namespace":            {"rotate --secret=name", `--secret: "name" is not namespace/name`},
		"a negative wait":         {"rotate --key-dir=%/k --publish-for=-1s", "--publish-for: -1s is negative"},
		"an expiration too short": {"rotate --key-dir=%/k --max-token-expiration=9m", "--max-token-expiration: 9m0s is less than 10m, the least that an API server grants"},
		"a directory of others":   {"rotate --key-dir=%", "--key-dir: %: edwards.key: is not named "},
		"no file":                 {"import --key-dir=%/k", "--file is required"},
		"a missing file":          {"import --key-dir=%/k --file=%/missing", "--file: open %/missing: no such file or directory"},
		"an unknown expiration":   {"import --key-dir=%/k --file=%/good.key", "--max-token-expiration is required with a key that has signed: "},
		"a retired one as well":   {"import --key-dir=%/k --file=%/public.key --state=retired", "--max-token-expiration is required with a key that has signed: "},
		"half of a key":           {"import --key-dir=%/k --file=%/public.key", "--file: %/public.key: holds no private key"},
		"several keys":            {"import --key-dir=%/k --file=%/two.key --state=legacy", "--file: %/two.key: holds 2 keys; import each of a file of its own"},
		"no such state":           {"import --key-dir=%/k --file=%/good.key --state=active", `--state: "active" is not one of [published signing retired legacy]`},
		"a missing directory":     {"status --key-dir=%/missing", "--key-dir: %/missing: no such file or directory"},
		"an unknown output":       {"status --key-dir=% --output=yaml", `--output: "yaml" is not one of table, json`},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			_, err := keysRun(t, testingclock.NewFakeClock(time.Now()), strings.Fields(strings.ReplaceAll(tc.in, "%", string(f)))...)
			if err == nil || !strings.HasPrefix(err.Error(), strings.ReplaceAll(tc.want, "%", string(f))) {
				t.Errorf("got %v, want %s", err, tc.want)
			}
		})
	}
}
