package policy

import (
	"fmt"
	"regexp"
	"strconv"
)

// Version is a minor version of Kubernetes.
type Version struct{ Major, Minor int }

// oldest returns the oldest version for which policies are made: the CEL of the API servers before it lacks
// functions.
func oldest() Version { return Version{1, 34} }

// mutatingSince returns the first version with MutatingAdmissionPolicy in admissionregistration.k8s.io/v1.
func mutatingSince() Version { return Version{1, 36} }

// Newest returns the newest version with which the policies are tested.
func Newest() Version { return Version{1, 37} }

var versionForm = regexp.MustCompile(`^v?([0-9]{1,3})\.([0-9]{1,3})(\.[0-9]+)?([-+].*)?$`)

// ParseVersion parses a version such as 1.36 or v1.36.3, and returns an error if no policy can be made for
// it.
func ParseVersion(text string) (Version, error) {
	found := versionForm.FindStringSubmatch(text)
	if found == nil {
		return Version{}, fmt.Errorf("%q is not a version such as %s", text, Newest())
	}
	major, errMajor := strconv.Atoi(found[1])
	minor, errMinor := strconv.Atoi(found[2])
	v := Version{major, minor}
	if errMajor != nil || errMinor != nil || v.before(oldest()) || v.Major != oldest().Major {
		return Version{}, fmt.Errorf("%q: policies are made for Kubernetes %s and later", text, oldest())
	}
	return v, nil
}

func (v Version) String() string { return fmt.Sprintf("%d.%d", v.Major, v.Minor) }

func (v Version) before(other Version) bool {
	return v.Major < other.Major || v.Major == other.Major && v.Minor < other.Minor
}
