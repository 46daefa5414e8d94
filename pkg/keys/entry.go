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

// State is where a key stands in its life.
type State string

// The states, in the order of a life.
const (
	// StatePublished: discovery shows it and it verifies, so that everybody knows it
	// before it signs.
	StatePublished State = "published"
	// StateSigning: of several the newest signs, the others count as retired.
	StateSigning State = "signing"
	// StateRetired: it verifies what it signed. Its private half is destroyed.
	StateRetired State = "retired"
	// StateLegacy: it verifies tokens in Secrets, and discovery does not show it, because
	// nobody but the API server can tell whether those are alive.
	StateLegacy State = "legacy"
)

// States are all of them, in the order of a life.
func States() []State { return []State{StatePublished, StateSigning, StateRetired, StateLegacy} }

// keepsPrivateHalf: of the others it is destroyed.
func (s State) hasPrivateKey() bool { return s == StatePublished || s == StateSigning }

// Member is a key of a [Ring], with its state: one file of a key directory.
type Entry struct {
	State State
	// Since is when it came into the state. Names have it in UTC, by the second.
	Since time.Time
	// Private can sign, or stands for a public half alone ([PrivateKey.CanSign]).
	Private  PrivateKey
	Metadata Metadata
}

// Note is what has to be remembered of a key until it goes. It stands in its file as a
// line before the PEM block, which RFC 7468, section 2, allows.
type Metadata struct {
	// MaxExpiration is the longest lifetime of tokens that it may have signed.
	MaxExpiration time.Duration
	// RetiredAt is when it stopped to sign; zero while it has not, or nobody noted it.
	RetiredAt time.Time
}

// ID is the key's id.
func (m Entry) ID() string { return m.Public().ID() }

// Public is the public half.
func (m Entry) Public() PublicKey { return m.Private.PublicKey() }

const (
	timeLayout    = "20060102T150405Z"
	idLength      = 16 // of the key's id in names
	privateSuffix = "key"
	publicSuffix  = "pub"
)

var namePattern = regexp.MustCompile(`^(\d{8}T\d{6}Z)\.([a-z]+)\.([A-Za-z0-9_-]{16})\.(key|pub)$`)

// Name is the file's name: <YYYYMMDDThhmmssZ>.<state>.<first 16 of the key id>.{key,pub}.
func (m Entry) FileName() string {
	suffix := publicSuffix
	if m.Private.CanSign() {
		suffix = privateSuffix
	}
	return strings.Join([]string{m.Since.UTC().Format(timeLayout), string(m.State), m.ID()[:idLength], suffix}, ".")
}

// In is the key after it came into another state. What has no private half there loses
// it; a key that stops to sign has that moment noted.
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

// PublicHalf is the key without what signs, as the authenticator gets it.
func (m Entry) WithoutPrivateKey() Entry {
	m.Private = PublicOnly(m.Public())
	return m
}

// Encode is the file's content: the note, and PKCS#8 or SubjectPublicKeyInfo. Only keys
// in memory can be written.
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

// parseNote reads what stands before the PEM block. An entry that is not understood is
// an error: what it says may be why a key must stay.
func parseMetadata(data []byte) (Metadata, error) {
	var note Metadata
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
				note.MaxExpiration, err = time.ParseDuration(value)
			case metadataRetired:
				note.RetiredAt, err = time.Parse(timeLayout, value)
			default:
				err = errUnsupported
			}
			if err != nil {
				return Metadata{}, fmt.Errorf("the note %q does not parse", name)
			}
		}
	}
	return note, nil
}

// parseMember reads one file. Its error does not name the file.
func parseEntry(name string, data []byte) (Entry, error) {
	parts := namePattern.FindStringSubmatch(name)
	if parts == nil {
		return Entry{}, fmt.Errorf("is not named <YYYYMMDDThhmmssZ>.<state>.<first %d of the key id>.{key,pub}", idLength)
	}
	m := Entry{State: State(parts[2])}
	if !slices.Contains(States(), m.State) {
		return Entry{}, fmt.Errorf("state %q is not one of %v", m.State, States())
	}
	var err error
	if m.Since, err = time.Parse(timeLayout, parts[1]); err != nil {
		return Entry{}, fmt.Errorf("there is no time %s", parts[1])
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
