package webhook

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	utiljson "k8s.io/apimachinery/pkg/util/json"
)

// BenchmarkReviewInANewGoroutine decodes what a webhook does, with and without growStack.
func BenchmarkReviewInANewGoroutine(b *testing.B) {
	body := []byte(strings.Replace(review, `"object":`, `"object":{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a"},"spec":{`+
		`"containers":[{"name":"main","image":"example.com/main"},{"name":"proxy","image":"example.com/proxy"}]}},"x":`, 1))
	for name, prepare := range map[string]func(){"grown": growStack, "doubled": func() {}} {
		b.Run(name, func(b *testing.B) {
			done := make(chan error)
			for b.Loop() {
				go func() {
					prepare()
					request, err := decode(body)
					if err == nil {
						err = utiljson.Unmarshal(request.Object.Raw, &corev1.Pod{})
					}
					done <- err
				}()
				if err := <-done; err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
