package cache

import "github.com/sakeeper/sakeeper/pkg/api"

func tokenAnnotations() []string {
	return []string{
		api.ServiceAccountAnnotation, api.AudiencesAnnotation, api.LifetimeAnnotation, api.FormatAnnotation, api.ServerAnnotation, api.TokenKeyAnnotation, api.RotateAnnotation,
		api.IssuedAtAnnotation, api.ExpiresAtAnnotation, api.CredentialIDAnnotation, api.RotatedAnnotation, api.FilledForAnnotation, api.FilledKeysAnnotation, api.FilledHashAnnotation, api.ProblemAnnotation,
	}
}

func settingAnnotations(annotations map[string]string) map[string]string {
	return selectAnnotations(annotations, settings())
}

func settings() []string {
	return []string{api.KeepAnnotation, api.CleanUpUnusedAnnotation, api.ResignAnnotation, api.CleanedUpAnnotation, api.ReviewedAnnotation}
}

// selectAnnotations returns a copy of annotations with only those keys.
func selectAnnotations(annotations map[string]string, keys []string) map[string]string {
	var kept map[string]string
	for _, key := range keys {
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

// Setting returns the value of key in the first of annotations that has it, and the index of
// that one, or -1 if none has it. The annotations of an object take precedence over those of
// its namespace, so pass the object's first.
func Setting(key string, annotations ...map[string]string) (value string, which int) {
	for i, a := range annotations {
		if value, ok := a[key]; ok {
			return value, i
		}
	}
	return "", -1
}
