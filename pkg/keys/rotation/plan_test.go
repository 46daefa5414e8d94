package rotation_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sakeeper/sakeeper/pkg/keys"
	"github.com/sakeeper/sakeeper/pkg/keys/rotation"
	"github.com/sakeeper/sakeeper/pkg/testkit"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func at(hours float64) time.Time { return start.Add(time.Duration(hours * float64(time.Hour))) }

// entry returns the key of a vector, in a state since an hour of the test.
func entry(vector string, state keys.State, since float64) keys.Entry {
	return keys.Entry{Private: testkit.Keys(vector).Signing()}.WithState(state, at(since))
}

func noted(m keys.Entry, note keys.Metadata) keys.Entry {
	m.Metadata = note
	return m
}

func filesOf(t testing.TB, entries ...keys.Entry) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	for _, m := range entries {
		content, err := m.Encode()
		if err != nil {
			t.Fatal(err)
		}
		files[m.FileName()] = content
	}
	return files
}

func keyringOf(t testing.TB, entries ...keys.Entry) *keys.Keyring {
	t.Helper()
	ring, err := keys.ParseKeyring(filesOf(t, entries...))
	if err != nil {
		t.Fatal(err)
	}
	return ring
}

// stepFields is a step with the file name in place of the key.
type stepFields struct {
	Action    rotation.Action
	Key       string
	Since     time.Time
	NotBefore time.Time
	Reason    string
}

func fieldsOf(step rotation.Step) stepFields {
	key := step.File
	if step.Key.State != "" {
		key = step.Key.FileName()
	}
	return stepFields{step.Action, key, step.Since, step.NotBefore, step.Reason}
}

func TestPlanRotation(t *testing.T) {
	settings := rotation.Settings{PublishFor: time.Hour, MaxExpiration: 24 * time.Hour}
	forced, later := settings, settings
	forced.Force, later.RotateAfter = true, 30*24*time.Hour
	old, next, other := entry("p256", keys.StateSigning, 0), entry("p384", keys.StatePublished, 2), entry("p521", keys.StatePublished, 3)
	const tooEarly = "the next key must be published for 1h0m0s before it signs, because copies of the published keys are kept that long"
	cases := map[string]struct {
		in       []keys.Entry
		now      float64
		settings rotation.Settings
		want     stepFields
	}{
		"nothing is there":                       {nil, 1, settings, stepFields{Action: rotation.ActionFirst, Since: at(1), Reason: "there is no key that signs"}},
		"only keys that verify":                  {[]keys.Entry{entry("p256", keys.StateRetired, 0)}, 1, settings, stepFields{Action: rotation.ActionPublish, Since: at(1), Reason: "there is no key that signs, and a new one must be published first"}},
		"only keys that verify, and forced":      {[]keys.Entry{entry("p256", keys.StateRetired, 0)}, 1, forced, stepFields{Action: rotation.ActionFirst, Since: at(1), Reason: "there is no key that signs"}},
		"a published key without private half":   {[]keys.Entry{old, next.WithoutPrivateKey()}, 9, forced, stepFields{Action: rotation.ActionNone, Key: next.WithoutPrivateKey().FileName(), Reason: "key " + next.ID() + " cannot sign: only its public half is here. Add its private half, or remove it with 'sakeeper keys prune --force'"}},
		"a signing key without private half":     {[]keys.Entry{old, entry("p384", keys.StateSigning, 3).WithoutPrivateKey()}, 3, settings, stepFields{Action: rotation.ActionPublish, Since: at(3), Reason: "no key is published as the next one"}},
		"a key signs":                            {[]keys.Entry{old}, 1, settings, stepFields{Action: rotation.ActionPublish, Since: at(1), Reason: "no key is published as the next one"}},
		"it is to sign longer":                   {[]keys.Entry{old}, 1, later, stepFields{Action: rotation.ActionNone, Key: old.FileName(), NotBefore: at(30 * 24), Reason: "the key that signs is to sign for 720h0m0s"}},
		"it has signed long enough":              {[]keys.Entry{old}, 30 * 24, later, stepFields{Action: rotation.ActionPublish, Since: at(30 * 24), Reason: "no key is published as the next one"}},
		"the next one is published":              {[]keys.Entry{old, next}, 2.9, settings, stepFields{Action: rotation.ActionNone, Key: next.FileName(), NotBefore: at(3), Reason: tooEarly}},
		"the next one is published, and forced":  {[]keys.Entry{old, next}, 2.9, forced, stepFields{Action: rotation.ActionPromote, Key: next.FileName(), Since: at(2.9), Reason: "forced, before all verifiers could fetch it"}},
		"it was published long enough":           {[]keys.Entry{old, next}, 3, settings, stepFields{Action: rotation.ActionPromote, Key: next.FileName(), Since: at(3), Reason: "it was published long enough"}},
		"of two the one that waited longest":     {[]keys.Entry{old, next, other}, 3.5, settings, stepFields{Action: rotation.ActionPromote, Key: next.FileName(), Since: at(3.5), Reason: "it was published long enough"}},
		"nothing signs, and one is published":    {[]keys.Entry{next}, 2.5, settings, stepFields{Action: rotation.ActionNone, Key: next.FileName(), NotBefore: at(3), Reason: tooEarly}},
		"a clock that is behind the signing key": {[]keys.Entry{entry("p256", keys.StateSigning, 9), entry("p384", keys.StatePublished, 2)}, 4, settings, stepFields{Action: rotation.ActionPromote, Key: next.FileName(), Since: at(9).Add(time.Second), Reason: "it was published long enough"}},
		"a newer key signs":                      {[]keys.Entry{old, entry("p384", keys.StateSigning, 3)}, 3, settings, stepFields{Action: rotation.ActionRetire, Key: old.FileName(), Since: at(3), Reason: "a newer key signs"}},
		"retiring was cut short": {
			[]keys.Entry{old, entry("p384", keys.StateSigning, 3), entry("p256", keys.StateRetired, 4)}, 5, settings,
			stepFields{Action: rotation.ActionCleanUp, Key: old.FileName(), Reason: "its key has another state since"},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, fieldsOf(rotation.PlanRotation(keyringOf(t, tc.in...), at(tc.now), tc.settings))); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestPlanRemovals(t *testing.T) {
	settings := rotation.Settings{MaxExpiration: 24 * time.Hour}
	signing, retired, legacy := entry("p256", keys.StateSigning, 10), entry("p384", keys.StateRetired, 10), entry("p521", keys.StateLegacy, 10)
	longer := noted(retired, keys.Metadata{RetiredAt: at(9), MaxExpiration: 48 * time.Hour})
	none, carried := rotation.TokenSecretCounts{}, rotation.TokenSecretCounts{retired.ID(): 3, legacy.ID(): 2}
	dead := 10 + 24 + 5.0/60
	cases := map[string]struct {
		in     []keys.Entry
		now    float64
		counts rotation.TokenSecretCounts
		want   []stepFields
	}{
		"a key that signs":    {[]keys.Entry{signing}, 1000, none, nil},
		"a key that may sign": {[]keys.Entry{signing, entry("p384", keys.StatePublished, 10)}, 1000, none, nil},
		"a key that has to be retired first": {
			[]keys.Entry{signing, entry("p384", keys.StateSigning, 9)}, 1000, none,
			[]stepFields{{Action: rotation.ActionNone, Key: entry("p384", keys.StateSigning, 9).FileName(), Reason: "it is to be retired: run 'sakeeper keys rotate'"}},
		},
		"a moment too early":     {[]keys.Entry{signing, retired}, dead - 0.001, none, []stepFields{{Action: rotation.ActionNone, Key: retired.FileName(), NotBefore: at(dead), Reason: "bound tokens that it signed live up to 24h0m0s"}}},
		"its last token is dead": {[]keys.Entry{signing, retired}, dead, none, []stepFields{{Action: rotation.ActionRemove, Key: retired.FileName(), Reason: "no token of it is alive"}}},
		"its tokens lived longer": {
			[]keys.Entry{signing, longer}, dead, none,
			[]stepFields{{Action: rotation.ActionNone, Key: longer.FileName(), NotBefore: at(9 + 48 + 5.0/60), Reason: "bound tokens that it signed live up to 48h0m0s"}},
		},
		"token Secrets were not counted": {
			[]keys.Entry{signing, retired, legacy}, dead, nil,
			[]stepFields{
				{Action: rotation.ActionNone, Key: retired.FileName(), Reason: "token Secrets may carry tokens of it; ask the API server with --kubeconfig"},
				{Action: rotation.ActionNone, Key: legacy.FileName(), Reason: "token Secrets may carry tokens of it; ask the API server with --kubeconfig"},
			},
		},
		"Secrets carry its tokens": {
			[]keys.Entry{signing, retired, legacy}, dead, carried,
			[]stepFields{
				{Action: rotation.ActionHide, Key: retired.FileName(), Since: at(dead), Reason: "no bound token of it is alive, and 3 token Secrets carry one"},
				{Action: rotation.ActionNone, Key: legacy.FileName(), Reason: "2 token Secrets carry a token of it; 'sakeeper controllers --resign-tokens=all' gives them new ones"},
			},
		},
		"a legacy key without tokens":  {[]keys.Entry{signing, legacy}, dead, none, []stepFields{{Action: rotation.ActionRemove, Key: legacy.FileName(), Reason: "no token of it is alive"}}},
		"a legacy key of a moment ago": {[]keys.Entry{signing, legacy}, 11, none, []stepFields{{Action: rotation.ActionNone, Key: legacy.FileName(), NotBefore: at(dead), Reason: "bound tokens that it signed live up to 24h0m0s"}}},
		"what was cut short": {
			[]keys.Entry{signing, retired, entry("p384", keys.StateSigning, 9)}, dead, none,
			[]stepFields{{Action: rotation.ActionCleanUp, Key: entry("p384", keys.StateSigning, 9).FileName(), Reason: "its key has another state since"}},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			var got []stepFields
			for _, step := range rotation.PlanRemovals(keyringOf(t, tc.in...), at(tc.now), tc.counts, settings) {
				got = append(got, fieldsOf(step))
			}
			byName := func(list []stepFields) string {
				var lines []string
				for _, line := range list {
					lines = append(lines, string(line.Action)+" "+line.Key+" "+line.Since.String()+" "+line.NotBefore.String()+" "+line.Reason)
				}
				return strings.Join(lines, "\n")
			}
			if len(got) != len(tc.want) {
				t.Fatalf("got\n%s\nwant\n%s", byName(got), byName(tc.want))
			}
			for _, want := range tc.want {
				if !strings.Contains(byName(got), byName([]stepFields{want})) {
					t.Errorf("got\n%s\nwant\n%s", byName(got), byName([]stepFields{want}))
				}
			}
		})
	}
}
