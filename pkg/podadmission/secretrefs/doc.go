// Package secretrefs finds every place in which a PodSpec can name a Secret.
//
// It guarantees that no place is forgotten: a test walks the type corev1.PodSpec and fails for every
// field that could hold a name and is in neither of its two lists. So a later version of the API
// that adds such a field breaks that test.
//
// A Secret that a pod reaches only through another object (a claim, and the volume of that) is not
// named in the PodSpec and not found, and neither is a name in the attributes of a storage driver.
package secretrefs
