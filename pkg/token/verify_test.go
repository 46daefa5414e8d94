package token_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/go-cmp/cmp"

	"github.com/sakeeper/sakeeper/pkg/keys"
	"github.com/sakeeper/sakeeper/pkg/token"
)

func TestVerifyLegacyAccepts(t *testing.T) {
	set := newSet(t, "p256", "rsa2048", "p384", "p521")
	inTree, err := os.ReadFile("testdata/insecure-in-tree-token.txt")
	if err != nil {
		t.Fatal(err)
	}
	header := fmt.Sprintf(`{"alg":"RS256","kid":%q}`, mustKey(t, mustSigner(t, "rsa2048")).String())
	cases := map[string]struct{ in string }{
		"a token of the signing key":           {mustSignLegacy(t, newSet(t, "p256"))},
		"a token of a verification key":        {mustSignLegacy(t, newSet(t, "p521"))},
		"a token of kube-controller-manager":   {strings.TrimSpace(string(inTree))},
		"a token without kid, signed with RSA": {signJOSE(t, jose.RS256, mustSigner(t, "rsa2048"), "")},
		"a token without kid, first key":       {signJOSE(t, jose.ES256, mustSigner(t, "p256"), "")},
		"a token without kid, last key":        {signJOSE(t, jose.ES512, mustSigner(t, "p521"), "")},
		"an empty kid":                         {signRS256(t, `{"alg":"RS256","kid":""}`, builderPayload)},
		"a typ header":                         {signRS256(t, `{"typ":"JWT",`+header[1:], builderPayload)},
		"more claims, as kube-apiserver does":  {signRS256(t, header, `{"exp":1,"jti":"x",`+builderPayload[1:])},
		"claims in another order":              {signRS256(t, header, reordered(t))},
		"a token of nearly 64 KiB":             {signRS256(t, header, padded(47<<10))},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got, err := token.NewVerifier(always(set)).VerifyLegacy(tc.in)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(builder, got); diff != "" {
				t.Errorf("claims (-want +got):\n%s", diff)
			}
		})
	}
}

func TestVerifyLegacyRefusesForeignTokensByReason(t *testing.T) {
	rsaKey := mustSigner(t, "rsa2048")
	rsaID, p256ID := mustKey(t, rsaKey).String(), mustKey(t, mustSigner(t, "p256")).String()
	stranger, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	strangerID := mustKey(t, stranger).String()
	spki, err := x509.MarshalPKIXPublicKey(rsaKey.Public())
	if err != nil {
		t.Fatal(err)
	}
	publicPEM, err := os.ReadFile("../keys/testdata/insecure-rsa2048-public.pem")
	if err != nil {
		t.Fatal(err)
	}
	header := fmt.Sprintf(`{"alg":"RS256","kid":%q}`, rsaID)
	good := signRS256(t, header, builderPayload)
	parts := strings.Split(good, ".")
	otherIssuer := strings.Replace(builderPayload, token.LegacyIssuer, "https://issuer.example", 1)
	otherName := strings.ReplaceAll(builderPayload, "builder", "admin")
	flattened := fmt.Sprintf(`{"protected":%q,"payload":%q,"signature":%q}`, parts[0], parts[1], parts[2])
	general := fmt.Sprintf(`{"payload":%q,"signatures":[{"protected":%q,"signature":%q}]}`, parts[1], parts[0], parts[2])

	cases := map[string]struct {
		in   string
		want error
	}{
		"a line feed in the signature":       {good[:len(good)-8] + "\n" + good[len(good)-8:], token.ErrMalformed},
		"a carriage return in the signature": {good[:len(good)-8] + "\r" + good[len(good)-8:], token.ErrMalformed},
		"another issuer":                     {signRS256(t, header, otherIssuer), token.ErrIssuer},
		"another issuer and an unknown key":  {signRS256(t, `{"alg":"RS256","kid":"unknown"}`, otherIssuer), token.ErrIssuer},
		"no issuer":                          {signRS256(t, header, strings.Replace(builderPayload, `"iss":"kubernetes/serviceaccount",`, "", 1)), token.ErrIssuer},
		"an issuer in capital letters":       {signRS256(t, header, strings.Replace(builderPayload, "iss", "ISS", 1)), token.ErrIssuer},
		"an unknown kid":                     {signRS256(t, `{"alg":"RS256","kid":"unknown"}`, builderPayload), token.ErrUnknownKey},
		"the kid of the key that signed it":  {signJOSE(t, jose.ES256, stranger, strangerID), token.ErrUnknownKey},
		"the beginning of a known kid":       {signRS256(t, fmt.Sprintf(`{"alg":"RS256","kid":%q}`, rsaID[:20]), builderPayload), token.ErrUnknownKey},
		"a known kid, an unknown key":        {signJOSE(t, jose.ES256, stranger, p256ID), token.ErrSignature},
		"no kid, an unknown key":             {signJOSE(t, jose.ES256, stranger, ""), token.ErrSignature},
		"no kid, no key of that algorithm":   {signJOSE(t, jose.ES384, mustSigner(t, "p384"), ""), token.ErrSignature},
		"the kid of a key of another kind":   {signRS256(t, fmt.Sprintf(`{"alg":"RS256","kid":%q}`, p256ID), builderPayload), token.ErrSignature},
		"an algorithm that is not the key's": {signRS256(t, fmt.Sprintf(`{"alg":"ES256","kid":%q}`, rsaID), builderPayload), token.ErrSignature},
		"an unknown key in a jwk header":     {signJOSEWithJWK(t, stranger), token.ErrSignature},
		"a critical header":                  {signRS256(t, `{"crit":["x"],"x":1,`+header[1:], builderPayload), token.ErrSignature},
		"a changed payload":                  {parts[0] + "." + b64(otherName) + "." + parts[2], token.ErrSignature},
		"a changed header":                   {b64(`{"typ":"JWT",`+header[1:]) + "." + parts[1] + "." + parts[2], token.ErrSignature},
		"the signature of another token":     {parts[0] + "." + parts[1] + "." + strings.Split(signRS256(t, header, otherName), ".")[2], token.ErrSignature},
		"a signature with one change":        {parts[0] + "." + parts[1] + "." + changeMiddle(parts[2]), token.ErrSignature},
		"half of the signature":              {good[:len(good)-100], token.ErrSignature},
		"no signature":                       {parts[0] + "." + parts[1] + ".", token.ErrSignature},
		"algorithm none":                     {b64(`{"alg":"none"}`) + "." + parts[1] + ".", token.ErrMalformed},
		"algorithm none with kid":            {b64(fmt.Sprintf(`{"alg":"none","kid":%q}`, rsaID)) + "." + parts[1] + ".", token.ErrMalformed},
		"no algorithm":                       {signRS256(t, fmt.Sprintf(`{"kid":%q}`, rsaID), builderPayload), token.ErrMalformed},
		"HS256 with the public key as DER":   {signJOSE(t, jose.HS256, spki, rsaID), token.ErrMalformed},
		"HS256 with the public key as PEM":   {signJOSE(t, jose.HS256, publicPEM, ""), token.ErrMalformed},
		"RS512":                              {signJOSE(t, jose.RS512, rsaKey, rsaID), token.ErrMalformed},
		"PS256":                              {signJOSE(t, jose.PS256, rsaKey, rsaID), token.ErrMalformed},
		"a claim twice":                      {signRS256(t, header, builderPayload[:len(builderPayload)-1]+`,"sub":"system:serviceaccount:kube-system:admin"}`), token.ErrMalformed},
		"a claim twice, the same value":      {signRS256(t, header, `{"iss":"kubernetes/serviceaccount",`+builderPayload[1:]), token.ErrMalformed},
		"a claim of another type":            {signRS256(t, header, strings.Replace(builderPayload, `"builder"`, "1", 1)), token.ErrMalformed},
		"a payload that is not JSON":         {signRS256(t, header, "text"), token.ErrMalformed},
		"a payload that is a list":           {signRS256(t, header, "["+builderPayload+"]"), token.ErrMalformed},
		"a payload with something after it":  {signRS256(t, header, builderPayload+builderPayload), token.ErrMalformed},
		"an empty payload":                   {signRS256(t, header, ""), token.ErrMalformed},
		"the flattened JSON serialization":   {flattened, token.ErrMalformed},
		"the general JSON serialization":     {general, token.ErrMalformed},
		"an empty string":                    {"", token.ErrMalformed},
		"garbage":                            {"this is not a token at all", token.ErrMalformed},
		"two dots":                           {"..", token.ErrMalformed},
		"two parts":                          {parts[0] + "." + parts[1], token.ErrMalformed},
		"four parts":                         {good + "." + parts[2], token.ErrMalformed},
		"five parts, as an encrypted one":    {good + ".a.b", token.ErrMalformed},
		"padded base64":                      {good + "==", token.ErrMalformed},
		"a scheme before it":                 {"Bearer " + good, token.ErrMalformed},
		"more than 64 KiB, good otherwise":   {signRS256(t, header, padded(49<<10)), token.ErrMalformed},
		"more than 64 KiB of garbage":        {strings.Repeat("garbage.", 9<<10), token.ErrMalformed},
	}
	verifier := token.NewVerifier(always(newSet(t, "p256", "rsa2048")))
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) { expectRefused(t, verifier, tc.in, tc.want) })
	}
}

func TestVerifyLegacyRefusesClaimsThatTheAPIServerRefuses(t *testing.T) {
	header := fmt.Sprintf(`{"alg":"RS256","kid":%q}`, mustKey(t, mustSigner(t, "rsa2048")).String())
	subject := `"sub":"` + builder.Subject() + `"`
	replace := func(old, replacement string) string {
		if !strings.Contains(builderPayload, old) {
			t.Fatalf("%s does not stand in the payload", old)
		}
		return strings.Replace(builderPayload, old, replacement, 1)
	}
	cases := map[string]struct{ in string }{
		"no namespace":                     {replace(`"kubernetes.io/serviceaccount/namespace":"team-a",`, "")},
		"no secret name":                   {replace(`"kubernetes.io/serviceaccount/secret.name":"builder-token-x7k2p",`, "")},
		"no service account name":          {replace(`"kubernetes.io/serviceaccount/service-account.name":"builder",`, "")},
		"no service account uid":           {replace(`"kubernetes.io/serviceaccount/service-account.uid":"0a1b2c3d-0000-4000-8000-000000000001",`, "")},
		"an empty secret name":             {replace("builder-token-x7k2p", "")},
		"a claim name in capital letters":  {replace("serviceaccount/namespace", "serviceaccount/NAMESPACE")},
		"no sub":                           {replace(","+subject, "")},
		"an empty sub":                     {replace(subject, `"sub":""`)},
		"a sub of another account":         {replace(subject, `"sub":"system:serviceaccount:team-a:admin"`)},
		"a sub of another namespace":       {replace(subject, `"sub":"system:serviceaccount:team-b:builder"`)},
		"a sub that is no service account": {replace(subject, `"sub":"system:admin"`)},
		"a sub that goes on":               {replace(subject, `"sub":"system:serviceaccount:team-a:builder:x"`)},
		"a sub in another case":            {replace(subject, `"sub":"system:ServiceAccount:team-a:builder"`)},
		"only an issuer":                   {`{"iss":"kubernetes/serviceaccount"}`},
		"the claims of a bound token":      {`{"iss":"kubernetes/serviceaccount","kubernetes.io":{"namespace":"team-a"},` + subject + `}`},
	}
	verifier := token.NewVerifier(always(newSet(t, "rsa2048")))
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) { expectRefused(t, verifier, signRS256(t, header, tc.in), token.ErrClaims) })
	}
}

func TestVerifyLegacyFollowsARotation(t *testing.T) {
	set := newSet(t, "p256", "p384")
	verifier := token.NewVerifier(func() *keys.Set { return set })
	compact := mustSignLegacy(t, newSet(t, "p384"))
	if _, err := verifier.VerifyLegacy(compact); err != nil {
		t.Fatal(err)
	}
	set = newSet(t, "p256")
	expectRefused(t, verifier, compact, token.ErrUnknownKey)
}

// expectRefused wants this sentinel and no other, no claims, and nothing of the
// token in the error.
func expectRefused(t *testing.T, verifier *token.Verifier, compact string, want error) {
	t.Helper()
	claims, err := verifier.VerifyLegacy(compact)
	if err == nil {
		t.Fatalf("accepted, want %v", want)
	}
	for _, sentinel := range []error{token.ErrMalformed, token.ErrIssuer, token.ErrUnknownKey, token.ErrSignature, token.ErrClaims} {
		if errors.Is(err, sentinel) != (errors.Is(sentinel, want)) {
			t.Errorf("error %q: errors.Is(%q) = %t", err, sentinel, errors.Is(err, sentinel))
		}
	}
	if diff := cmp.Diff(token.LegacyClaims{}, claims); diff != "" {
		t.Errorf("claims came with the error (-want +got):\n%s", diff)
	}
	expectNoToken(t, err, compact)
}

// reordered is builderPayload with its claims the other way round.
func reordered(t *testing.T) string {
	t.Helper()
	claims := strings.Split(strings.Trim(builderPayload, "{}"), ",")
	for i, j := 0, len(claims)-1; i < j; i, j = i+1, j-1 {
		claims[i], claims[j] = claims[j], claims[i]
	}
	payload := "{" + strings.Join(claims, ",") + "}"
	if !json.Valid([]byte(payload)) {
		t.Fatal(payload)
	}
	return payload
}

// padded is builderPayload with a claim that makes it at least size bytes long.
func padded(size int) string {
	return `{"pad":"` + strings.Repeat("x", size) + `",` + builderPayload[1:]
}

// changeMiddle changes one character in the middle of a signature.
func changeMiddle(signature string) string {
	middle := len(signature) / 2
	replacement := "A"
	if signature[middle] == 'A' {
		replacement = "B"
	}
	return signature[:middle] + replacement + signature[middle+1:]
}

func signJOSEWithJWK(t *testing.T, key *ecdsa.PrivateKey) string {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key}, &jose.SignerOptions{EmbedJWK: true})
	if err != nil {
		t.Fatal(err)
	}
	signed, err := signer.Sign([]byte(builderPayload))
	if err != nil {
		t.Fatal(err)
	}
	compact, err := signed.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return compact
}

func TestInspectReadsATokenOfAnyKey(t *testing.T) {
	known := newSet(t, "rsa2048", "p256")
	ours := mustSignLegacy(t, known)
	tampered := ours[:len(ours)-8] + strings.Repeat("A", 8)
	cases := map[string]struct {
		in      string
		want    token.Inspection
		wantErr error
	}{
		"of the signing key":    {in: ours, want: token.Inspection{TriedWith: known.ID(), UnverifiedClaims: builder, VerifiedBy: known.Signing().PublicKey().ID()}},
		"of another known key":  {in: mustSignLegacy(t, newSet(t, "p256")), want: token.Inspection{TriedWith: known.ID(), UnverifiedClaims: builder, VerifiedBy: newSet(t, "p256").Signing().PublicKey().ID()}},
		"of an unknown key":     {in: mustSignLegacy(t, newSet(t, "p384")), want: token.Inspection{TriedWith: known.ID(), UnverifiedClaims: builder}},
		"with a bad signature":  {in: tampered, want: token.Inspection{TriedWith: known.ID(), UnverifiedClaims: builder}},
		"of another issuer":     {in: signRS256(t, `{"alg":"RS256"}`, `{"iss":"https://example.com"}`), wantErr: token.ErrIssuer},
		"no token":              {in: "garbage", wantErr: token.ErrMalformed},
		"a megabyte of garbage": {in: strings.Repeat("eyJ", 350000), wantErr: token.ErrMalformed},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got, err := token.NewVerifier(always(known)).Inspect(tc.in)
			if !errors.Is(err, tc.wantErr) {
				t.Errorf("error %v, want %v", err, tc.wantErr)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}
