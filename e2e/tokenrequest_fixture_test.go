package e2e

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/controllers/tokenrequest"
	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
)

const onTokenRequests = "--controllers=*," + tokenrequest.Name

// newServedNamespace creates a namespace in which Secrets may request tokens, with the
// ServiceAccount robot.
func newServedNamespace(t *testing.T, p controlPlane) (namespace string, robot *corev1.ServiceAccount) {
	t.Helper()
	namespace = newNamespace(t, p.client)
	serve(t, p, namespace, `"`+api.TokenRequestsAllowed+`"`)
	return namespace, mustCreateAccount(t, p.client, namespace, "robot")
}

// serve sets the token-requests label of a namespace to a JSON value.
func serve(t *testing.T, p controlPlane, namespace, value string) {
	t.Helper()
	_, err := p.client.CoreV1().Namespaces().Patch(t.Context(), namespace, types.MergePatchType,
		fmt.Appendf(nil, `{"metadata":{"labels":{%q:%s}}}`, api.TokenRequestsLabel, value), metav1.PatchOptions{})
	must(t, err)
}

// managed returns a Secret that requests a token of robot, with annotations from settings,
// whose keys have no prefix.
func managed(name string, settings map[string]string) *corev1.Secret {
	annotations := map[string]string{api.ServiceAccountAnnotation: "robot", "mine": "yes"}
	for key, value := range settings {
		annotations["sakeeper.io/"+key] = value
	}
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{api.TokenLabel: api.TokenManaged}, Annotations: annotations},
		Data:       map[string][]byte{"mine": []byte("yes")},
	}
}

// annotate sets an annotation of the Secret s.
func annotate(t *testing.T, p controlPlane, namespace, key, value string) {
	t.Helper()
	_, err := p.client.CoreV1().Secrets(namespace).Patch(t.Context(), "s", types.MergePatchType,
		fmt.Appendf(nil, `{"metadata":{"annotations":{%q:%q}}}`, key, value), metav1.PatchOptions{})
	must(t, err)
}

// expectManaged waits until the Secret has a token other than former, and exactly those keys
// besides the user's own.
func expectManaged(t *testing.T, p controlPlane, namespace, name, former string, keys ...string) *corev1.Secret {
	t.Helper()
	var secret *corev1.Secret
	eventually(t, "token in "+namespace+"/"+name, func(ctx context.Context) (err error) {
		secret, err = p.client.CoreV1().Secrets(namespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if id := secret.Annotations[api.CredentialIDAnnotation]; id == "" || id == former {
			return fmt.Errorf("credential id %q", id)
		}
		return nil
	})
	want := slices.Sorted(slices.Values(append(keys, "mine")))
	if diff := cmp.Diff(want, slices.Sorted(maps.Keys(secret.Data))); diff != "" {
		t.Errorf("keys (-want +got):\n%s", diff)
	}
	if secret.Annotations["mine"] != "yes" || string(secret.Data["mine"]) != "yes" {
		t.Error("what is the user's was changed")
	}
	return secret
}

// askAbout creates a TokenReview of a token.
func askAbout(ctx context.Context, p controlPlane, token string) (authenticationv1.TokenReviewStatus, error) {
	answer, err := p.client.AuthenticationV1().TokenReviews().Create(ctx, &authenticationv1.TokenReview{
		Spec: authenticationv1.TokenReviewSpec{Token: token},
	}, metav1.CreateOptions{})
	if err != nil {
		return authenticationv1.TokenReviewStatus{}, err
	}
	return answer.Status, nil
}

// expectRefused waits until the API server refuses a token, and logs how long that took.
func expectRefused(t *testing.T, p controlPlane, what, token string) {
	t.Helper()
	began := time.Now()
	eventually(t, what+" is refused", func(ctx context.Context) error {
		status, err := askAbout(ctx, p, token)
		if err == nil && status.Authenticated {
			err = errors.New("still accepted")
		}
		return err
	})
	t.Logf("%s was refused after %v", what, time.Since(began))
}

// expectRobot waits until the API server accepts the token, whose own cache may have a former robot
// still, and checks that it is one of robot with that UID.
func expectRobot(t *testing.T, p controlPlane, namespace, token string, uid types.UID, credentialID string) {
	t.Helper()
	var status authenticationv1.TokenReviewStatus
	eventually(t, "the token is accepted", func(ctx context.Context) (err error) {
		status, err = askAbout(ctx, p, token)
		if err == nil && !status.Authenticated {
			err = errors.New(status.Error)
		}
		return err
	})
	got := []string{status.User.Username, status.User.UID}
	if diff := cmp.Diff([]string{"system:serviceaccount:" + namespace + ":robot", string(uid)}, got); diff != "" {
		t.Errorf("bearer (-want +got), %s:\n%s", status.Error, diff)
	}
	if diff := cmp.Diff(authenticationv1.ExtraValue{credentialID}, status.User.Extra["authentication.kubernetes.io/credential-id"]); diff != "" {
		t.Errorf("credential id (-want +got):\n%s", diff)
	}
}

// expectTold waits for an event on a Secret.
func expectTold(t *testing.T, client kubernetes.Interface, namespace, name, reason string, words ...string) {
	t.Helper()
	eventually(t, "event on "+name, func(ctx context.Context) error {
		events, err := client.CoreV1().Events(namespace).List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.name=" + name})
		if err != nil {
			return err
		}
		var seen []string
		for _, event := range events.Items {
			missing := slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(event.Message, word) })
			if event.Reason == reason && event.Type == corev1.EventTypeWarning && !missing {
				return nil
			}
			seen = append(seen, event.Reason+": "+event.Message)
		}
		return fmt.Errorf("saw %q, want %s with %q", seen, reason, words)
	})
}

// expectProblem waits until a Secret says what is wrong with it, with words, and returns it.
func expectProblem(t *testing.T, p controlPlane, namespace, name string, words ...string) *corev1.Secret {
	t.Helper()
	var secret *corev1.Secret
	eventually(t, "problem of "+name, func(ctx context.Context) (err error) {
		secret, err = p.client.CoreV1().Secrets(namespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		text := secret.Annotations[api.ProblemAnnotation]
		if text == "" || slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(text, word) }) {
			return fmt.Errorf("it is %q, want %q", text, words)
		}
		return nil
	})
	return secret
}

// tokenCounts counts the requests that are about tokens.
func tokenCounts(t *testing.T, p controlPlane, mark controlplane.Mark, namespace string) map[string]int {
	t.Helper()
	counts := controlplane.Count(requests(t, p.ControlPlane, mark, namespace))
	maps.DeleteFunc(counts, func(what string, _ int) bool { return strings.HasPrefix(what, "list ") })
	return counts
}
