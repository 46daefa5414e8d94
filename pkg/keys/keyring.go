package keys

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Ring is the keys of a directory or of a Secret with their states, the latest first.
// Each key is in it once. It is immutable.
type Keyring struct {
	entries    []Entry
	superseded []string
}

// ParseRing reads a directory's files by name, or a Secret's data. Names that begin with
// a dot are passed over: mounts and half-written files have such. Its error joins one
// per file that may not be there, each naming the file.
//
// A key that is there twice is in the state of its newest file: a change of state whose
// last write was lost. The others are [Ring.Leftover].
func ParseKeyring(files map[string][]byte) (*Keyring, error) {
	var errs []error
	var found []Entry
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if strings.HasPrefix(name, ".") {
			continue
		}
		m, err := parseEntry(name, files[name])
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
			continue
		}
		found = append(found, m)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	slices.SortFunc(found, func(a, b Entry) int {
		return cmp.Or(b.Since.Compare(a.Since), cmp.Compare(slices.Index(States(), b.State), slices.Index(States(), a.State)), strings.Compare(a.FileName(), b.FileName()))
	})
	r := &Keyring{}
	for _, m := range found {
		if at := slices.IndexFunc(r.entries, func(other Entry) bool { return other.ID() == m.ID() }); at < 0 {
			r.entries = append(r.entries, m)
		} else {
			r.superseded = append(r.superseded, m.FileName())
		}
	}
	return r, nil
}

// Members are all keys, the latest change first.
func (r *Keyring) Entries() []Entry { return slices.Clone(r.entries) }

// Leftover names the files that count no more because their key is in a newer one.
func (r *Keyring) SupersededFiles() []string { return slices.Clone(r.superseded) }

// In are the keys in a state, the latest first. The first of [StateSigning] signs.
func (r *Keyring) InState(state State) []Entry {
	return slices.DeleteFunc(r.Entries(), func(m Entry) bool { return m.State != state })
}

// Signing is the key that signs.
func (r *Keyring) Signing() (Entry, bool) {
	for _, m := range r.entries {
		if m.State == StateSigning {
			return m, true
		}
	}
	return Entry{}, false
}

// RetiredAt is when a key stopped to sign, zero while it has not. A key that another
// one has overtaken stopped when that one began, though its file may not say so yet.
func (r *Keyring) RetiredAt(m Entry) time.Time {
	switch {
	case !m.Metadata.RetiredAt.IsZero():
		return m.Metadata.RetiredAt
	case m.State == StateRetired || m.State == StateLegacy:
		return m.Since
	case m.State == StateSigning:
		later := slices.DeleteFunc(r.InState(StateSigning), func(other Entry) bool { return !other.Since.After(m.Since) })
		if len(later) > 0 {
			return later[len(later)-1].Since
		}
	}
	return time.Time{}
}

// Set is what the ring signs and verifies with. A ring without a key that signs, or
// without the private half of it, is an error.
func (r *Keyring) Set() (*Set, error) {
	signing, ok := r.Signing()
	switch {
	case !ok:
		return nil, errors.New("no key is in the state signing: bring one with 'sakeeper keys import', or make one with 'sakeeper keys rotate'")
	case !signing.Private.CanSign():
		return nil, fmt.Errorf("%s: the private half of the key that signs is missing", signing.FileName())
	}
	return NewSet(signing.Private, r.published()...).WithLegacy(publicKeys(r.InState(StateLegacy))...), nil
}

// VerificationSet is what the ring verifies with. No key at all is an error.
func (r *Keyring) VerificationSet() (*Set, error) {
	if len(r.entries) == 0 {
		return nil, errors.New("holds no key")
	}
	return NewVerificationSet(r.published()...).WithLegacy(publicKeys(r.InState(StateLegacy))...), nil
}

// published are the keys of discovery, first the one that signs.
func (r *Keyring) published() []PublicKey {
	return publicKeys(slices.Concat(r.InState(StateSigning), r.InState(StatePublished), r.InState(StateRetired)))
}

func publicKeys(members []Entry) []PublicKey {
	var public []PublicKey
	for _, m := range members {
		public = append(public, m.Public())
	}
	return public
}
