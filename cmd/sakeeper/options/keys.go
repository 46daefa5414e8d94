package options

import (
	"errors"

	"github.com/spf13/pflag"

	"github.com/sakeeper/sakeeper/pkg/keys"
)

// Names of flags, for the texts of errors.
const (
	PrivateKeyFlag = "--service-account-private-key-file"
	KeyDirFlag     = "--key-dir"
)

// Keys says where the ServiceAccount keys are: in files, or in a key directory.
type Keys struct {
	Files keys.Files
	Dir   string
}

// AddFlags adds the flags of a process that signs.
func (o *Keys) AddFlags(fs *pflag.FlagSet) {
	fs.StringVar(&o.Files.PrivateKeyFile, "service-account-private-key-file", o.Files.PrivateKeyFile,
		"PEM file with the RSA or ECDSA key that signs tokens. It is read again when it changes.")
	fs.StringArrayVar(&o.Files.KeyFiles, "service-account-key-file", o.Files.KeyFiles,
		"PEM file with more keys that the API server still accepts: public keys, certificates, or private keys of which the public half is used. May be repeated. They sign nothing: tokens that they verify are good. It is read again when it changes.")
	fs.StringVar(&o.Dir, "key-dir", o.Dir,
		"Directory with the keys and their states, as 'sakeeper keys' keeps it; takes the place of both flags for key files. It is read again when it changes.")
}

// AddVerificationFlags adds the flags of a process that only verifies.
func (o *Keys) AddVerificationFlags(fs *pflag.FlagSet) {
	fs.StringArrayVar(&o.Files.KeyFiles, "service-account-key-file", o.Files.KeyFiles,
		"PEM file with keys that verify tokens: public keys, certificates, or private keys of which the public half is used. May be repeated. It is read again when it changes.")
	fs.StringVar(&o.Dir, "key-dir", o.Dir,
		"Directory with the keys and their states, as 'sakeeper keys' keeps it, or with their public halves, as a mount of the ConfigMap sakeeper-public-keys; takes the place of --service-account-key-file. It is read again when it changes.")
}

// HasSigningKey returns true if the flags name a signing key.
func (o *Keys) HasSigningKey() bool { return o.Files.PrivateKeyFile != "" || o.Dir != "" }

// HasKeys returns true if the flags name a key of any use.
func (o *Keys) HasKeys() bool { return o.HasSigningKey() || len(o.Files.KeyFiles) > 0 }

// Validate returns what is wrong with the flags of a process that signs.
func (o *Keys) Validate() []error {
	if o.Dir != "" && (o.Files.PrivateKeyFile != "" || len(o.Files.KeyFiles) > 0) {
		return []error{errors.New("--key-dir excludes --service-account-private-key-file and --service-account-key-file: bring their keys into the directory with 'sakeeper keys import'")}
	}
	return nil
}

// ValidateVerification returns what is wrong with the flags of a process that only verifies.
func (o *Keys) ValidateVerification() []error {
	var errs []error
	if o.Dir != "" && len(o.Files.KeyFiles) > 0 {
		errs = append(errs, errors.New("--key-dir excludes --service-account-key-file"))
	}
	if !o.HasKeys() {
		errs = append(errs, errors.New("--key-dir or --service-account-key-file is required"))
	}
	return errs
}

// Load reads the keys of a process that signs.
func (o *Keys) Load() (*keys.Loader, error) {
	if o.Dir != "" {
		return keys.Directory(o.Dir).Open()
	}
	return o.Files.Open()
}

// LoadVerification reads the keys of a process that only verifies.
func (o *Keys) LoadVerification() (*keys.Loader, error) {
	if o.Dir != "" {
		return keys.Directory(o.Dir).OpenVerification()
	}
	return o.Files.OpenVerification()
}
