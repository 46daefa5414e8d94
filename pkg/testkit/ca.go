package testkit

import "github.com/sakeeper/sakeeper/pkg/cabundle"

// Bundle is a CA bundle of one certificate, valid until 2126.
func Bundle() cabundle.Bundle { return mustParse(bundle) }

// OtherBundle is another one.
func OtherBundle() cabundle.Bundle { return mustParse(otherBundle) }

func mustParse(pem string) cabundle.Bundle {
	b, err := cabundle.Parse([]byte(pem))
	if err != nil {
		panic("testkit: internal error: " + err.Error())
	}
	return b
}

// The private keys of these certificates were not kept.
const (
	bundle = `-----BEGIN CERTIFICATE-----
MIIBdDCCARmgAwIBAgIUeIk2aVk+DOqtGqH4YxXYMxk8HuYwCgYIKoZIzj0EAwIw
DjEMMAoGA1UEAwwDb25lMCAXDTI2MTEyMjA1NTcxMFoYDzIxMjYxMDI5MDU1NzEw
WjAOMQwwCgYDVQQDDANvbmUwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAARt2ZDZ
JEXd8Zpl2lSD8gEdoFCw9Z19jQoBPkEzZO5fw6vz6om3GAj7lSkYLMsaLNdxg6RK
JcxU8tW6HN5hIUkmo1MwUTAdBgNVHQ4EFgQULB44dK1VUeGVFbK+yukT5tyiAXEw
HwYDVR0jBBgwFoAULB44dK1VUeGVFbK+yukT5tyiAXEwDwYDVR0TAQH/BAUwAwEB
/zAKBggqhkjOPQQDAgNJADBGAiEA7M3IsXXGT8whs8ljan+40U84BWw3XpOnBC1G
84D8MosCIQCFYCJHkm2T6PigP/5DCtn2exwHTkJfdcWL7rShMYQm/g==
-----END CERTIFICATE-----
`
	otherBundle = `-----BEGIN CERTIFICATE-----
MIIBdDCCARmgAwIBAgIUUgiiHGtQwAmEKi9AHuj87cBuNW8wCgYIKoZIzj0EAwIw
DjEMMAoGA1UEAwwDdHdvMCAXDTI2MTEyMjA1NTcxMFoYDzIxMjYxMDI5MDU1NzEw
WjAOMQwwCgYDVQQDDAN0d28wWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAAS2z+W2
8x7VuhoTKepclGaCahaHj2vdd3HcdARR2votzH1MZ8t/ROxh7h3wWwj5YRgVp4V5
zHDCjV44Phf/uvKMo1MwUTAdBgNVHQ4EFgQUzW2zDvOPha0XqxcblezCaIr5VN4w
HwYDVR0jBBgwFoAUzW2zDvOPha0XqxcblezCaIr5VN4wDwYDVR0TAQH/BAUwAwEB
/zAKBggqhkjOPQQDAgNJADBGAiEAqVd9Qtoqao9kHPo90aqOs17q7ptI5HDeUrEr
4I3JnGUCIQDnIYR2dFm1IIEpQXji58PCkHNGiKrzCn8SAX8P3jiQyQ==
-----END CERTIFICATE-----
`
)
