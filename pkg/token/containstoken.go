package token

import "strings"

// ContainsToken returns true if text may contain a token, as an error of an admission webhook
// that describes an object may. It finds every JWT, which begins with eyJ (in base64: ZXlK), but
// also other texts with these letters.
func ContainsToken(text string) bool {
	return strings.Contains(text, "eyJ") || strings.Contains(text, "ZXlK")
}
