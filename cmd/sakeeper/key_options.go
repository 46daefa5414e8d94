package main

import (
	"context"
	"errors"

	"github.com/spf13/pflag"

	"github.com/sakeeper/sakeeper/pkg/keys"
)

// keySource is where the keys of the moment come from: files, or a signer.
type keySource interface {
	Get() *keys.Set
	OnChange(f func())
	OnError(f func(error))
	Run(ctx context.Context) error
}

// keyOptions say where the service-account keys are.
type keyOptions struct {
	files keys.Files
	dir   string
}

const (
	privateKeyFlag = "--service-account-private-key-file"
	keyDirFlag     = "--key-dir"
)

// addFlags adds those of a process that signs.
func (o *keyOptions) addFlags(fs *pflag.FlagSet) {
	fs.StringVar(&o.files.PrivateKeyFile, "service-account-private-key-file", o.files.PrivateKeyFile,
		"PEM file with the RSA or ECDSA key that signs tokens. It is read again when it changes.")
	fs.StringArrayVar(&o.files.KeyFiles, "service-account-key-file", o.files.KeyFiles,
		"PEM file with more keys that the API server still accepts: public keys, certificates, or private keys of which the public half is used. May be repeated. They sign nothing: tokens that they verify are good. It is read again when it changes.")
	fs.StringVar(&o.dir, "key-dir", o.dir,
		"Directory with the keys and their states, as 'sakeeper keys' keeps it; takes the place of both flags for key files. It is read again when it changes.")
}

// addVerificationFlags adds those of a process that only verifies.
func (o *keyOptions) addVerificationFlags(fs *pflag.FlagSet) {
	fs.StringArrayVar(&o.files.KeyFiles, "service-account-key-file", o.files.KeyFiles,
		"PEM file with keys that verify tokens: public keys, certificates, or private keys of which the public half is used. May be repeated. It is read again when it changes.")
	fs.StringVar(&o.dir, "key-dir", o.dir,
		"Directory with the keys and their states, as 'sakeeper keys' keeps it, or with their public halves, as a mount of the ConfigMap sakeeper-public-keys; takes the place of --service-account-key-file. It is read again when it changes.")
}

func (o *keyOptions) given() bool { return o.files.PrivateKeyFile != "" || o.dir != "" }

func (o *keyOptions) validate() []error {
	if o.dir != "" && (o.files.PrivateKeyFile != "" || len(o.files.KeyFiles) > 0) {
		return []error{errors.New("--key-dir excludes --service-account-private-key-file and --service-account-key-file: bring their keys into the directory with 'sakeeper keys import'")}
	}
	return nil
}

// loadVerification reads the keys for a process that only verifies.
func (o *keyOptions) loadVerification() (*keys.Loader, error) {
	if o.dir != "" {
		return keys.Directory(o.dir).OpenVerification()
	}
	return o.files.OpenVerification()
}

// load reads the keys, one of which signs.
func (o *keyOptions) load() (*keys.Loader, error) {
	if o.dir != "" {
		return keys.Directory(o.dir).Open()
	}
	return o.files.Open()
}
