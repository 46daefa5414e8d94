package cache

import (
	"strings"

	"k8s.io/apimachinery/pkg/util/rand"
)

const (
	// suffixAlphabet and suffixLength are those of generated names
	// (k8s.io/apimachinery/pkg/util/rand).
	suffixAlphabet = "bcdfghjklmnpqrstvwxz2456789"
	suffixLength   = 5
	// longestBase is the length to which the API server cuts the part before the suffix
	// (k8s.io/apiserver/pkg/storage/names).
	longestBase = 63 - suffixLength
)

// GenerateName returns a random name for a token Secret of a ServiceAccount, as the API server
// makes for the generateName "<account>-token-".
func GenerateName(account string) string { return generatedBase(account) + rand.String(suffixLength) }

// IsGeneratedName returns true if name has the form of [GenerateName]:
// "<account>-token-<5 random>", where a long account is cut. A user is unlikely to choose such
// a name by accident.
func IsGeneratedName(account, name string) bool {
	suffix, ok := strings.CutPrefix(name, generatedBase(account))
	return ok && len(suffix) == suffixLength && strings.Trim(suffix, suffixAlphabet) == ""
}

func generatedBase(account string) string {
	base := account + "-token-"
	return base[:min(len(base), longestBase)]
}
