package keys

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// State is the state of a key. A key goes through the states in the order of the constants.
type State string

// The states.
const (
	// StatePublished is a key that verifies and is in the JWKS, so that every verifier knows
	// it before it signs.
	StatePublished State = "published"
	// StateSigning is a key that signs. If there are several, the newest signs, and the others
	// count as retired.
	StateSigning State = "signing"
	// StateRetired is a key that only verifies. Its private half is destroyed.
	StateRetired State = "retired"
	// StateLegacy is a key that verifies tokens in Secrets and is not in the JWKS, because only
	// the API server knows whether such a token is still valid.
	StateLegacy State = "legacy"
)

// States returns all states in their order.
func States() []State { return []State{StatePublished, StateSigning, StateRetired, StateLegacy} }

// hasPrivateKey returns true if keys in the state can have a private half.
func (s State) hasPrivateKey() bool { return s == StatePublished || s == StateSigning }

// Entry is a key of a [Keyring] with its state: one file of a key directory. It is a plain
// value; its methods do not change it.
type Entry struct {
	State State
	// Since is when the key entered the state. File names have it in UTC and whole seconds.
	Since time.Time
	// Private is the key; it may have only the public half ([PrivateKey.CanSign]).
	Private  PrivateKey
	Metadata Metadata
}

// Metadata is what a file has about its key, as a line before the PEM block, which RFC 7468,
// section 2, allows. The zero value is an unknown one.
type Metadata struct {
	// MaxExpiration is the longest lifetime of the tokens that the key may have signed.
	MaxExpiration time.Duration
	// RetiredAt is when the key stopped to sign; zero if it did not, or if it is unknown.
	RetiredAt time.Time
}

// ID returns the id of the key.
func (m Entry) ID() string { return m.Public().ID() }

// Public returns the public half.
func (m Entry) Public() PublicKey { return m.Private.PublicKey() }

const (
	timeLayout    = "20060102T150405Z"
	idLength      = 16 // of the key id in file names
	privateSuffix = "key"
	publicSuffix  = "pub"
)

var namePattern = regexp.MustCompile(`^(\d{8}T\d{6}Z)\.([a-z]+)\.([A-Za-z0-9_-]{16})\.(key|pub)$`)

// FileName returns <YYYYMMDDThhmmssZ>.<state>.<first 16 of the key id>.{key,pub}.
func (m Entry) FileName() string {
	suffix := publicSuffix
	if m.Private.CanSign() {
		suffix = privateSuffix
	}
	return strings.Join([]string{m.Since.UTC().Format(timeLayout), string(m.State), m.ID()[:idLength], suffix}, ".")
}

// WithState returns the key in another state since a time. In [StateRetired] and [StateLegacy]
// it has no private half, and Metadata.RetiredAt is set if it was zero.
func (m Entry) WithState(state State, since time.Time) Entry {
	m.State, m.Since = state, since.UTC().Truncate(time.Second)
	if !state.hasPrivateKey() {
		m.Private = PublicOnly(m.Public())
		if m.Metadata.RetiredAt.IsZero() {
			m.Metadata.RetiredAt = m.Since
		}
	}
	return m
}

// WithoutPrivateKey returns the key with only its public half, as verifiers get it.
func (m Entry) WithoutPrivateKey() Entry {
	m.Private = PublicOnly(m.Public())
	return m
}

// Encode returns the content of the file: the metadata, and PKCS#8 or SubjectPublicKeyInfo. A
// private key that is not in memory is an error.
func (m Entry) Encode() ([]byte, error) {
	block, err := m.block()
	if err != nil {
		return nil, fmt.Errorf("encode key %s: %w", m.ID(), err)
	}
	return append([]byte(m.Metadata.header()), pem.EncodeToMemory(block)...), nil
}

func (m Entry) block() (*pem.Block, error) {
	if !m.Private.CanSign() {
		der, err := x509.MarshalPKIXPublicKey(m.Public().Key())
		return &pem.Block{Type: publicKey, Bytes: der}, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(m.Private.signer)
	if err != nil {
		return nil, errors.New("its private half is not in memory")
	}
	return &pem.Block{Type: pkcs8Private, Bytes: der}, nil
}

const (
	metadataPrefix     = "sakeeper:"
	metadataExpiration = "max-token-expiration"
	metadataRetired    = "retired-at"
)

func (n Metadata) header() string {
	words := []string{metadataPrefix}
	if n.MaxExpiration > 0 {
		words = append(words, metadataExpiration+"="+n.MaxExpiration.String())
	}
	if !n.RetiredAt.IsZero() {
		words = append(words, metadataRetired+"="+n.RetiredAt.UTC().Format(timeLayout))
	}
	if len(words) == 1 {
		return ""
	}
	return strings.Join(words, " ") + "\n"
}

// parseMetadata reads the lines before the PEM block. An unknown entry is an error: it may be
// the reason why a key must not be removed.
func parseMetadata(data []byte) (Metadata, error) {
	var metadata Metadata
	text, _, _ := bytes.Cut(data, []byte(beginMarker))
	for line := range strings.Lines(string(text)) {
		entries, ok := strings.CutPrefix(line, metadataPrefix)
		if !ok {
			continue
		}
		for entry := range strings.FieldsSeq(entries) {
			name, value, _ := strings.Cut(entry, "=")
			var err error
			switch name {
			case metadataExpiration:
				metadata.MaxExpiration, err = time.ParseDuration(value)
			case metadataRetired:
				metadata.RetiredAt, err = time.Parse(timeLayout, value)
			default:
				return Metadata{}, fmt.Errorf("the metadata %q is not known; a newer sakeeper may have written it: go back to that one", name)
			}
			if err != nil {
				return Metadata{}, fmt.Errorf("the metadata %q does not parse", name)
			}
		}
	}
	return metadata, nil
}

// parseEntry parses one file. Its error does not name the file.
func parseEntry(name string, data []byte) (Entry, error) {
	parts := namePattern.FindStringSubmatch(name)
	if parts == nil {
		return Entry{}, fmt.Errorf("is not named <YYYYMMDDThhmmssZ>.<state>.<first %d of the key id>.{key,pub}", idLength)
	}
	m := Entry{State: State(parts[2])}
	if !slices.Contains(States(), m.State) {
		return Entry{}, fmt.Errorf("state %q is not one of %v; a newer sakeeper may have written it: go back to that one", m.State, States())
	}
	var err error
	if m.Since, err = time.Parse(timeLayout, parts[1]); err != nil {
		return Entry{}, fmt.Errorf("%s is not a time", parts[1])
	}
	private := parts[4] == privateSuffix
	if private && !m.State.hasPrivateKey() {
		return Entry{}, fmt.Errorf("a %s key must not have its private half any more; put the public half into a file that ends with .pub, and remove this one", m.State)
	}
	if m.Private, err = parseEntryKey(private, data); err != nil {
		return Entry{}, err
	}
	if !strings.HasPrefix(m.ID(), parts[3]) {
		return Entry{}, fmt.Errorf("holds key %s, and its name says %s", m.ID(), parts[3])
	}
	m.Metadata, err = parseMetadata(data)
	return m, err
}

func parseEntryKey(private bool, data []byte) (PrivateKey, error) {
	if private {
		return ParsePrivate(data)
	}
	found, err := ParsePublic(data)
	switch {
	case err != nil:
		return PrivateKey{}, err
	case len(found) != 1:
		return PrivateKey{}, fmt.Errorf("holds %d keys instead of one", len(found))
	case bytes.Contains(data, []byte("PRIVATE KEY-----")):
		return PrivateKey{}, fmt.Errorf("holds a private key under a name that ends with .%s", publicSuffix)
	}
	return PublicOnly(found[0]), nil
}
