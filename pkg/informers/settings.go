package informers

// The annotations and labels by which people tell the controllers what to do with
// an object. Of the annotations of any object, these are the ones that are cached.
const (
	// KeepAnnotation set to "true" on a token Secret or its namespace keeps the
	// Secret from being cleaned up.
	KeepAnnotation = "sakeeper.io/keep"
	// CleanUpUnusedAnnotation on a token Secret or its namespace is a duration: a
	// token that was not used for that long is cleaned up, also when no
	// ServiceAccount refers to it.
	CleanUpUnusedAnnotation = "sakeeper.io/clean-up-unused"
	// ResignAnnotation set to "never" on a token Secret or its namespace keeps the
	// token from being signed anew, dead or alive.
	ResignAnnotation = "sakeeper.io/resign"
	// AutoTokenLabel set to "true" on a ServiceAccount or its namespace asks for a
	// token Secret.
	AutoTokenLabel = "sakeeper.io/auto-token"
	// CleanedUpAnnotation on a ServiceAccount is the date on which its generated
	// token was cleaned up for lack of use. It gets no new one unasked.
	CleanedUpAnnotation = "sakeeper.io/token-cleaned-up"
	// ReviewedAnnotation on a token Secret is what the API server said about its token,
	// so that it is not asked again by the next process. Controllers write it.
	ReviewedAnnotation = "sakeeper.io/token-review"
)

func settings(annotations map[string]string) map[string]string {
	var kept map[string]string
	for _, key := range []string{KeepAnnotation, CleanUpUnusedAnnotation, ResignAnnotation, CleanedUpAnnotation, ReviewedAnnotation} {
		value, ok := annotations[key]
		if !ok {
			continue
		}
		if kept == nil {
			kept = map[string]string{}
		}
		kept[key] = value
	}
	return kept
}

// Setting is the value of key in the first of annotations that has it, and which
// one that is; -1: none has it. What an object says beats what its namespace says,
// so pass the object's first.
func Setting(key string, annotations ...map[string]string) (value string, which int) {
	for i, a := range annotations {
		if value, ok := a[key]; ok {
			return value, i
		}
	}
	return "", -1
}
