package rotation_test

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/go-cmp/cmp"

	"github.com/sakeeper/sakeeper/pkg/keys"
	"github.com/sakeeper/sakeeper/pkg/keys/rotation"
)

// crash is a store whose process is killed before, between or after its writes.
type crash struct {
	rotation.Store

	dir string
	at  int // 0: before, 1: after what is new is there, 2: after all
}

var errKilled = errors.New("killed")

func (c crash) Apply(ctx context.Context, change rotation.Change) error {
	switch c.at {
	case 0:
		// Half of a file, under a temporary name.
		return errors.Join(errKilled, os.WriteFile(filepath.Join(c.dir, ".new-123"), []byte("half"), 0o600))
	case 1:
		if change.New != "" && change.Old != "" {
			if old, err := os.ReadFile(filepath.Join(c.dir, change.Old)); err == nil && string(old) == string(change.Content) {
				break // it is one rename
			}
			change.Old = ""
		}
	}
	return errors.Join(errKilled, c.Store.Apply(ctx, change))
}

// world checks the guarantees of the package after every step.
type world struct {
	t         *testing.T
	now       time.Time
	settings  rotation.Settings
	published map[string]time.Time // when verifiers could fetch it
	signed    map[string]time.Time // when it signed last
}

func (w *world) check(ring *keys.Keyring) {
	w.t.Helper()
	present := map[string]bool{}
	for _, m := range ring.Entries() {
		present[m.ID()] = true
		if _, known := w.published[m.ID()]; !known {
			w.published[m.ID()] = w.now
		}
	}
	if signing, ok := ring.Signing(); ok {
		if _, before := w.signed[signing.ID()]; !before && len(w.signed) > 0 && w.now.Sub(w.published[signing.ID()]) < w.settings.PublishFor {
			w.t.Errorf("key %s signs, and was published for %v", signing.ID(), w.now.Sub(w.published[signing.ID()]))
		}
		w.signed[signing.ID()] = w.now
		if set, err := ring.Set(); err != nil || set.Signing().String() != signing.ID() {
			w.t.Errorf("the set signs with %v, error %v", set, err)
		}
	} else if len(w.signed) > 0 {
		w.t.Error("nothing signs any more")
	}
	for id, last := range w.signed {
		if !present[id] && w.now.Sub(last) < w.settings.MaxExpiration {
			w.t.Errorf("key %s is gone %v after it signed", id, w.now.Sub(last))
		}
	}
}

// TestNoTokenIsRefusedWhateverHappens: commands at any time, killed at any write.
func TestNoTokenIsRefusedWhateverHappens(t *testing.T) {
	for seed := range uint64(12) {
		random := rand.New(rand.NewPCG(seed, 1))
		dir := t.TempDir()
		w := &world{t: t, now: start, settings: rotation.Settings{PublishFor: time.Hour, MaxExpiration: 24 * time.Hour}, published: map[string]time.Time{}, signed: map[string]time.Time{}}
		promotions, removals := 0, 0
		for range 300 {
			w.now = w.now.Add(time.Duration(random.IntN(120)) * time.Minute)
			store := rotation.OpenDirectory(dir)
			mustDo(t, store.Begin(t.Context()))
			ring, err := store.Load(t.Context())
			mustDo(t, err)
			w.check(ring)
			steps := rotation.PlanRemovals(ring, w.now, rotation.TokenSecretCounts{}, w.settings)
			if random.IntN(2) == 0 {
				steps = []rotation.Step{rotation.PlanRotation(ring, w.now, w.settings)}
			}
			for _, step := range steps {
				if step.Action == rotation.ActionNone {
					continue
				}
				var on rotation.Store = store
				if random.IntN(3) == 0 {
					on = crash{store, dir, random.IntN(3)}
				}
				switch _, err := rotation.ApplyStep(t.Context(), on, step, jose.ES256, w.settings); {
				case errors.Is(err, errKilled):
				case err != nil:
					t.Fatal(err)
				case step.Action == rotation.ActionPromote:
					promotions++
				case step.Action == rotation.ActionRemove:
					removals++
				}
			}
			ring, err = keys.Directory(dir).Keyring()
			mustDo(t, err)
			w.check(ring)
			mustDo(t, store.Close())
		}
		if promotions < 5 || removals < 5 {
			t.Errorf("seed %d: %d promotions and %d removals, which shows nothing", seed, promotions, removals)
		}
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func mustDo(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func contentsOf(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	entries, err := os.ReadDir(dir)
	mustDo(t, err)
	found := map[string][]byte{}
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), ".") {
			continue
		}
		found[entry.Name()], err = os.ReadFile(filepath.Join(dir, entry.Name()))
		mustDo(t, err)
		if info, err := entry.Info(); err != nil || info.Mode() != 0o600 {
			t.Errorf("%s has mode %v, error %v", entry.Name(), info.Mode(), err)
		}
	}
	return found
}

func TestOneProcessAtATimeChangesADirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	first, second := rotation.OpenDirectory(dir), rotation.OpenDirectory(dir)
	mustDo(t, first.Begin(t.Context()))
	if err := second.Begin(t.Context()); err == nil || err.Error() != "--key-dir: "+dir+": another 'sakeeper keys' is changing it; wait until that has ended" {
		t.Errorf("a second one: %v", err)
	}
	mustDo(t, errors.Join(second.Close(), first.Close()))
	third := rotation.OpenDirectory(dir)
	mustDo(t, third.Begin(t.Context()))
	mustDo(t, third.Close())
	mustDo(t, rotation.OpenDirectory(dir).Close())
}

// TestStepsOnADirectory looks at the files after each.
func TestStepsOnADirectory(t *testing.T) {
	dir := t.TempDir()
	store := rotation.OpenDirectory(dir)
	mustDo(t, store.Begin(t.Context()))
	defer func() { mustDo(t, store.Close()) }()
	settings := rotation.Settings{MaxExpiration: time.Hour}
	signing, published := entry("p256", keys.StateSigning, 1), entry("p384", keys.StatePublished, 2)
	for _, m := range []keys.Entry{signing, published} {
		if added, err := rotation.Import(t.Context(), store, m); err != nil || !added {
			t.Fatalf("%t, %v", added, err)
		}
		if added, err := rotation.Import(t.Context(), store, m.WithState(m.State, at(9))); err != nil || added {
			t.Errorf("again: %t, %v", added, err)
		}
	}
	expect := func(want ...keys.Entry) {
		t.Helper()
		if diff := cmp.Diff(filesOf(t, want...), contentsOf(t, dir)); diff != "" {
			t.Errorf("files (-want +got):\n%s", diff)
		}
	}
	step := func(action rotation.Action, m keys.Entry, hours float64) keys.Entry {
		t.Helper()
		next, err := rotation.ApplyStep(t.Context(), store, rotation.Step{Action: action, Key: m, Since: at(hours)}, jose.ES256, settings)
		mustDo(t, err)
		return next
	}
	expect(signing, published)
	promoted := step(rotation.ActionPromote, published, 3)
	expect(signing, promoted)
	if promoted.FileName() != published.WithState(keys.StateSigning, at(3)).FileName() {
		t.Errorf("promoted to %s", promoted.FileName())
	}
	retired := step(rotation.ActionRetire, signing, 3)
	expect(noted(signing.WithState(keys.StateRetired, at(3)), keys.Metadata{RetiredAt: at(3), MaxExpiration: time.Hour}), promoted)
	legacy := step(rotation.ActionHide, retired, 5)
	if legacy.Metadata.RetiredAt != at(3) {
		t.Errorf("retired at %v, by its note", legacy.Metadata.RetiredAt)
	}
	expect(legacy, promoted)
	step(rotation.ActionRemove, legacy, 6)
	expect(promoted)

	if _, err := rotation.Import(t.Context(), store, entry("p521", keys.StateSigning, 7)); err == nil || !strings.Contains(err.Error(), " signs already; import it as published") {
		t.Errorf("a second one that signs: %v", err)
	}
	if _, err := rotation.Import(t.Context(), store, promoted.WithState(keys.StateRetired, at(7))); err == nil || !strings.HasSuffix(err.Error(), " it is there already, in the state signing") {
		t.Errorf("in another state: %v", err)
	}
	expect(promoted)
	made, err := rotation.ApplyStep(t.Context(), store, rotation.Step{Action: rotation.ActionPublish, Since: at(8)}, jose.ES384, settings)
	mustDo(t, err)
	if made.Public().Algorithm() != jose.ES384 || made.Metadata.MaxExpiration != time.Hour || len(maps.Clone(contentsOf(t, dir))) != 2 {
		t.Errorf("made %s with %v", made.FileName(), made.Metadata)
	}
}
