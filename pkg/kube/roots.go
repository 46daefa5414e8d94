package kube

import (
	"crypto/x509"
	"sync"

	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// UsePublicRoots lets clients that have no CA of their own verify servers with Mozilla's
// CAs where the machine has none, as in an image from scratch. They take memory: who does
// not need them does not ask.
func UsePublicRoots() { publicRoots() }

var publicRoots = sync.OnceFunc(func() { //nolint:gochecknoglobals // crypto/x509 takes them once per process
	pool := x509.NewCertPool()
	for root := range bundle.Roots() {
		certificate, err := x509.ParseCertificate(root.Certificate)
		switch {
		case err != nil: // one that this release of Go does not take
		case root.Constraint != nil:
			pool.AddCertWithConstraint(certificate, root.Constraint)
		default:
			pool.AddCert(certificate)
		}
	}
	x509.SetFallbackRoots(pool)
})
