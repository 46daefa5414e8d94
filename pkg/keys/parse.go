package keys

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
)

// The PEM types of keys. RFC 7468 has the last two; the others are older.
const (
	pkcs1Private = "RSA PRIVATE KEY"
	sec1Private  = "EC PRIVATE KEY"
	pkcs8Private = "PRIVATE KEY"

	publicKey = "PUBLIC KEY"
)

// ParsePrivate reads the one private key of a PEM file: PKCS#1 or PKCS#8 for
// RSA, SEC 1 or PKCS#8 for ECDSA. Public keys, certificates and EC PARAMETERS
// in the file are ignored, as in kube-controller-manager.
func ParsePrivate(data []byte) (PrivateKey, error) {
	blocks, err := decode(data)
	if err != nil {
		return PrivateKey{}, err
	}
	var found []PrivateKey
	for i, block := range blocks {
		switch block.Type {
		case pkcs1Private, sec1Private, pkcs8Private:
			key, err := parsePrivateBlock(block)
			if err != nil {
				return PrivateKey{}, blockError(i, block, err)
			}
			found = append(found, key)
		case "EC PARAMETERS", publicKey, "RSA PUBLIC KEY", "CERTIFICATE":
		default:
			return PrivateKey{}, blockError(i, block, errUnsupported)
		}
	}
	switch len(found) {
	case 0:
		return PrivateKey{}, errors.New("holds no private key, and one is needed to sign")
	case 1:
		return found[0], nil
	default:
		return PrivateKey{}, fmt.Errorf("holds %d private keys, and exactly one can sign: put the others into --service-account-key-file", len(found))
	}
}

// ParsePublic reads all keys of a PEM file as verification keys: public keys
// (SubjectPublicKeyInfo, or PKCS#1 for RSA), certificates, and private keys, of
// which the public half is kept. EC PARAMETERS are ignored.
func ParsePublic(data []byte) ([]PublicKey, error) {
	blocks, err := decode(data)
	if err != nil {
		return nil, err
	}
	var found []PublicKey
	for i, block := range blocks {
		if block.Type == "EC PARAMETERS" {
			continue
		}
		key, err := parsePublicBlock(block)
		if err != nil {
			return nil, blockError(i, block, err)
		}
		found = append(found, key)
	}
	if len(found) == 0 {
		return nil, errors.New("holds no key")
	}
	return found, nil
}

// ParseDER parses a SubjectPublicKeyInfo in DER.
func ParseDER(der []byte) (PublicKey, error) {
	key, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return PublicKey{}, fmt.Errorf("does not parse: %w", err)
	}
	return NewPublicKey(key)
}

var (
	errUnsupported = errors.New("is of an unsupported type")
	// errDamaged replaces the errors of the parsers of private keys, which might hold parts
	// of the input.
	errDamaged = errors.New("does not parse")
)

func blockError(index int, block *pem.Block, err error) error {
	return fmt.Errorf("PEM block %d (%s): %w", index+1, block.Type, err)
}

func parsePrivateBlock(block *pem.Block) (PrivateKey, error) {
	var key any
	var err error
	switch block.Type {
	case pkcs1Private:
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case sec1Private:
		key, err = x509.ParseECPrivateKey(block.Bytes)
	default:
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	}
	if err != nil {
		return PrivateKey{}, errDamaged
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return PrivateKey{}, errUnsupported
	}
	return NewPrivateKey(signer)
}

func parsePublicBlock(block *pem.Block) (PublicKey, error) {
	var key any
	var err error
	switch block.Type {
	case publicKey:
		key, err = x509.ParsePKIXPublicKey(block.Bytes)
	case "RSA PUBLIC KEY":
		key, err = x509.ParsePKCS1PublicKey(block.Bytes)
	case "CERTIFICATE":
		var cert *x509.Certificate
		if cert, err = x509.ParseCertificate(block.Bytes); err == nil {
			key = cert.PublicKey
		}
	case pkcs1Private, sec1Private, pkcs8Private:
		private, err := parsePrivateBlock(block)
		return private.PublicKey(), err
	default:
		return PublicKey{}, errUnsupported
	}
	if err != nil {
		return PublicKey{}, fmt.Errorf("does not parse: %w", err)
	}
	return NewPublicKey(key)
}

const (
	beginMarker = "-----BEGIN "
	endMarker   = "-----END "
)

// decode splits data into its PEM blocks. Unlike [pem.Decode], which looks for
// the next good block, it fails on a block that is damaged or encrypted. Text
// between blocks is allowed, as RFC 7468 does.
func decode(data []byte) ([]*pem.Block, error) {
	var blocks []*pem.Block
	for {
		number := len(blocks) + 1
		text, _, found := bytes.Cut(data, []byte(beginMarker))
		// An END line without a BEGIN line: a damaged block, not text.
		if bytes.Contains(text, []byte(endMarker)) {
			return nil, fmt.Errorf("PEM block %d does not parse", number)
		}
		if !found {
			break
		}
		data = data[len(text):]
		block, rest := pem.Decode(data)
		// With more than one BEGIN line, pem.Decode has skipped a block.
		if block == nil || bytes.Count(data[:len(data)-len(rest)], []byte(beginMarker)) != 1 {
			return nil, fmt.Errorf("PEM block %d does not parse", number)
		}
		if block.Type == "ENCRYPTED PRIVATE KEY" || strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED") {
			return nil, fmt.Errorf("PEM block %d (%s) is encrypted: decrypt it with 'openssl pkey'", number, block.Type)
		}
		blocks = append(blocks, block)
		data = rest
	}
	if len(blocks) == 0 {
		return nil, errors.New("holds no PEM block")
	}
	return blocks, nil
}
