package cache

import (
	"strings"

	"k8s.io/apimachinery/pkg/util/rand"
)

const (
	// suffixAlphabet and suffixLength are those of names that the API machinery
	// generates (k8s.io/apimachinery/pkg/util/rand).
	suffixAlphabet = "bcdfghjklmnpqrstvwxz2456789"
	suffixLength   = 5
	// longestBase is where it cuts what comes before the suffix
	// (k8s.io/apiserver/pkg/storage/names).
	longestBase = 63 - suffixLength
)

// GenerateName makes up a name for a token Secret of account, as the API server does
// for the generateName "<account>-token-".
func GenerateName(account string) string { return generatedBase(account) + rand.String(suffixLength) }

// IsGeneratedName tells whether name is one that a controller makes up for a token
// Secret of account: "<account>-token-<5 random>", where a long account is cut. People
// can make up such a name too, but not by accident.
func IsGeneratedName(account, name string) bool {
	suffix, ok := strings.CutPrefix(name, generatedBase(account))
	return ok && len(suffix) == suffixLength && strings.Trim(suffix, suffixAlphabet) == ""
}

func generatedBase(account string) string {
	base := account + "-token-"
	return base[:min(len(base), longestBase)]
}
