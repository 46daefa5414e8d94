package cache

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/rand"
)

func TestIsGeneratedName(t *testing.T) {
	cases := map[string]struct {
		inAccount, inName string
		want              bool
	}{
		"the form":                                {"robot", "robot-token-x7z9q", true},
		"every letter, first part":                {"robot", "robot-token-bcdfg", true},
		"every letter, second part":               {"robot", "robot-token-hjklm", true},
		"every letter, third part":                {"robot", "robot-token-npqrs", true},
		"every letter, fourth part":               {"robot", "robot-token-tvwxz", true},
		"every digit":                             {"robot", "robot-token-24567", true},
		"the last digits":                         {"robot", "robot-token-89898", true},
		"an account that has -token- in its name": {"a-token-b", "a-token-b-token-x7z9q", true},
		"that of the account before its -token-":  {"a", "a-token-b-token-x7z9q", false},
		"and the other way round":                 {"a-token-b", "a-token-x7z9q", false},
		"an account that looks generated itself":  {"a-token-x7z9q", "a-token-x7z9q", false},
		"another account":                         {"robot", "robots-token-x7z9q", false},
		"an account that the name ends with":      {"bot", "robot-token-x7z9q", false},
		"too short":                               {"robot", "robot-token-x7z9", false},
		"too long":                                {"robot", "robot-token-x7z9qq", false},
		"nothing behind the dash":                 {"robot", "robot-token-", false},
		"a vowel":                                 {"robot", "robot-token-x7a9q", false},
		"a vowel at the start":                    {"robot", "robot-token-a7z9q", false},
		"a digit that reads like a letter":        {"robot", "robot-token-x1z9q", false},
		"three that read like o, l and e":         {"robot", "robot-token-0130x", false},
		"a letter that looks like a v":            {"robot", "robot-token-yyyyy", false},
		"upper case":                              {"robot", "robot-token-X7Z9Q", false},
		"five bytes of other letters":             {"robot", "robot-token-xé9q", false},
		"dockercfg":                               {"robot", "robot-dockercfg-x7z9q", false},
		"no account":                              {"", "robot-token-x7z9q", false},
		"something before":                        {"robot", "my-robot-token-x7z9q", false},
		"a long account, which is cut":            {strings.Repeat("a", 60), strings.Repeat("a", 58) + "x7z9q", true},
		"a long account that was not cut":         {strings.Repeat("a", 60), strings.Repeat("a", 60) + "-token-x7z9q", false},
		"cut in the middle of what is between":    {strings.Repeat("a", 55), strings.Repeat("a", 55) + "-tox7z9q", true},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if got := IsGeneratedName(tc.inAccount, tc.inName); got != tc.want {
				t.Errorf("%q for %q: got %t, want %t", tc.inName, tc.inAccount, got, tc.want)
			}
		})
	}
	t.Run("all that the API machinery generates", func(t *testing.T) {
		for length := range 253 {
			account := strings.Repeat("r", length)
			base := (account + "-token-")[:min(length+len("-token-"), 63-5)]
			if name := base + rand.String(5); !IsGeneratedName(account, name) {
				t.Fatal(name)
			}
		}
	})
}

func TestGenerateName(t *testing.T) {
	cases := map[string]struct {
		in       string
		wantBase string
	}{
		"a short account": {in: "robot", wantBase: "robot-token-"},
		"one that just fits": {
			in: strings.Repeat("a", 51), wantBase: strings.Repeat("a", 51) + "-token-",
		},
		"one that does not": {
			in: strings.Repeat("a", 52), wantBase: strings.Repeat("a", 52) + "-token",
		},
		"the longest": {
			in: strings.Repeat("a", 253), wantBase: strings.Repeat("a", 58),
		},
		"one that is cut at a dot": {
			in: strings.Repeat("a", 57) + ".b", wantBase: strings.Repeat("a", 57) + ".",
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got := GenerateName(tc.in)
			if base, ok := strings.CutPrefix(got, tc.wantBase); !ok || len(base) != 5 {
				t.Errorf("got %q, want %q and five more", got, tc.wantBase)
			}
			if problems := validation.NameIsDNSSubdomain(got, false); len(problems) > 0 {
				t.Errorf("%q: %v", got, problems)
			}
			if !IsGeneratedName(tc.in, got) {
				t.Errorf("%q is not taken for generated", got)
			}
			if GenerateName(tc.in) == got { // once in fourteen million
				t.Errorf("made up %q twice", got)
			}
		})
	}
}
