package podadmission

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/sakeeper/sakeeper/pkg/podadmission/rules"
	"github.com/sakeeper/sakeeper/pkg/testkit"
)

func TestHandlers(t *testing.T) {
	f := newFixture(t, rules.Settings{})
	f.cache(t, defaultAccount())
	pod := plain(mainContainer)
	post := func(handler http.Handler, body string) *httptest.ResponseRecorder {
		request := httptest.NewRequestWithContext(newContext(t), http.MethodPost, "/any/path", strings.NewReader(body))
		request.Header.Set("Content-Type", "application/json")
		recorder := httptest.NewRecorder()
		handler.ServeHTTP(recorder, request)
		return recorder
	}
	response := func(handler http.Handler) *admissionv1.AdmissionResponse {
		t.Helper()
		var review admissionv1.AdmissionReview
		if err := json.Unmarshal(post(handler, string(reviewOf(t, pod))).Body.Bytes(), &review); err != nil || review.Response == nil {
			t.Fatalf("review %v, error %v", review, err)
		}
		return review.Response
	}
	want, err := f.Mutate(newContext(t), creationOf(pod))
	if err != nil {
		t.Fatal(err)
	}
	expectPatch(t, response(f.MutateHandler()), nil, string(want.Patch))
	expectRefused(t, response(f.ValidateHandler()), nil, 403, `pods "web" is forbidden: no service account specified for pod team/web`)
	if got := post(f.MutateHandler(), "{}"); got.Code != http.StatusBadRequest {
		t.Errorf("not a review: %d %s", got.Code, got.Body)
	}
}

// TestAnInformerOfTheCaller holds whole ServiceAccounts, and wakes requests that wait.
func TestAnInformerOfTheCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := fake.NewClientset(robot(testkit.WithAnnotation(rules.EnforceAnnotation, "true")))
		informer := informers.NewSharedInformerFactory(client, 0).Core().V1().ServiceAccounts().Informer()
		reviewer, err := New(Config{ServiceAccounts: informer, Client: client.CoreV1()})
		if err != nil {
			t.Fatal(err)
		}
		f := fixture{Reviewer: reviewer, client: client}
		ctx := newContext(t)
		defer started(ctx, t, f)()
		client.ClearActions()
		const otherSecret = `"serviceAccountName":"robot","volumes":[{"name":"v","secret":{"secretName":"other"}}],`
		response, err := f.Validate(ctx, creationOf(plain(otherSecret+mainContainer)))
		expectRefused(t, response, err, 403, `pods "web" is forbidden: volume with secret.secretName="other" is not allowed because service account robot does not reference that secret`)
		if got := f.requests(); len(got) != 0 {
			t.Errorf("requests %v", got)
		}

		done := make(chan *admissionv1.AdmissionResponse)
		go func() {
			response, err := f.Mutate(ctx, podOf("default"))
			if err != nil {
				t.Error(err)
			}
			done <- response
		}()
		synctest.Wait()
		f.create(t, defaultAccount())
		if response := <-done; !response.Allowed {
			t.Errorf("refused: %v", response.Result)
		}
		if found, _, err := informer.GetStore().GetByKey("team/robot"); err != nil || found.(*corev1.ServiceAccount).Annotations[rules.EnforceAnnotation] != "true" {
			t.Errorf("cached %v, error %v", found, err)
		}
	})
}
