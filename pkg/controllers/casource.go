package controllers

import (
	"errors"
	"fmt"
	"os"

	"k8s.io/client-go/rest"

	"github.com/sakeeper/sakeeper/pkg/cabundle"
)

// CASource says where the root CA comes from. It is made by one of the functions whose names begin
// with CA.
type CASource interface {
	// open reads the certificates.
	open() (Source[cabundle.Bundle], error)
}

// CAFile reads certificates from a PEM file and follows its changes. Files below
// [api.ServiceAccountDir] are refused: they hold what the suite publishes.
func CAFile(path string) CASource {
	return caOpener(func() (Source[cabundle.Bundle], error) { return openedCA(cabundle.Open(path)) })
}

// CABytes uses PEM certificates in memory, such as CAData of a [rest.Config]. They do not change.
func CABytes(pem []byte) CASource {
	return caOpener(func() (Source[cabundle.Bundle], error) {
		bundle, err := cabundle.Parse(pem)
		if err != nil {
			return nil, fmt.Errorf("root CA %w", err)
		}
		return constant[cabundle.Bundle]{bundle}, nil
	})
}

// CAFrom uses certificates that the caller keeps.
func CAFrom(source Source[cabundle.Bundle]) CASource {
	return caOpener(func() (Source[cabundle.Bundle], error) { return source, nil })
}

// caOfConnection uses the CA by which this process itself knows the API server.
func caOfConnection(config *rest.Config) CASource {
	return caOpener(func() (Source[cabundle.Bundle], error) {
		switch {
		case len(config.CAData) > 0:
			return CABytes(config.CAData).open()
		case config.CAFile != "":
			return openedCA(cabundle.OpenFunc("CA of the connection to the API server", config.CAFile,
				func() ([]byte, error) { return os.ReadFile(config.CAFile) }))
		default:
			return nil, errors.New("a root CA is required, because the connection to the API server names none")
		}
	})
}

type caOpener func() (Source[cabundle.Bundle], error)

func (f caOpener) open() (Source[cabundle.Bundle], error) { return f() }

func openedCA(loader *cabundle.Loader, err error) (Source[cabundle.Bundle], error) {
	if err != nil {
		return nil, err
	}
	return loader, nil
}
