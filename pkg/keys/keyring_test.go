package keys_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sakeeper/sakeeper/pkg/keys"
)

// Names of the vectors in a ring, by state and the hour of entry.
const (
	p256At1 = "20260101T010000Z.%.SoABiieYuNx4UdqY"
	p384At2 = "20260101T020000Z.%.vlMWzAmXymTI56Zv"
	p521At3 = "20260101T030000Z.%.7uTxMcOtFiDDCk9_"
	rsaAt4  = "20260101T040000Z.%.JHJehTTTZlsspKHT"
)

func nameIn(state keys.State, pattern string) string {
	suffix := ".pub"
	if state == keys.StatePublished || state == keys.StateSigning {
		suffix = ".key"
	}
	return strings.Replace(pattern, "%", string(state), 1) + suffix
}

func hour(h int) time.Time { return time.Date(2026, 1, 1, h, 0, 0, 0, time.UTC) }

// directory is a key directory with these files, by name the vector that they hold.
func directory(t *testing.T, files map[string]string) keys.Directory {
	t.Helper()
	dir := t.TempDir()
	for name, vector := range files {
		content := vector
		if !strings.Contains(vector, " ") {
			content = mustRead(t, vector)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return keys.Directory(dir)
}

func TestDirectoryLoad(t *testing.T) {
	cases := map[string]struct {
		in                         map[string]string
		wantSigning                string
		wantPublished, wantVerfied []string
	}{
		"one key that signs": {
			map[string]string{nameIn(keys.StateSigning, p256At1): "p256-pkcs8"},
			p256ID, []string{p256ID}, []string{p256ID},
		},
		"each state": {
			map[string]string{
				nameIn(keys.StateSigning, p384At2): "p384-pkcs8", nameIn(keys.StatePublished, p521At3): "p521-pkcs8",
				nameIn(keys.StateRetired, rsaAt4): "rsa2048-public", nameIn(keys.StateLegacy, p256At1): "p256-public",
			},
			p384ID, []string{p384ID, p521ID, rsaID}, []string{p384ID, p521ID, rsaID, p256ID},
		},
		"of several that sign the newest": {
			map[string]string{nameIn(keys.StateSigning, p256At1): "p256-pkcs8", nameIn(keys.StateSigning, p521At3): "p521-pkcs8", nameIn(keys.StateSigning, p384At2): "p384-pkcs8"},
			p521ID, []string{p521ID, p384ID, p256ID}, []string{p521ID, p384ID, p256ID},
		},
		"a published key is newer than the one that signs": {
			map[string]string{nameIn(keys.StateSigning, p256At1): "p256-pkcs8", nameIn(keys.StatePublished, p521At3): "p521-pkcs8"},
			p256ID, []string{p256ID, p521ID}, []string{p256ID, p521ID},
		},
		"a key that was retired, and whose private half was not removed yet": {
			map[string]string{
				nameIn(keys.StateSigning, p384At2): "p384-pkcs8", nameIn(keys.StateSigning, p256At1): "p256-pkcs8",
				nameIn(keys.StateRetired, strings.Replace(p256At1, "T01", "T03", 1)): "p256-public",
			},
			p384ID, []string{p384ID, p256ID}, []string{p384ID, p256ID},
		},
		"files of a mount, and half-written ones": {
			map[string]string{nameIn(keys.StateSigning, p256At1): "p256-pkcs8", "..data": "p384-pkcs8", ".new": "half a key"},
			p256ID, []string{p256ID}, []string{p256ID},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			dir := directory(t, tc.in)
			set, err := dir.Load()
			if err != nil {
				t.Fatal(err)
			}
			if got := set.Signing().String(); got != tc.wantSigning || !set.Signing().CanSign() {
				t.Errorf("%s signs, want %s", got, tc.wantSigning)
			}
			loader, err := dir.OpenVerification()
			if err != nil {
				t.Fatal(err)
			}
			verifying := loader.Get()
			if verifying.Signing().CanSign() || verifying.Signing().String() != "" {
				t.Errorf("a set that verifies signs with %s", verifying.Signing())
			}
			for which, set := range map[string]*keys.Set{"the set that signs": set, "the set that verifies": verifying} {
				if diff := cmp.Diff(tc.wantPublished, idsOf(set.Published())); diff != "" {
					t.Errorf("%s: published (-want +got):\n%s", which, diff)
				}
				if diff := cmp.Diff(tc.wantVerfied, idsOf(set.Verification())); diff != "" {
					t.Errorf("%s: verified (-want +got):\n%s", which, diff)
				}
			}
		})
	}
}

// Each wanted line is one problem; the error has these lines and no other, each after the
// flag and the directory.
func TestDirectoryLoadReportsWhatIsIllegal(t *testing.T) {
	good := nameIn(keys.StateSigning, p256At1)
	cases := map[string]struct {
		in   map[string]string
		want []string
	}{
		"an empty directory": {nil, []string{"no key is in the state signing: import one with 'sakeeper keys import', or make one with 'sakeeper keys rotate'"}},
		"nothing that signs": {
			map[string]string{nameIn(keys.StatePublished, p256At1): "p256-pkcs8"}, []string{"no key is in the state signing"},
		},
		"half of what signs": {
			map[string]string{strings.Replace(good, ".key", ".pub", 1): "p256-public"},
			[]string{strings.Replace(good, ".key", ".pub", 1) + ": the private half of the key that signs is missing"},
		},
		"a name that means nothing": {
			map[string]string{good: "p256-pkcs8", "sa.key": "p384-pkcs8"}, []string{"sa.key: is not named <YYYYMMDDThhmmssZ>.<state>."},
		},
		"a time that is none": {
			map[string]string{strings.Replace(good, "0101T", "0230T", 1): "p256-pkcs8"}, []string{"20260230T010000Z.signing.SoABiieYuNx4UdqY.key: 20260230T010000Z is not a time"},
		},
		"an unknown state": {
			map[string]string{nameIn("active", p256At1): "p256-public"}, []string{nameIn("active", p256At1) + `: state "active" is not one of [published signing retired legacy]; a newer sakeeper may have written it: go back to that one`},
		},
		"a retired key that can still sign": {
			map[string]string{strings.Replace(nameIn(keys.StateRetired, p256At1), ".pub", ".key", 1): "p256-pkcs8"},
			[]string{"20260101T010000Z.retired.SoABiieYuNx4UdqY.key: a retired key must not have its private half any more"},
		},
		"a private key that says it is public": {
			map[string]string{nameIn(keys.StateLegacy, p256At1): "p256-pkcs8"}, []string{nameIn(keys.StateLegacy, p256At1) + ": holds a private key under a name that ends with .pub"},
		},
		"a public key that says it is private": {
			map[string]string{good: "p256-public"}, []string{good + ": holds no private key"},
		},
		"two keys in one file": {
			map[string]string{nameIn(keys.StateRetired, p256At1): mustRead(t, "p256-public") + mustRead(t, "p384-public")},
			[]string{nameIn(keys.StateRetired, p256At1) + ": holds 2 keys instead of one"},
		},
		"another key than the name says": {
			map[string]string{good: "p384-pkcs8"}, []string{good + ": holds key " + p384ID + ", and its name says SoABiieYuNx4UdqY"},
		},
		"a note that means nothing": {
			map[string]string{good: "sakeeper: retired-by=me\n" + mustRead(t, "p256-pkcs8")}, []string{good + `: the metadata "retired-by" is not known; a newer sakeeper may have written it: go back to that one`},
		},
		"all of it at once": {
			map[string]string{"README": "to be removed", good: "damaged indeed", nameIn(keys.StateRetired, rsaAt4): "rsa1024-public"},
			[]string{good + ": holds no PEM block", nameIn(keys.StateRetired, rsaAt4) + ": PEM block 1 (PUBLIC KEY): RSA key of 1024 bits", "README: is not named"},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			dir := directory(t, tc.in)
			_, err := dir.Load()
			if err == nil {
				t.Fatal("no error")
			}
			text, ok := strings.CutPrefix(err.Error(), "--key-dir: "+string(dir)+": ")
			got := strings.Split(text, "\n")
			if !ok || len(got) != len(tc.want) {
				t.Fatalf("got %v, want %d problems", err, len(tc.want))
			}
			for i, want := range tc.want {
				if !strings.HasPrefix(got[i], want) {
					t.Errorf("problem %d is %q, want %q", i+1, got[i], want)
				}
			}
		})
	}
	if _, err := keys.Directory("no/such").Load(); err == nil || err.Error() != "--key-dir: no/such: no such file or directory" {
		t.Errorf("a missing directory: %v", err)
	}
}

// TestEntryGoesThroughItsStates follows the file of a key through all states.
func TestEntryGoesThroughItsStates(t *testing.T) {
	for _, vector := range []string{"p256-pkcs8", "p384-pkcs8", "p521-pkcs8", "rsa2048-pkcs8"} {
		t.Run(vector, func(t *testing.T) {
			born := keys.Entry{Private: mustParsePrivate(t, vector), Metadata: keys.Metadata{MaxExpiration: 8760 * time.Hour}}.WithState(keys.StatePublished, hour(1))
			signing := born.WithState(keys.StateSigning, hour(2))
			retired := signing.WithState(keys.StateRetired, hour(3))
			legacy := retired.WithState(keys.StateLegacy, hour(4))
			for _, want := range []keys.Entry{born, signing, signing.WithoutPrivateKey(), retired, legacy} {
				content, err := want.Encode()
				if err != nil {
					t.Fatal(err)
				}
				ring, err := keys.ParseKeyring(map[string][]byte{want.FileName(): content})
				if err != nil {
					t.Fatal(err)
				}
				got := ring.Entries()[0]
				if got.FileName() != want.FileName() || got.ID() != want.ID() || got.Metadata != want.Metadata || got.Private.CanSign() != want.Private.CanSign() {
					t.Errorf("%s was read as %s with note %v, want %v", want.FileName(), got.FileName(), got.Metadata, want.Metadata)
				}
				if hasPrivate := strings.Contains(string(content), "PRIVATE"); hasPrivate != want.Private.CanSign() {
					t.Errorf("%s: private half in the file: %t", want.FileName(), hasPrivate)
				}
			}
			if legacy.Metadata.RetiredAt != hour(3) || !signing.Metadata.RetiredAt.IsZero() {
				t.Errorf("retired at %v, and while it signs %v", legacy.Metadata.RetiredAt, signing.Metadata.RetiredAt)
			}
		})
	}
}

func TestKeyringRetiredAt(t *testing.T) {
	dir := directory(t, map[string]string{
		nameIn(keys.StateSigning, p256At1): "p256-pkcs8", nameIn(keys.StateSigning, p384At2): "p384-pkcs8", nameIn(keys.StateSigning, p521At3): "p521-pkcs8",
		nameIn(keys.StateLegacy, rsaAt4): "sakeeper: retired-at=20251231T230000Z\n" + mustRead(t, "rsa2048-public"),
	})
	ring, err := dir.Keyring()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]time.Time{}
	for _, m := range ring.Entries() {
		got[m.ID()] = ring.RetiredAt(m)
	}
	want := map[string]time.Time{p256ID: hour(2), p384ID: hour(3), p521ID: {}, rsaID: hour(-1)}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("retired (-want +got):\n%s", diff)
	}
}

func TestSetWithLegacyKeys(t *testing.T) {
	p256, p384 := mustParsePublic(t, "p256-public"), mustParsePublic(t, "p384-public")
	plain := keys.NewSet(mustParsePrivate(t, "rsa2048-pkcs1"), p256)
	set := plain.WithLegacy(p384, p256, mustParsePublic(t, "rsa2048-public"))
	if diff := cmp.Diff([]string{rsaID, p256ID}, idsOf(set.Published())); diff != "" {
		t.Errorf("published (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{rsaID, p256ID, p384ID}, idsOf(set.WithLegacy().Verification())); diff != "" {
		t.Errorf("verified (-want +got):\n%s", diff)
	}
	if len(set.JWKS().Keys) != 2 {
		t.Errorf("discovery shows %d keys", len(set.JWKS().Keys))
	}
	shown := keys.NewSet(mustParsePrivate(t, "rsa2048-pkcs1"), p256, p384)
	if set.Equal(shown) || shown.Equal(set) || set.ID() != shown.ID() {
		t.Error("a key that is hidden makes another set, with the same id")
	}
	if again := plain.WithLegacy(p384); !again.Equal(set) {
		t.Error("the same keys are another set")
	}
}

// FuzzParseKeyring: what is parsed can be encoded and parsed again, with the same result.
func FuzzParseKeyring(f *testing.F) {
	f.Add(nameIn(keys.StateSigning, p256At1), []byte(mustRead(f, "p256-pkcs8")))
	f.Add(nameIn(keys.StateLegacy, rsaAt4), []byte("sakeeper: retired-at=20251231T230000Z max-token-expiration=1h0m0s\n"+mustRead(f, "rsa2048-public")))
	f.Fuzz(func(t *testing.T, name string, data []byte) {
		ring, err := keys.ParseKeyring(map[string][]byte{name: data})
		if err != nil {
			return
		}
		for _, m := range ring.Entries() {
			content, err := m.Encode()
			if err != nil {
				t.Fatal(err)
			}
			again, err := keys.ParseKeyring(map[string][]byte{m.FileName(): content})
			if err != nil || m.FileName() != name || again.Entries()[0].Metadata != m.Metadata {
				t.Errorf("%s was written as %s: %v", name, m.FileName(), err)
			}
		}
	})
}
