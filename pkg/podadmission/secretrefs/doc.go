// Package secretrefs knows every place in which a PodSpec can name a Secret.
//
// It keeps true that no such place is forgotten: a test walks the type
// corev1.PodSpec and fails for every field that could hold a name and about which
// nobody decided. A later version of the API that adds one breaks that test.
//
// What is named elsewhere and only reached through a pod (a claim, its volume and
// the Secrets of that) is not in a PodSpec and not found here, nor is what a storage
// driver makes of attributes that are its own.
package secretrefs
