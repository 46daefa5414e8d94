package informers

import "strings"

const (
	// suffixAlphabet and suffixLength are those of names that the API machinery
	// generates (k8s.io/apimachinery/pkg/util/rand).
	suffixAlphabet = "bcdfghjklmnpqrstvwxz2456789"
	suffixLength   = 5
	// longestBase is where the API machinery cuts what it puts before the suffix.
	longestBase = 63 - suffixLength
)

// IsGeneratedName tells whether name is one that a controller makes up for a token
// Secret of account: "<account>-token-<5 random>", where what comes before the suffix
// is cut after 58 characters. People can make up such a name too, but not by
// accident.
func IsGeneratedName(account, name string) bool {
	base := account + "-token-"
	suffix, ok := strings.CutPrefix(name, base[:min(len(base), longestBase)])
	return ok && len(suffix) == suffixLength && strings.Trim(suffix, suffixAlphabet) == ""
}
