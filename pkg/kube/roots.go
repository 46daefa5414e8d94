package kube

import (
	"crypto/x509"
	"sync"

	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// UsePublicRoots makes crypto/x509 use Mozilla's CAs if the machine has no root CAs, as in an
// image from scratch. It is for clients without a CA of their own, and takes memory. It
// applies to the whole process and may be called several times, concurrently.
func UsePublicRoots() { publicRoots() }

var publicRoots = sync.OnceFunc(func() { //nolint:gochecknoglobals // crypto/x509 takes them once per process
	pool := x509.NewCertPool()
	for root := range bundle.Roots() {
		certificate, err := x509.ParseCertificate(root.Certificate)
		switch {
		case err != nil: // this release of Go does not support it
		case root.Constraint != nil:
			pool.AddCertWithConstraint(certificate, root.Constraint)
		default:
			pool.AddCert(certificate)
		}
	}
	x509.SetFallbackRoots(pool)
})
