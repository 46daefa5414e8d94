package e2e

import (
	"context"
	"errors"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sakeeper/sakeeper/pkg/api"
)

// TestSecretWithoutRoomForTheCAIsReported has a Secret with nearly 1 MiB of data, the limit.
func TestSecretWithoutRoomForTheCAIsReported(t *testing.T) {
	t.Parallel()
	namespace := newNamespace(t, shared.client)
	mustCreateAccount(t, shared.client, namespace, "builder")
	full := tokenSecret("full", "builder")
	full.Data = map[string][]byte{corev1.ServiceAccountTokenKey: []byte(strings.Repeat("x", 1<<20))}
	mustCreateSecret(t, shared.client, namespace, full)
	var message string
	eventually(t, "event on the full secret", func(ctx context.Context) error {
		events, err := shared.client.CoreV1().Events(namespace).List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.name=full"})
		if err != nil {
			return err
		}
		if len(events.Items) == 0 || events.Items[0].Reason != api.ReasonFailedUpdateTokenSecret {
			return errors.New("none yet")
		}
		message = events.Items[0].Message
		return nil
	})
	if strings.Contains(message, "immutable") || strings.Contains(message, "xxxx") {
		t.Errorf("the event says %q; the Secret is too large, not immutable", message)
	}
	// Otherwise the failing key would be in the metrics of other tests.
	must(t, shared.client.CoreV1().Secrets(namespace).Delete(t.Context(), "full", metav1.DeleteOptions{}))
}
