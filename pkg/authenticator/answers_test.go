package authenticator_test

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"io"
	"os"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"

	"github.com/sakeeper/sakeeper/pkg/authenticator"
	"github.com/sakeeper/sakeeper/pkg/keys"
	"github.com/sakeeper/sakeeper/pkg/token"
)

// state is a cluster: objects by "namespace/name", nodes and webhook configurations by name.
type state struct {
	Accounts map[string]object `json:"accounts,omitempty"`
	Pods     map[string]object `json:"pods,omitempty"`
	Secrets  map[string]object `json:"secrets,omitempty"`
	Nodes    map[string]object `json:"nodes,omitempty"`

	ValidatingWebhooks map[string]object `json:"validatingWebhooks,omitempty"`
	MutatingWebhooks   map[string]object `json:"mutatingWebhooks,omitempty"`
}

// object is what the answer may depend on. Token and InvalidSince belong to Secrets.
type object struct {
	UID string `json:"uid"`
	// DeletedFor is how many seconds ago its deletion timestamp was; nil: it has none.
	DeletedFor   *int   `json:"deletedFor,omitempty"`
	Token        string `json:"token,omitempty"`
	InvalidSince string `json:"invalidSince,omitempty"`
}

func find(objects map[string]object, namespace, name string) (authenticator.Object, object, error) {
	key := namespace + "/" + name
	if namespace == "" {
		key = name
	}
	found, ok := objects[key]
	if !ok {
		return nil, found, apierrors.NewNotFound(schema.GroupResource{}, name)
	}
	meta := &metav1.ObjectMeta{Namespace: namespace, Name: name, UID: types.UID(found.UID), ResourceVersion: "1"}
	if found.DeletedFor != nil {
		meta.DeletionTimestamp = &metav1.Time{Time: time.Now().Add(-time.Duration(*found.DeletedFor) * time.Second)}
	}
	if found.InvalidSince != "" {
		meta.Labels = map[string]string{token.InvalidSinceLabel: found.InvalidSince}
	}
	return meta, found, nil
}

func (s state) ServiceAccount(_ context.Context, namespace, name string) (authenticator.Object, error) {
	meta, _, err := find(s.Accounts, namespace, name)
	return meta, err
}

func (s state) Pod(_ context.Context, namespace, name string) (authenticator.Object, error) {
	meta, _, err := find(s.Pods, namespace, name)
	return meta, err
}

func (s state) Node(_ context.Context, name string) (authenticator.Object, error) {
	meta, _, err := find(s.Nodes, "", name)
	return meta, err
}

func (s state) ValidatingWebhookConfiguration(_ context.Context, name string) (authenticator.Object, error) {
	meta, _, err := find(s.ValidatingWebhooks, "", name)
	return meta, err
}

func (s state) MutatingWebhookConfiguration(_ context.Context, name string) (authenticator.Object, error) {
	meta, _, err := find(s.MutatingWebhooks, "", name)
	return meta, err
}

func (s state) BoundSecret(_ context.Context, namespace, name string) (authenticator.Object, error) {
	meta, _, err := find(s.Secrets, namespace, name)
	return meta, err
}

func (s state) TokenSecret(_ context.Context, namespace, name string) (authenticator.Secret, error) {
	meta, found, err := find(s.Secrets, namespace, name)
	return authenticator.Secret{Object: meta, Sum: sha256.Sum256([]byte(found.Token))}, err
}

type asked struct {
	Token        string   `json:"token"`
	Audiences    []string `json:"audiences"`
	Issuers      []string `json:"issuers"`
	APIAudiences []string `json:"apiAudiences"`
	State        state    `json:"state"`
}

type answered struct {
	Reason    string                    `json:"reason"` // empty: it is accepted
	User      authenticationv1.UserInfo `json:"user"`
	Audiences []string                  `json:"audiences"`
}

// TestAnswerTokens reads tokens from the standard input and writes whether they are accepted to
// the file descriptor 3. hack/differential runs it as a process of its own, because the verifier of
// another release of Kubernetes cannot be built together with this package.
func TestAnswerTokens(t *testing.T) {
	keyFile := os.Getenv("ANSWER_TOKENS")
	if keyFile == "" {
		t.Skip("run by hack/differential")
	}
	loader, err := keys.Files{KeyFiles: []string{keyFile}}.OpenVerification()
	if err != nil {
		t.Fatal(err)
	}
	in := json.NewDecoder(bufio.NewReader(os.Stdin))
	out := json.NewEncoder(os.NewFile(3, "answers"))
	for {
		var line asked
		if err := in.Decode(&line); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
		a, err := authenticator.New(authenticator.Config{
			Keys: loader.Get, Issuers: line.Issuers, Audiences: line.APIAudiences, Objects: line.State, Clock: clock.RealClock{},
		})
		if err != nil {
			t.Fatal(err)
		}
		response, err := a.Authenticate(t.Context(), line.Token, line.Audiences)
		answer := answered{User: response.User, Audiences: response.Audiences}
		if err != nil {
			answer.Reason = err.Error()
		}
		if err := out.Encode(answer); err != nil {
			t.Fatal(err)
		}
	}
}
