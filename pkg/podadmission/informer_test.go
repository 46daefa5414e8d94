package podadmission

import (
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sakeeper/sakeeper/pkg/podadmission/rules"
	"github.com/sakeeper/sakeeper/pkg/testkit"
)

func TestAccountsAreReduced(t *testing.T) {
	full := robot(testkit.WithManagedFields(), testkit.WithLabel("app", "web"),
		testkit.WithAnnotation("kubectl.kubernetes.io/last-applied-configuration", "{}"), testkit.WithAnnotation(rules.EnforceAnnotation, "true"))
	full.Secrets = []corev1.ObjectReference{{Name: "a", Namespace: "team", Kind: "Secret"}}
	full.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "registry"}}
	full.AutomountServiceAccountToken = new(bool)
	want := &corev1.ServiceAccount{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "team", Name: "robot", UID: testkit.AccountUID, ResourceVersion: testkit.ResourceVersion,
			Annotations: map[string]string{rules.EnforceAnnotation: "true"},
		},
		Secrets:                      []corev1.ObjectReference{{Name: "a"}},
		ImagePullSecrets:             []corev1.LocalObjectReference{{Name: "registry"}},
		AutomountServiceAccountToken: new(bool),
	}
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, rules.Settings{}, full)
		defer started(newContext(t), t, f)()
		got := f.accounts.cached(nameOf("team", "robot"))
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("account (-want +got):\n%s", diff)
		}
	})
}
