package keys_test

import (
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/go-cmp/cmp"

	"github.com/sakeeper/sakeeper/pkg/keys"
)

func TestParsePrivateAcceptsEveryFormOfASigningKey(t *testing.T) {
	cases := map[string]struct {
		in            string
		wantID        string
		wantAlgorithm jose.SignatureAlgorithm
	}{
		"RSA in PKCS#1":                          {mustRead(t, "rsa2048-pkcs1"), rsaID, jose.RS256},
		"RSA in PKCS#8":                          {mustRead(t, "rsa2048-pkcs8"), rsaID, jose.RS256},
		"P-256 in SEC 1":                         {mustRead(t, "p256-sec1"), p256ID, jose.ES256},
		"P-256 in SEC 1 after EC PARAMETERS":     {mustRead(t, "p256-sec1-params"), p256ID, jose.ES256},
		"P-256 in PKCS#8":                        {mustRead(t, "p256-pkcs8"), p256ID, jose.ES256},
		"P-384 in SEC 1":                         {mustRead(t, "p384-sec1"), p384ID, jose.ES384},
		"P-384 in SEC 1 after EC PARAMETERS":     {mustRead(t, "p384-sec1-params"), p384ID, jose.ES384},
		"P-384 in PKCS#8":                        {mustRead(t, "p384-pkcs8"), p384ID, jose.ES384},
		"P-521 in SEC 1":                         {mustRead(t, "p521-sec1"), p521ID, jose.ES512},
		"P-521 in SEC 1 after EC PARAMETERS":     {mustRead(t, "p521-sec1-params"), p521ID, jose.ES512},
		"P-521 in PKCS#8":                        {mustRead(t, "p521-pkcs8"), p521ID, jose.ES512},
		"text before and after":                  {"Bag Attributes: none\n" + mustRead(t, "p256-sec1") + "end of file\n", p256ID, jose.ES256},
		"lines that end in CR LF":                {strings.ReplaceAll(mustRead(t, "p256-sec1"), "\n", "\r\n"), p256ID, jose.ES256},
		"public keys and a certificate after it": {mustRead(t, "rsa2048-pkcs1") + mustRead(t, "p256-public") + mustRead(t, "rsa2048-pkcs1-public") + mustRead(t, "p256-certificate"), rsaID, jose.RS256},
		"a certificate before it":                {mustRead(t, "rsa2048-certificate") + mustRead(t, "p384-sec1"), p384ID, jose.ES384},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			key, err := keys.ParsePrivate([]byte(tc.in))
			if err != nil {
				t.Fatal(err)
			}
			public := key.PublicKey()
			if diff := cmp.Diff(tc.wantID, public.ID()); diff != "" {
				t.Errorf("id (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(inTreeID(t, key.Public()), public.ID()); diff != "" {
				t.Errorf("id against kube-apiserver's (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tc.wantAlgorithm, public.Algorithm()); diff != "" {
				t.Errorf("algorithm (-want +got):\n%s", diff)
			}
		})
	}
}

func TestParsePublicAcceptsEveryFormOfAVerificationKey(t *testing.T) {
	cases := map[string]struct {
		in   string
		want []string
	}{
		"RSA as SubjectPublicKeyInfo":         {mustRead(t, "rsa2048-public"), []string{rsaID}},
		"RSA in PKCS#1":                       {mustRead(t, "rsa2048-pkcs1-public"), []string{rsaID}},
		"RSA in a certificate":                {mustRead(t, "rsa2048-certificate"), []string{rsaID}},
		"RSA private key in PKCS#1":           {mustRead(t, "rsa2048-pkcs1"), []string{rsaID}},
		"RSA private key in PKCS#8":           {mustRead(t, "rsa2048-pkcs8"), []string{rsaID}},
		"P-256 as SubjectPublicKeyInfo":       {mustRead(t, "p256-public"), []string{p256ID}},
		"P-256 in a certificate":              {mustRead(t, "p256-certificate"), []string{p256ID}},
		"P-256 private key":                   {mustRead(t, "p256-sec1"), []string{p256ID}},
		"P-384 as SubjectPublicKeyInfo":       {mustRead(t, "p384-public"), []string{p384ID}},
		"P-521 as SubjectPublicKeyInfo":       {mustRead(t, "p521-public"), []string{p521ID}},
		"private key after EC PARAMETERS":     {mustRead(t, "p521-sec1-params"), []string{p521ID}},
		"several of all kinds in their order": {mustRead(t, "p384-public") + mustRead(t, "rsa2048-certificate") + mustRead(t, "p256-sec1-params") + mustRead(t, "p521-pkcs8"), []string{p384ID, rsaID, p256ID, p521ID}},
		"text between blocks":                 {"one\n" + mustRead(t, "p384-public") + "\n# two\n" + mustRead(t, "p256-public") + "\n", []string{p384ID, p256ID}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			found, err := keys.ParsePublic([]byte(tc.in))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, idsOf(found)); diff != "" {
				t.Errorf("ids (-want +got):\n%s", diff)
			}
		})
	}
}

// Each case says what the error of ParsePrivate and that of ParsePublic holds; an
// empty want means that the input is accepted.
func TestParseRefusesBadInputByName(t *testing.T) {
	const noPrivate = "holds no private key, and one is needed to sign"
	var (
		rsa     = mustRead(t, "rsa2048-pkcs1")
		p256    = mustRead(t, "p256-sec1")
		public  = mustRead(t, "p256-public")
		pkcs8   = mustRead(t, "p384-pkcs8")
		oneLine = strings.ReplaceAll(rsa, "\n", " ")
	)
	cases := map[string]struct {
		in                      string
		wantPrivate, wantPublic string
	}{
		"an empty file":              {"", "holds no PEM block", "holds no PEM block"},
		"text that is not PEM":       {"this text is no key at all", "holds no PEM block", "holds no PEM block"},
		"an encrypted PKCS#8 key":    {mustRead(t, "rsa2048-encrypted-pkcs8"), "PEM block 1 (ENCRYPTED PRIVATE KEY) is encrypted", "PEM block 1 (ENCRYPTED PRIVATE KEY) is encrypted"},
		"a key with a Proc-Type":     {mustRead(t, "rsa2048-encrypted-legacy"), "PEM block 1 (RSA PRIVATE KEY) is encrypted", "PEM block 1 (RSA PRIVATE KEY) is encrypted"},
		"an encrypted second key":    {p256 + mustRead(t, "rsa2048-encrypted-legacy"), "PEM block 2 (RSA PRIVATE KEY) is encrypted", "PEM block 2 (RSA PRIVATE KEY) is encrypted"},
		"a public key":               {public, noPrivate, ""},
		"a certificate":              {mustRead(t, "rsa2048-certificate"), noPrivate, ""},
		"EC PARAMETERS alone":        {p256Parameters(t), noPrivate, "holds no key"},
		"two private keys":           {rsa + p256, "holds 2 private keys, and exactly one can sign", ""},
		"three private keys":         {rsa + public + p256 + pkcs8, "holds 3 private keys, and exactly one can sign", ""},
		"an Ed25519 private key":     {mustRead(t, "ed25519-pkcs8"), "PEM block 1 (PRIVATE KEY): key of type ed25519.PublicKey, RSA or ECDSA is needed", "PEM block 1 (PRIVATE KEY): key of type ed25519.PublicKey"},
		"an Ed25519 public key":      {mustRead(t, "ed25519-public"), noPrivate, "PEM block 1 (PUBLIC KEY): key of type ed25519.PublicKey, RSA or ECDSA is needed"},
		"a key that cannot sign":     {mustRead(t, "x25519-pkcs8"), "PEM block 1 (PRIVATE KEY): is of an unsupported type", "PEM block 1 (PRIVATE KEY): is of an unsupported type"},
		"an RSA private key of 1024": {mustRead(t, "rsa1024-pkcs1"), "PEM block 1 (RSA PRIVATE KEY): RSA key of 1024 bits, at least 2048 are needed", "RSA key of 1024 bits"},
		"an RSA public key of 1024":  {mustRead(t, "rsa1024-public"), noPrivate, "PEM block 1 (PUBLIC KEY): RSA key of 1024 bits, at least 2048 are needed"},
		"an RSA private key of 512":  {mustRead(t, "rsa512-pkcs1"), "PEM block 1 (RSA PRIVATE KEY): RSA key of 512 bits, at least 2048 are needed", "RSA key of 512 bits"},
		"a private key on P-224":     {mustRead(t, "p224-sec1"), "PEM block 1 (EC PRIVATE KEY): ECDSA key on an unsupported curve", "ECDSA key on an unsupported curve"},
		"a public key on P-224":      {mustRead(t, "p224-public"), noPrivate, "PEM block 1 (PUBLIC KEY): ECDSA key on an unsupported curve"},
		"a weak key after a good":    {p256 + mustRead(t, "rsa1024-pkcs1"), "PEM block 2 (RSA PRIVATE KEY): RSA key of 1024 bits", "PEM block 2 (RSA PRIVATE KEY): RSA key of 1024 bits"},
		"an unknown type":            {relabel(p256, "OPENSSH PRIVATE KEY"), "PEM block 1 (OPENSSH PRIVATE KEY): is of an unsupported type", "PEM block 1 (OPENSSH PRIVATE KEY): is of an unsupported type"},
		"an unknown second type":     {p256 + relabel(p256, "SOMETHING"), "PEM block 2 (SOMETHING): is of an unsupported type", "PEM block 2 (SOMETHING): is of an unsupported type"},

		"broken base64":                              {breakBase64(rsa), "PEM block 1 does not parse", "PEM block 1 does not parse"},
		"broken base64 before a good key":            {breakBase64(rsa) + p256, "PEM block 1 does not parse", "PEM block 1 does not parse"},
		"broken base64 after a good key":             {p256 + breakBase64(rsa), "PEM block 2 does not parse", "PEM block 2 does not parse"},
		"broken base64 between good keys":            {p256 + breakBase64(rsa) + public, "PEM block 2 does not parse", "PEM block 2 does not parse"},
		"broken base64 of a public key before a key": {breakBase64(public) + p256, "PEM block 1 does not parse", "PEM block 1 does not parse"},
		"broken DER in PKCS#1":                       {breakDER(rsa), "PEM block 1 (RSA PRIVATE KEY): does not parse", "PEM block 1 (RSA PRIVATE KEY): does not parse"},
		"broken DER in SEC 1 before a good key":      {breakDER(p256) + rsa, "PEM block 1 (EC PRIVATE KEY): does not parse", "PEM block 1 (EC PRIVATE KEY): does not parse"},
		"broken DER in PKCS#8 after a good key":      {p256 + breakDER(pkcs8), "PEM block 2 (PRIVATE KEY): does not parse", "PEM block 2 (PRIVATE KEY): does not parse"},
		"broken DER in a public key":                 {breakDER(public), noPrivate, "PEM block 1 (PUBLIC KEY): does not parse"},
		"broken DER in a PKCS#1 public key":          {breakDER(mustRead(t, "rsa2048-pkcs1-public")), noPrivate, "PEM block 1 (RSA PUBLIC KEY): does not parse"},
		"broken DER in a certificate after a key":    {public + breakDER(mustRead(t, "rsa2048-certificate")), noPrivate, "PEM block 2 (CERTIFICATE): does not parse"},
		"an RSA key whose numbers do not belong":     {flipByte(rsa), "PEM block 1 (RSA PRIVATE KEY): does not parse", "PEM block 1 (RSA PRIVATE KEY): does not parse"},
		"a point that is not on its curve":           {flipByte(public), noPrivate, "PEM block 1 (PUBLIC KEY): does not parse"},
		"PKCS#1 that says it is PKCS#8":              {relabel(rsa, "PRIVATE KEY"), "PEM block 1 (PRIVATE KEY): does not parse", "PEM block 1 (PRIVATE KEY): does not parse"},
		"SEC 1 that says it is PKCS#1":               {relabel(p256, "RSA PRIVATE KEY"), "PEM block 1 (RSA PRIVATE KEY): does not parse", "PEM block 1 (RSA PRIVATE KEY): does not parse"},
		"a private key that says it is public":       {relabel(rsa, "PUBLIC KEY"), noPrivate, "PEM block 1 (PUBLIC KEY): does not parse"},
		"no END line":                                {strings.TrimSuffix(rsa, "-----END RSA PRIVATE KEY-----\n"), "PEM block 1 does not parse", "PEM block 1 does not parse"},
		"no END line before a good key":              {strings.TrimSuffix(rsa, "-----END RSA PRIVATE KEY-----\n") + p256, "PEM block 1 does not parse", "PEM block 1 does not parse"},
		"another END than BEGIN":                     {strings.Replace(rsa, "END RSA PRIVATE", "END EC PRIVATE", 1), "PEM block 1 does not parse", "PEM block 1 does not parse"},
		"an empty block":                             {"-----BEGIN EC PRIVATE KEY-----\n-----END EC PRIVATE KEY-----\n" + p256, "PEM block 1 (EC PRIVATE KEY): does not parse", "PEM block 1 (EC PRIVATE KEY): does not parse"},
		"a key whose line breaks were lost":          {oneLine, "PEM block 1 does not parse", "PEM block 1 does not parse"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			_, err := keys.ParsePrivate([]byte(tc.in))
			expectError(t, "ParsePrivate", err, tc.wantPrivate, tc.in)
			_, err = keys.ParsePublic([]byte(tc.in))
			expectError(t, "ParsePublic", err, tc.wantPublic, tc.in)
		})
	}
}

// A file that lost the first line of a key must not pass for a file with fewer keys.
func TestParseRefusesABlockWithoutItsBeginLine(t *testing.T) {
	lost, kept := mustRead(t, "p384-public"), mustRead(t, "p256-public")
	cases := map[string]string{
		"a dash is missing":              strings.TrimPrefix(lost, "-") + kept,
		"the line is missing":            strings.TrimPrefix(lost, "-----BEGIN PUBLIC KEY-----\n") + kept,
		"the line is missing at the end": kept + strings.TrimPrefix(lost, "-----BEGIN PUBLIC KEY-----\n"),
		"a blank before the word":        strings.Replace(lost, "-----BEGIN", "----- BEGIN", 1) + kept,
	}
	for name, in := range cases {
		t.Run(name, func(t *testing.T) {
			if found, err := keys.ParsePublic([]byte(in)); err == nil {
				t.Errorf("took %d of 2 keys and reported nothing", len(found))
			}
		})
	}
}

func p256Parameters(t *testing.T) string {
	t.Helper()
	parameters, _, _ := strings.Cut(mustRead(t, "p256-sec1-params"), "-----BEGIN EC PRIVATE KEY")
	return parameters
}

func expectError(t *testing.T, what string, err error, want, input string) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Errorf("%s: %v", what, err)
	case want != "" && err == nil:
		t.Errorf("%s: no error, want %q", what, want)
	case want != "":
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %q does not hold %q", what, err, want)
		}
		expectNoInput(t, err.Error(), input)
	}
}
