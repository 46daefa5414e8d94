package e2e

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sakeeper/sakeeper/pkg/servingcert/pki"
)

// other is another mutating webhook, which is called after ours: API servers order webhooks by
// the names of their configurations.
type other struct {
	// change returns a JSON patch, or nil.
	change atomic.Pointer[func(*corev1.Pod) []byte]
}

// newOther starts and registers one.
func newOther(t *testing.T, p controlPlane) *other {
	t.Helper()
	o := &other{}
	ca := mustAuthority(t, time.Now())
	certFile, keyFile := mustWritePair(t, t.TempDir(), mustServe(t, ca, time.Now()))
	cert, err := tls.LoadX509KeyPair(certFile, keyFile)
	must(t, err)
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	must(t, err)
	server := &http.Server{
		Handler: o, ReadHeaderTimeout: patience, ErrorLog: log.New(t.Output(), "", 0),
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12},
	}
	ended := make(chan error, 1)
	go func() { ended <- server.ServeTLS(listener, "", "") }()
	t.Cleanup(func() {
		_ = server.Close()
		if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("the other webhook ended with %v", err)
		}
	})
	_, err = p.client.AdmissionregistrationV1().MutatingWebhookConfigurations().Create(t.Context(), &admissionregistrationv1.MutatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: "z-after-sakeeper"},
		Webhooks: []admissionregistrationv1.MutatingWebhook{{
			Name: "other.example.com",
			ClientConfig: admissionregistrationv1.WebhookClientConfig{
				URL: new("https://" + listener.Addr().String() + "/"), CABundle: pki.Bundle(ca.Cert()),
			},
			Rules: []admissionregistrationv1.RuleWithOperations{{
				Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Create},
				Rule:       admissionregistrationv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"pods"}},
			}},
			ReinvocationPolicy: new(admissionregistrationv1.IfNeededReinvocationPolicy),
			SideEffects:        new(admissionregistrationv1.SideEffectClassNone), AdmissionReviewVersions: []string{"v1"},
		}},
	}, metav1.CreateOptions{})
	must(t, err)
	return o
}

// does sets the change for the next calls.
func (o *other) does(change func(*corev1.Pod) []byte) { o.change.Store(&change) }

func (o *other) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var review admissionv1.AdmissionReview
	var pod corev1.Pod
	if json.NewDecoder(r.Body).Decode(&review) != nil || review.Request == nil || json.Unmarshal(review.Request.Object.Raw, &pod) != nil {
		http.Error(w, "no review of a pod", http.StatusBadRequest)
		return
	}
	response := &admissionv1.AdmissionResponse{UID: review.Request.UID, Allowed: true}
	if change := o.change.Load(); change != nil {
		if response.Patch = (*change)(&pod); response.Patch != nil {
			response.PatchType = new(admissionv1.PatchTypeJSONPatch)
		}
	}
	review.Request, review.Response = nil, response
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(&review); err != nil {
		panic(http.ErrAbortHandler) // the client has disconnected
	}
}

// addsSidecar adds a container, as a service mesh does.
func addsSidecar(pod *corev1.Pod) []byte {
	if hasSidecar(pod) {
		return nil
	}
	return []byte(`[{"op":"add","path":"/spec/containers/-","value":{"name":"sidecar","image":"i"}}]`)
}

func hasSidecar(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Spec.Containers, func(c corev1.Container) bool { return c.Name == "sidecar" })
}

// addsVolume adds a volume of that Secret.
func addsVolume(secret string) func(*corev1.Pod) []byte {
	return func(pod *corev1.Pod) []byte {
		if slices.ContainsFunc(pod.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == "added" }) {
			return nil
		}
		return fmt.Appendf(nil, `[{"op":"add","path":"/spec/volumes/-","value":{"name":"added","secret":{"secretName":%q}}}]`, secret)
	}
}

// addsVolumeAtLast adds it in the second call, after which only validating webhooks get the
// pod: a mutating webhook is called again at most once.
func addsVolumeAtLast(secret string) func(*corev1.Pod) []byte {
	return func(pod *corev1.Pod) []byte {
		if patch := addsSidecar(pod); patch != nil {
			return patch
		}
		return addsVolume(secret)(pod)
	}
}

func TestAnotherWebhookChangesThePod(t *testing.T) {
	p := newControlPlane(t)
	newLikeness(t, p)
	startWebhook(t, p)
	o := newOther(t, p)
	var called atomic.Bool
	o.does(func(*corev1.Pod) []byte { called.Store(true); return nil })
	eventually(t, "a call of the other webhook", func(ctx context.Context) error {
		_, err := p.client.CoreV1().Pods(likenessNamespace).Create(ctx, pod("dry"), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if err == nil && !called.Load() {
			err = errors.New("it was not called")
		}
		return err
	})
	t.Run("and adds a container", func(t *testing.T) { expectSidecarMounts(t, p, o) })
	t.Run("and adds a Secret", func(t *testing.T) { expectAddedSecretIsRefused(t, p, o) })
}

// expectSidecarMounts checks that every container, also the added one, has one token mount.
func expectSidecarMounts(t *testing.T, p controlPlane, o *other) {
	t.Helper()
	o.does(addsSidecar)
	mark := mustMark(t, p.ControlPlane)
	created := mustCreatePod(t, p.client, likenessNamespace, pod("with-sidecar"))
	if !hasSidecar(created) {
		t.Error("the other webhook added no container")
	}
	expectToken(t, created)
	for _, c := range append(created.Spec.InitContainers, created.Spec.Containers...) {
		if len(c.VolumeMounts) != 1 {
			t.Errorf("container %s mounts %v", c.Name, c.VolumeMounts)
		}
	}
	patches := map[string]bool{}
	calls := countCalls(t, p, mark, func(key, note string) {
		if strings.HasPrefix(key, "mutation.") {
			patches[note] = strings.Contains(note, `"mutated":true`)
		}
	})
	ours := 0
	for note, mutated := range patches {
		if mutated && strings.Contains(note, `"webhook":"mutate.pods.sakeeper.io"`) {
			ours++
		}
	}
	if calls != 4 || ours != 1 {
		t.Errorf("%d calls: %v", calls, patches)
	}
}

func expectAddedSecretIsRefused(t *testing.T, p controlPlane, o *other) {
	t.Helper()
	n := 0
	for name, tc := range map[string]struct {
		in     func(*corev1.Pod) []byte
		wantBy string // empty: it is allowed
	}{
		"that is listed":            {in: addsVolume("listed")},
		"that is listed, at last":   {in: addsVolumeAtLast("listed")},
		"that is unlisted":          {in: addsVolume("unlisted"), wantBy: "mutate"},
		"that is unlisted, at last": {in: addsVolumeAtLast("unlisted"), wantBy: "validate"},
	} {
		t.Run(name, func(t *testing.T) {
			o.does(tc.in)
			wanted := pod(fmt.Sprintf("with-secret-%d", n))
			n++
			wanted.Spec.ServiceAccountName = "limited"
			created, err := p.client.CoreV1().Pods(likenessNamespace).Create(t.Context(), wanted, metav1.CreateOptions{})
			if tc.wantBy == "" {
				must(t, err)
				if added := created.Spec.Volumes[len(created.Spec.Volumes)-1]; added.Name != "added" {
					t.Errorf("the other webhook added no volume to %v", created.Spec.Volumes)
				}
				return
			}
			want := fmt.Sprintf(`admission webhook "%s.pods.sakeeper.io" denied the request: pods %q is forbidden: volume with secret.secretName="unlisted" is not allowed because service account limited does not reference that secret`,
				tc.wantBy, wanted.Name)
			if !apierrors.IsForbidden(err) || err.Error() != want {
				t.Errorf("got %v, want %s", err, want)
			}
		})
	}
}
