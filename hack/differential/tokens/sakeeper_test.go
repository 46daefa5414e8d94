package tokens

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
)

// The types of TestAnswerTokens.
type (
	state struct {
		Accounts map[string]object `json:"accounts,omitempty"`
		Pods     map[string]object `json:"pods,omitempty"`
		Secrets  map[string]object `json:"secrets,omitempty"`
		Nodes    map[string]object `json:"nodes,omitempty"`

		ValidatingWebhooks map[string]object `json:"validatingWebhooks,omitempty"`
		MutatingWebhooks   map[string]object `json:"mutatingWebhooks,omitempty"`
	}
	object struct {
		UID          string `json:"uid"`
		DeletedFor   *int   `json:"deletedFor,omitempty"`
		Token        string `json:"token,omitempty"`
		InvalidSince string `json:"invalidSince,omitempty"`
	}
	question struct {
		Token        string   `json:"token"`
		Audiences    []string `json:"audiences"`
		Issuers      []string `json:"issuers"`
		APIAudiences []string `json:"apiAudiences"`
		State        state    `json:"state"`
	}
	answer struct {
		Reason    string                    `json:"reason"` // empty: it is accepted
		User      authenticationv1.UserInfo `json:"user"`
		Audiences []string                  `json:"audiences"`
	}
)

// sakeeper is a process that answers with pkg/authenticator. It is used from one goroutine.
type sakeeper struct {
	questions *json.Encoder
	answers   *json.Decoder
}

// startSakeeper builds the process, and runs it until the test ends.
func startSakeeper(t *testing.T, keyFile string) *sakeeper {
	t.Helper()
	program := filepath.Join(t.TempDir(), "authenticator.test")
	build := exec.CommandContext(t.Context(), "go", "test", "-c", "-o", program, "./pkg/authenticator")
	build.Dir = "../../.."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building pkg/authenticator: %v: %s", err, out)
	}
	process := exec.CommandContext(context.WithoutCancel(t.Context()), program, "-test.run", "^TestAnswerTokens$")
	process.Env = append(os.Environ(), "ANSWER_TOKENS="+keyFile)
	process.Stdout, process.Stderr = os.Stderr, os.Stderr
	theirs, ours, err1 := os.Pipe()
	answers, writes, err2 := os.Pipe()
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	process.Stdin, process.ExtraFiles = theirs, []*os.File{writes}
	if err := errors.Join(process.Start(), theirs.Close(), writes.Close()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(ours.Close(), process.Wait(), answers.Close()); err != nil {
			t.Errorf("ending pkg/authenticator: %v", err)
		}
	})

	return &sakeeper{questions: json.NewEncoder(ours), answers: json.NewDecoder(answers)}
}

func (s *sakeeper) answer(q question) (answer, error) {
	var a answer
	if err := s.questions.Encode(q); err != nil {
		return a, err
	}

	return a, s.answers.Decode(&a)
}
