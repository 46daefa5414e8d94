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
type Ring struct {
	members  []Member
	leftover []string
}

// ParseRing reads a directory's files by name, or a Secret's data. Names that begin with
// a dot are passed over: mounts and half-written files have such. Its error joins one
// per file that may not be there, each naming the file.
//
// A key that is there twice is in the state of its newest file: a change of state whose
// last write was lost. The others are [Ring.Leftover].
func ParseRing(files map[string][]byte) (*Ring, error) {
	var errs []error
	var found []Member
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if strings.HasPrefix(name, ".") {
			continue
		}
		m, err := parseMember(name, files[name])
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
			continue
		}
		found = append(found, m)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	slices.SortFunc(found, func(a, b Member) int {
		return cmp.Or(b.Since.Compare(a.Since), cmp.Compare(slices.Index(States(), b.State), slices.Index(States(), a.State)), strings.Compare(a.Name(), b.Name()))
	})
	r := &Ring{}
	for _, m := range found {
		if at := slices.IndexFunc(r.members, func(other Member) bool { return other.ID() == m.ID() }); at < 0 {
			r.members = append(r.members, m)
		} else {
			r.leftover = append(r.leftover, m.Name())
		}
	}
	return r, nil
}

// Members are all keys, the latest change first.
func (r *Ring) Members() []Member { return slices.Clone(r.members) }

// Leftover names the files that count no more because their key is in a newer one.
func (r *Ring) Leftover() []string { return slices.Clone(r.leftover) }

// In are the keys in a state, the latest first. The first of [StateSigning] signs.
func (r *Ring) In(state State) []Member {
	return slices.DeleteFunc(r.Members(), func(m Member) bool { return m.State != state })
}

// Signing is the key that signs.
func (r *Ring) Signing() (Member, bool) {
	for _, m := range r.members {
		if m.State == StateSigning {
			return m, true
		}
	}
	return Member{}, false
}

// RetiredAt is when a key stopped to sign, zero while it has not. A key that another
// one has overtaken stopped when that one began, though its file may not say so yet.
func (r *Ring) RetiredAt(m Member) time.Time {
	switch {
	case !m.Note.RetiredAt.IsZero():
		return m.Note.RetiredAt
	case m.State == StateRetired || m.State == StateLegacy:
		return m.Since
	case m.State == StateSigning:
		later := slices.DeleteFunc(r.In(StateSigning), func(other Member) bool { return !other.Since.After(m.Since) })
		if len(later) > 0 {
			return later[len(later)-1].Since
		}
	}
	return time.Time{}
}

// Set is what the ring signs and verifies with. A ring without a key that signs, or
// without the private half of it, is an error.
func (r *Ring) Set() (*Set, error) {
	signing, ok := r.Signing()
	switch {
	case !ok:
		return nil, errors.New("no key is in the state signing: bring one with 'sakeeper keys import', or make one with 'sakeeper keys rotate'")
	case !signing.Private.CanSign():
		return nil, fmt.Errorf("%s: the private half of the key that signs is missing", signing.Name())
	}
	return NewSet(signing.Private, r.published()...).WithLegacy(publicHalves(r.In(StateLegacy))...), nil
}

// VerificationSet is what the ring verifies with. No key at all is an error.
func (r *Ring) VerificationSet() (*Set, error) {
	if len(r.members) == 0 {
		return nil, errors.New("holds no key")
	}
	return NewVerificationSet(r.published()...).WithLegacy(publicHalves(r.In(StateLegacy))...), nil
}

// published are the keys of discovery, first the one that signs.
func (r *Ring) published() []PublicKey {
	return publicHalves(slices.Concat(r.In(StateSigning), r.In(StatePublished), r.In(StateRetired)))
}

func publicHalves(members []Member) []PublicKey {
	var public []PublicKey
	for _, m := range members {
		public = append(public, m.Public())
	}
	return public
}
