package podadmission

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"slices"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/sakeeper/sakeeper/pkg/podadmission/rules"
	"github.com/sakeeper/sakeeper/pkg/testkit"
)

// asked is a line of the input from hack/differential.
type asked struct {
	// Webhook is "mutate" or "validate".
	Webhook string                        `json:"webhook"`
	Request *admissionv1.AdmissionRequest `json:"request"`
	// Cached are the ServiceAccounts in the cache, Live those that only the API server has.
	Cached                []*corev1.ServiceAccount `json:"cached"`
	Live                  []*corev1.ServiceAccount `json:"live"`
	LimitSecretReferences bool                     `json:"limitSecretReferences"`
}

// answered is a line of the output.
type answered struct {
	Response *admissionv1.AdmissionResponse `json:"response,omitempty"`
	Error    string                         `json:"error,omitempty"`
}

// TestAnswerReviews reads requests from the standard input and writes the responses to the
// file descriptor 3. hack/differential runs it as a process of its own, because the
// plugin of another release of Kubernetes cannot be built together with this package.
func TestAnswerReviews(t *testing.T) {
	if os.Getenv("ANSWER_REVIEWS") == "" {
		t.Skip("run by hack/differential")
	}
	reviewers := map[bool]*answerer{false: newAnswerer(t, rules.Settings{}), true: newAnswerer(t, rules.Settings{LimitSecretReferences: true})}
	in := json.NewDecoder(bufio.NewReader(os.Stdin))
	out := json.NewEncoder(os.NewFile(3, "answers"))
	for {
		var a asked
		if err := in.Decode(&a); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
		if err := out.Encode(reviewers[a.LimitSecretReferences].answer(t, a)); err != nil {
			t.Fatal(err)
		}
	}
}

// answerer is a reviewer whose cache and API server have the objects of a line.
type answerer struct {
	*Reviewer
	client *fake.Clientset
	live   []*corev1.ServiceAccount
}

func newAnswerer(t *testing.T, settings rules.Settings) *answerer {
	t.Helper()
	a := &answerer{client: fake.NewClientset()}
	a.client.PrependReactor("get", "serviceaccounts", func(action clienttesting.Action) (bool, runtime.Object, error) {
		wanted := action.(clienttesting.GetAction)
		for _, account := range a.live {
			if account.Namespace == wanted.GetNamespace() && account.Name == wanted.GetName() {
				return true, account, nil
			}
		}
		return true, nil, testkit.NotFound()
	})
	informer, err := Accounts(a.client)
	if err != nil {
		t.Fatal(err)
	}
	if a.Reviewer, err = New(Config{Accounts: informer, Client: a.client.CoreV1(), Settings: settings}); err != nil {
		t.Fatal(err)
	}
	return a
}

func (a *answerer) answer(t *testing.T, line asked) answered {
	t.Helper()
	var cached []any
	for _, account := range line.Cached {
		cached = append(cached, reduce(account))
	}
	if err := a.accounts.informer.GetStore().Replace(cached, ""); err != nil {
		t.Fatal(err)
	}
	a.client.ClearActions()
	a.live = slices.Concat(line.Cached, line.Live)
	ctx, cancel := context.WithTimeout(t.Context(), reserve+time.Millisecond) // a wait for an account ends at once
	defer cancel()
	handler := a.Validate
	if line.Webhook == "mutate" {
		handler = a.Mutate
	}
	response, err := handler(ctx, line.Request)
	if err != nil {
		return answered{Error: err.Error()}
	}
	return answered{Response: response}
}
