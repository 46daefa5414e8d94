package main

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sakeeper/sakeeper/cmd/sakeeper/internal/cmdtest"
)

var update = flag.Bool("update", false, "write testdata anew")

func TestMain(m *testing.M) {
	flag.Parse()
	cmdtest.VerifyNoLeaks(m)
}

func TestHelp(t *testing.T) {
	cases := map[string]struct {
		in   []string
		want string // a file in testdata/help
	}{
		"sakeeper --help":               {in: []string{"--help"}, want: "sakeeper.txt"},
		"sakeeper":                      {in: []string{}, want: "sakeeper.txt"},
		"sakeeper controllers --help":   {in: []string{"controllers", "--help"}, want: "controllers.txt"},
		"sakeeper help controllers":     {in: []string{"help", "controllers"}, want: "controllers.txt"},
		"sakeeper webhook --help":       {in: []string{"webhook", "--help"}, want: "webhook.txt"},
		"sakeeper agent --help":         {in: []string{"agent", "--help"}, want: "agent.txt"},
		"sakeeper signer --help":        {in: []string{"signer", "--help"}, want: "signer.txt"},
		"sakeeper authenticator --help": {in: []string{"authenticator", "--help"}, want: "authenticator.txt"},
		"sakeeper keys --help":          {in: []string{"keys", "--help"}, want: "keys.txt"},
		"sakeeper keys rotate --help":   {in: []string{"keys", "rotate", "--help"}, want: "keys-rotate.txt"},
		"sakeeper keys status --help":   {in: []string{"keys", "status", "--help"}, want: "keys-status.txt"},
		"sakeeper keys prune --help":    {in: []string{"keys", "prune", "--help"}, want: "keys-prune.txt"},
		"sakeeper keys import --help":   {in: []string{"keys", "import", "--help"}, want: "keys-import.txt"},
		"sakeeper policies --help":      {in: []string{"policies", "--help"}, want: "policies.txt"},
		"sakeeper probe --help":         {in: []string{"probe", "--help"}, want: "probe.txt"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			if err := run(t.Context(), tc.in, &stdout, &stderr); err != nil {
				t.Fatal(err)
			}
			if stderr.Len() > 0 {
				t.Errorf("stderr: %s", &stderr)
			}
			expectGolden(t, filepath.Join("testdata", "help", tc.want), stdout.String())
		})
	}
}

// TestHelpEndsWithAnExampleAndAChapter: for each command.
func TestHelpEndsWithAnExampleAndAChapter(t *testing.T) {
	for name, text := range helps(t) {
		match := regexp.MustCompile(`\nExample:\n[^\n]+\n(?:  [^\n]+\n|\n)*\nChapter: (\S+)\n$`).FindStringSubmatch(text)
		if match == nil {
			t.Errorf("%q: its help does not end with an example and a chapter", name)
		} else if _, err := os.Stat(filepath.Join(repository, match[1])); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func expectGolden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s, after a wanted change run the test with -update (-want +got):\n%s", path, diff)
	}
}

func TestVersion(t *testing.T) {
	var stdout bytes.Buffer
	if err := run(t.Context(), []string{"--version"}, &stdout, &stdout); err != nil {
		t.Fatal(err)
	}
	if want := "sakeeper version " + buildVersion() + "\n"; stdout.String() != want || buildVersion() == "" {
		t.Errorf("got %q, want %q", &stdout, want)
	}
}

func TestErrorsOfTheCommandLine(t *testing.T) {
	cases := map[string]struct {
		in   []string
		want string
	}{
		"no such command": {in: []string{"nonsense"}, want: `unknown command "nonsense" for "sakeeper"`},
		"an argument":     {in: []string{"controllers", "nonsense"}, want: `unknown command "nonsense" for "sakeeper controllers"`},
		"no such flag":    {in: []string{"controllers", "--nonsense"}, want: "unknown flag: --nonsense; see 'sakeeper controllers --help'"},
		"not a duration":  {in: []string{"controllers", "--leader-elect-retry-period=2"}, want: `invalid argument "2" for "--leader-elect-retry-period" flag`},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			err := run(t.Context(), tc.in, &out, &out)
			if err == nil || !strings.HasPrefix(err.Error(), tc.want) {
				t.Errorf("got %v, want %s", err, tc.want)
			}
			if out.Len() > 0 {
				t.Errorf("printed, where main prints the error: %s", &out)
			}
		})
	}
}
