package podadmission

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utiljson "k8s.io/apimachinery/pkg/util/json"

	"github.com/sakeeper/sakeeper/pkg/podadmission/rules"
	"github.com/sakeeper/sakeeper/pkg/testkit"
)

// bodies are the reviews that are measured: a pod with two containers as the API server sends it,
// and a minimal pod with two containers.
func bodies(b testing.TB) map[string][]byte {
	b.Helper()
	return map[string][]byte{
		"usual": reviewOf(b, realistic(b)),
		"small": reviewOf(b, plain(`"containers":[{"name":"main","image":"example.com/main"},{"name":"proxy","image":"example.com/proxy"}]`)),
	}
}

// BenchmarkDecodeAlone decodes the review and the pod, which every webhook in Go must do.
func BenchmarkDecodeAlone(b *testing.B) {
	for name, body := range bodies(b) {
		b.Run("pod="+name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				decodeAlone(b, body)
			}
		})
	}
}

func decodeAlone(b testing.TB, body []byte) {
	b.Helper()
	var review admissionv1.AdmissionReview
	if err := json.Unmarshal(body, &review); err != nil {
		b.Fatal(err)
	}
	var pod corev1.Pod
	if err := json.Unmarshal(review.Request.Object.Raw, &pod); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkRatio alternates between the two, so that other load affects both alike, and reports the
// ratio of the medians.
func BenchmarkRatio(b *testing.B) {
	forEach(b, func(b *testing.B, f fixture, body []byte) {
		var alone, whole []time.Duration
		for b.Loop() {
			began := time.Now()
			decodeAlone(b, body)
			between := time.Now()
			mutated(b, f, body)
			alone, whole = append(alone, between.Sub(began)), append(whole, time.Since(between))
		}
		slices.Sort(alone)
		slices.Sort(whole)
		b.ReportMetric(float64(whole[len(whole)/2])/float64(alone[len(alone)/2]), "x-decode")
	})
}

// BenchmarkMutate is a whole review, from bytes to bytes. It may take 1.6 times as long as
// BenchmarkDecodeAlone, for any number of accounts.
func BenchmarkMutate(b *testing.B) {
	forEach(b, func(b *testing.B, f fixture, body []byte) {
		b.ReportAllocs()
		for b.Loop() {
			if review := mutated(b, f, body); len(review) < 500 {
				b.Fatalf("no patch in %s", review)
			}
		}
	})
}

func forEach(b *testing.B, run func(b *testing.B, f fixture, body []byte)) {
	b.Helper()
	for name, body := range bodies(b) {
		for _, accounts := range []int{10, 100000} {
			f := newFixtureWith(b, accounts)
			b.Run(fmt.Sprintf("pod=%s/accounts=%d", name, accounts), func(b *testing.B) { run(b, f, body) })
		}
	}
}

func newFixtureWith(b testing.TB, accounts int) fixture {
	b.Helper()
	f := newFixture(b, rules.Settings{})
	f.cache(b, defaultAccount())
	for i := range accounts - 1 {
		f.cache(b, testkit.ServiceAccount(fmt.Sprintf("team-%d/default", i)))
	}
	return f
}

// How long a review may take, in multiples of decoding. The race detector slows both down, but not
// by the same factor.
const (
	promisedRatio = 1.6
	racedRatio    = 2.5
)

// TestAReviewCostsLittleMoreThanDecoding compares the fastest of many runs of both, because other
// load can only slow them down. It repeats an attempt that was too slow.
func TestAReviewCostsLittleMoreThanDecoding(t *testing.T) {
	limit, repetitions := promisedRatio, 1000
	if raceDetector {
		limit, repetitions = racedRatio, 200
	}
	const attempts = 5
	for name, body := range bodies(t) {
		for _, accounts := range []int{10, 20000} {
			f := newFixtureWith(t, accounts)
			best := math.Inf(1)
			for attempt := 0; attempt < attempts && best > limit; attempt++ {
				best = min(best, ratioOf(t, f, body, repetitions))
			}
			t.Logf("pod %s, %d accounts: %.2f decodings, at most %.1f", name, accounts, best, limit)
			if best > limit {
				t.Errorf("a review of the %s pod costs %.2f times of decoding it, with %d accounts; at most %.1f", name, best, accounts, limit)
			}
		}
	}
}

func ratioOf(t *testing.T, f fixture, body []byte, repetitions int) float64 {
	t.Helper()
	alone, whole := time.Duration(math.MaxInt64), time.Duration(math.MaxInt64)
	for range repetitions {
		began := time.Now()
		decodeAlone(t, body)
		between := time.Now()
		mutated(t, f, body)
		alone, whole = min(alone, between.Sub(began)), min(whole, time.Since(between))
	}
	return float64(whole) / float64(alone)
}

func mutated(b testing.TB, f fixture, body []byte) []byte {
	b.Helper()
	var review admissionv1.AdmissionReview
	if err := utiljson.Unmarshal(body, &review); err != nil {
		b.Fatal(err)
	}
	response, err := f.Mutate(b.Context(), review.Request)
	if err != nil || !response.Allowed {
		b.Fatalf("response %v, error %v", response, err)
	}
	answer, err := json.Marshal(&admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"}, Response: response,
	})
	if err != nil {
		b.Fatal(err)
	}
	return answer
}
