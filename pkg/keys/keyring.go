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

// Keyring is the keys of a directory or of a Secret with their states, the latest change
// first. Each key is in it once. It is immutable and safe for concurrent use.
type Keyring struct {
	entries    []Entry
	superseded []string
}

// ParseKeyring parses the files of a directory by name, or the data of a Secret. Names that
// begin with a dot, as in mounts and of incomplete files, are ignored. Its error joins the
// errors of all bad files, each of which names the file.
//
// A key with two files has the state of the newer one: the last write of a change of state
// was lost. The older files are [Keyring.SupersededFiles].
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

// Entries returns all keys, the latest change first.
func (r *Keyring) Entries() []Entry { return slices.Clone(r.entries) }

// SupersededFiles returns the names of files whose key is also in a newer file.
func (r *Keyring) SupersededFiles() []string { return slices.Clone(r.superseded) }

// InState returns the keys in a state, the latest first. The first of [StateSigning] signs.
func (r *Keyring) InState(state State) []Entry {
	return slices.DeleteFunc(r.Entries(), func(m Entry) bool { return m.State != state })
}

// Signing returns the key that signs; false if there is none.
func (r *Keyring) Signing() (Entry, bool) {
	for _, m := range r.entries {
		if m.State == StateSigning {
			return m, true
		}
	}
	return Entry{}, false
}

// RetiredAt returns when a key of the keyring stopped to sign, or the zero time if it did not.
// A key in [StateSigning] stopped when a newer one began, even if no file says so yet.
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

// Set returns the keys that sign and verify. A keyring without a key that signs, or without
// its private half, is an error.
func (r *Keyring) Set() (*Set, error) {
	signing, ok := r.Signing()
	switch {
	case !ok:
		return nil, errors.New("no key is in the state signing: import one with 'sakeeper keys import', or make one with 'sakeeper keys rotate'")
	case !signing.Private.CanSign():
		return nil, fmt.Errorf("%s: the private half of the key that signs is missing", signing.FileName())
	}
	return NewSet(signing.Private, r.published()...).WithLegacy(publicKeys(r.InState(StateLegacy))...), nil
}

// VerificationSet returns the keys that verify, for a process that does not sign. A keyring
// without keys is an error.
func (r *Keyring) VerificationSet() (*Set, error) {
	if len(r.entries) == 0 {
		return nil, errors.New("holds no key")
	}
	return NewVerificationSet(r.published()...).WithLegacy(publicKeys(r.InState(StateLegacy))...), nil
}

// published returns the keys of the JWKS, first the one that signs.
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
