package rotation

import (
	"context"
	"fmt"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/sakeeper/sakeeper/pkg/keys"
)

// Store is where keys are kept: a [Directory] or a [Secret].
type Store interface {
	// Begin comes before changes, and mends what an earlier one has left. Whoever only
	// reads does without.
	Begin(ctx context.Context) error
	// Close ends what Begin began.
	Close() error
	// Load reads the keys. None at all is no error.
	Load(ctx context.Context) (*keys.Keyring, error)
	// Apply does one change to what Load has read last. Nothing is lost when it fails in
	// between: what is new is there before what is old goes.
	Apply(ctx context.Context, change Change) error
}

// Change replaces at most one file by at most one. Of an equal content it is a rename.
type Change struct {
	Old string
	// New and Content are empty when Old goes.
	New     string
	Content []byte
}

// change is what a step does to the files.
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
		// It may have signed such tokens, whatever will be the longest when it is to go.
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

// Do does a step of [Rotate] or [Prune], and returns the key as it is then. New keys are
// made for the algorithm; what they sign lives as long as the settings say.
func ApplyStep(ctx context.Context, store Store, step Step, algorithm jose.SignatureAlgorithm, s Settings) (keys.Entry, error) {
	change, next, err := step.change(algorithm, s.MaxExpiration)
	if err != nil {
		return keys.Entry{}, err
	}
	return next, store.Apply(ctx, change)
}

// Import brings a key that exists into the store, as its first key that signs, or as one
// that verifies. A key that is there already stays as it is.
func Import(ctx context.Context, store Store, m keys.Entry) (added bool, err error) {
	ring, err := store.Load(ctx)
	if err != nil {
		return false, err
	}
	for _, other := range ring.Entries() {
		switch {
		case other.ID() == m.ID() && other.State != m.State:
			return false, fmt.Errorf("import key %s: it is there already, and is %s", m.ID(), other.State)
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
