package tokens

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"k8s.io/apiserver/pkg/features"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
)

const (
	defaultCases = 20000
	// fewCases is the number of cases below which coverage is not required.
	fewCases = 10000
)

func TestTokensAreJudgedAsInTree(t *testing.T) {
	if err := utilfeature.DefaultMutableFeatureGate.Set(string(features.APIServerWebhookAuthenticationToken) + "=true"); err != nil {
		t.Fatal(err)
	}
	seed := number(t, "DIFFERENTIAL_SEED", uint64(time.Now().UnixNano()))
	fmt.Printf("DIFFERENTIAL_SEED=%d\n", seed)
	cases := number(t, "DIFFERENTIAL_CASES", defaultCases)
	keys := newRing(t)
	ours := startSakeeper(t, keys.file)
	g := generator{Rand: rand.New(rand.NewPCG(seed, 1)), ring: keys}
	reached := coverage{}
	for i := range cases {
		asked := g.make()
		want, err := inTree(t.Context(), keys.public, asked.question)
		if err != nil {
			t.Fatal(err)
		}
		got, err := ours.answer(asked.question)
		if err != nil {
			t.Fatal(err)
		}
		accepted := want.Reason == ""
		if asked.unknownKind && asked.kind != "legacy" {
			if got.Reason == "" {
				t.Errorf("case %d: %v\nsakeeper accepts it", i, asked)
			}
			reached.count(asked, false)

			continue
		}
		if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(answer{}, "Reason"), cmpopts.EquateEmpty()); diff != "" || accepted != (got.Reason == "") {
			t.Errorf("case %d: %v\nin-tree says %q, sakeeper %q\n(-in-tree +sakeeper):\n%s\n", i, asked, want.Reason, got.Reason, diff)
			if reached["differences"]++; reached["differences"] > 10 {
				t.FailNow()
			}
		}
		reached.count(asked, accepted)
	}
	if cases >= fewCases && !t.Failed() {
		reached.require(t)
	}
}

func number(t *testing.T, variable string, otherwise uint64) uint64 {
	t.Helper()
	text := os.Getenv(variable)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", variable, err)
	}

	return n
}

// coverage counts cases by what they reached.
type coverage map[string]int

func (c coverage) count(asked labelled, accepted bool) {
	verdict := "refused"
	if accepted {
		verdict = "accepted"
	}
	c[asked.kind+": "+verdict]++
	for _, label := range asked.labels {
		c[label+": "+verdict]++
	}
}

// require fails the test when a required label was not reached, so that the test cannot become
// empty.
func (c coverage) require(t *testing.T) {
	t.Helper()
	both := []string{"legacy", "account", "pod", "pod on a node", "secret", "node", "validating webhook", "mutating webhook", "RS256", "ES256", "ES384", "ES512", "its key", "no kid", "swapped kid", "another alg", "with typ", "audiences asked for",
		"account deleted", "pod deleted", "secret deleted", "node deleted", "pod gone", "node made again", "validating webhook gone", "mutating webhook gone", "validating webhook made again", "mutating webhook made again", "validating webhook deleted", "mutating webhook deleted", "secret made again", "secret marked invalid", "secret another token"}
	refused := []string{"unknown kid", "unknown key", "unknown key under a known kid", "alg none", "HS256 with the public key", "no signature", "damaged signature", "account gone", "account made again", "JSON", "one part more", "padding", "iss twice", "sub twice", "kubernetes.io twice", "without iss", "legacy of a name that no account can have"}
	for _, label := range both {
		if c[label+": accepted"] == 0 || c[label+": refused"] == 0 {
			t.Errorf("%s: %d cases were accepted and %d refused", label, c[label+": accepted"], c[label+": refused"])
		}
	}
	for _, label := range refused {
		if c[label+": accepted"] > 0 || c[label+": refused"] == 0 {
			t.Errorf("%s: %d cases were accepted and %d refused", label, c[label+": accepted"], c[label+": refused"])
		}
	}
	for _, label := range slices.Sorted(maps.Keys(c)) {
		if c[label] > 50 || strings.HasPrefix(label, "aud") {
			t.Logf("%6d %s", c[label], label)
		}
	}
}
