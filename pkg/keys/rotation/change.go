package rotation

import (
	"context"
	"fmt"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/sakeeper/sakeeper/pkg/keys"
)

// Store holds the keys: a [Directory] or a [Secret]. It is not safe for concurrent use.
type Store interface {
	// Begin prepares changes, and completes or removes what an interrupted change has left.
	// It is not needed for Load alone.
	Begin(ctx context.Context) error
	// Close releases what Begin acquired. It may be called without Begin.
	Close() error
	// Load reads the keys. An empty store is not an error.
	Load(ctx context.Context) (*keys.Keyring, error)
	// Apply makes one change to what the last Load returned. If it is interrupted, no key is
	// lost: the new file is written before the old one is removed.
	Apply(ctx context.Context, change Change) error
}

// Change adds a file, removes one, or replaces one by another. If both have the same content,
// it is a rename.
type Change struct {
	// Old is the name of the file to remove; empty for none.
	Old string
	// New is the name of the file to add; empty for none.
	New string
	// Content is that of New.
	Content []byte
}

// change returns what the step does to the files, and the key after it.
func (s Step) change(algorithm jose.SignatureAlgorithm, maxExpiration time.Duration) (Change, keys.Entry, error) {
	var next keys.Entry
	switch s.Action {
	case ActionCleanUp:
		return Change{Old: s.File}, next, nil
	case ActionRemove:
		return Change{Old: s.Key.FileName()}, s.Key, nil
	case ActionFirst, ActionPublish:
		private, err := keys.Generate(algorithm)
		if err != nil {
			return Change{}, next, err
		}
		state := keys.StatePublished
		if s.Action == ActionFirst {
			state = keys.StateSigning
		}
		next = keys.Entry{Private: private, Metadata: keys.Metadata{MaxExpiration: maxExpiration}}.WithState(state, s.Since)
	case ActionPromote:
		next = s.Key.WithState(keys.StateSigning, s.Since)
	case ActionRetire:
		next = s.Key.WithState(keys.StateRetired, s.Since)
		// It may have signed such tokens, even if the setting is lower when it is removed.
		next.Metadata.MaxExpiration = max(next.Metadata.MaxExpiration, maxExpiration)
	case ActionHide:
		next = s.Key.WithState(keys.StateLegacy, s.Since)
	default:
		return Change{}, next, fmt.Errorf("rotation: internal error: no change for %q", s.Action)
	}
	change, err := replace(s.Key, next)
	return change, next, err
}

func replace(old, next keys.Entry) (Change, error) {
	change := Change{New: next.FileName()}
	if old.State != "" {
		change.Old = old.FileName()
	}
	var err error
	change.Content, err = next.Encode()
	return change, err
}

// ApplyStep applies a step of [PlanRotation], [PlanRemoval] or [PlanCleanUp] to the store, and
// returns the key after it. A new key is made for the algorithm, and its file gets the
// MaxExpiration of the settings.
func ApplyStep(ctx context.Context, store Store, step Step, algorithm jose.SignatureAlgorithm, s Settings) (keys.Entry, error) {
	change, next, err := step.change(algorithm, s.MaxExpiration)
	if err != nil {
		return keys.Entry{}, err
	}
	return next, store.Apply(ctx, change)
}

// Import adds an existing key to the store, as the first key that signs or as one that
// verifies. It returns false if the key is there already in the same state, and an error if it
// is there in another state, or if m is to sign and another key signs.
func Import(ctx context.Context, store Store, m keys.Entry) (added bool, err error) {
	ring, err := store.Load(ctx)
	if err != nil {
		return false, err
	}
	for _, other := range ring.Entries() {
		switch {
		case other.ID() == m.ID() && other.State != m.State:
			return false, fmt.Errorf("import key %s: it is there already, in the state %s", m.ID(), other.State)
		case other.ID() == m.ID():
			return false, nil
		case m.State == keys.StateSigning && other.State == keys.StateSigning:
			return false, fmt.Errorf("import key %s: key %s signs already; import it as %s, and let 'sakeeper keys rotate' promote it", m.ID(), other.ID(), keys.StatePublished)
		}
	}
	change, err := replace(keys.Entry{}, m)
	if err != nil {
		return false, err
	}
	return true, store.Apply(ctx, change)
}
