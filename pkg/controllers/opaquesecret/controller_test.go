package opaquesecret

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/tools/record"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/testkit"
	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
)

// recorder keeps the names of the Secrets that have an event.
type recorder struct {
	record.EventRecorder // nil: no other method is called

	mu    sync.Mutex
	names []string
	texts []string
}

func (r *recorder) Eventf(object runtime.Object, kind, reason, format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.names = append(r.names, object.(*corev1.ObjectReference).Name)
	r.texts = append(r.texts, kind+" "+reason+" "+fmt.Sprintf(format, args...))
}

// recorded returns the names of the Secrets with an event since the last call.
func (r *recorder) recorded() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	names := r.names
	r.names = nil
	return names
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestNew(t *testing.T) {
	for name, cfg := range map[string]Config{
		"no metadata client": {Recorder: &recorder{}},
		"no recorder":        {Metadata: struct{ metadata.Interface }{}},
	} {
		if c, err := New(cfg); err == nil || c != nil {
			t.Errorf("%s: %v, %v", name, c, err)
		}
	}
}

// opaque is a Secret of type Opaque that names a ServiceAccount.
func opaque(name string) *corev1.Secret {
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{corev1.ServiceAccountNameKey: "default"}}}
}

// TestWithARealAPIServer has Secrets from before the start, which cost nothing.
func TestWithARealAPIServer(t *testing.T) {
	cp, err := controlplane.Start(controlplane.Options{Dir: t.TempDir()})
	must(t, err)
	t.Cleanup(func() { must(t, cp.Stop()) })
	admin, err := kubernetes.NewForConfig(cp.Admin)
	must(t, err)
	secrets := admin.CoreV1().Secrets(metav1.NamespaceDefault)
	create := func(secret *corev1.Secret) *corev1.Secret {
		t.Helper()
		created, err := secrets.Create(t.Context(), secret, metav1.CreateOptions{})
		must(t, err)
		return created
	}
	config, err := cp.User("watcher", "system:masters")
	must(t, err)
	meta, err := metadata.NewForConfig(config)
	must(t, err)
	former := create(opaque("former"))

	events := &recorder{}
	c, err := New(Config{Metadata: meta, Recorder: events})
	must(t, err)
	mark, err := cp.Audit.Mark(t.Context())
	must(t, err)
	defer testkit.Start(t.Context(), t, c.Run)()
	probes := 0
	eventually(t, "the first event", func(ctx context.Context) error {
		probes++
		_, err := secrets.Create(ctx, opaque(fmt.Sprint("probe-", probes)), metav1.CreateOptions{})
		if err == nil && len(events.recorded()) == 0 {
			err = errors.New("none yet")
		}
		return err
	})
	last := func(name string) []string {
		create(opaque(name))
		var names []string
		eventually(t, "event on "+name, func(context.Context) error {
			names = append(names, events.recorded()...)
			if !slices.Contains(names, name) {
				return fmt.Errorf("saw %v", names)
			}
			return nil
		})
		return slices.DeleteFunc(names, func(name string) bool { return strings.HasPrefix(name, "probe-") })
	}
	last("ready")

	mistaken := create(opaque("mistaken"))
	plain := opaque("plain")
	plain.Annotations = nil
	create(plain)
	managed := opaque("managed")
	managed.Labels = map[string]string{api.TokenLabel: api.TokenManaged}
	create(managed)
	token := opaque("token")
	token.Type = corev1.SecretTypeServiceAccountToken
	create(token)
	mistaken.Data = map[string][]byte{"token": []byte("eyJ-must-not-be-seen")}
	mistaken, err = secrets.Update(t.Context(), mistaken, metav1.UpdateOptions{})
	must(t, err)
	former.Labels = map[string]string{"changed": "true"}
	_, err = secrets.Update(t.Context(), former, metav1.UpdateOptions{})
	must(t, err)
	if diff := cmp.Diff([]string{"mistaken", "former", "one"}, last("one")); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}

	// The mistake is made once more: after it was put right, and in a new Secret of that name.
	mistaken.Annotations = nil
	mistaken, err = secrets.Update(t.Context(), mistaken, metav1.UpdateOptions{})
	must(t, err)
	mistaken.Annotations = opaque("").Annotations
	_, err = secrets.Update(t.Context(), mistaken, metav1.UpdateOptions{})
	must(t, err)
	must(t, secrets.Delete(t.Context(), "mistaken", metav1.DeleteOptions{}))
	create(opaque("mistaken"))
	if diff := cmp.Diff([]string{"mistaken", "mistaken", "two"}, last("two")); diff != "" {
		t.Errorf("later events (-want +got):\n%s", diff)
	}
	want := "Warning WrongSecretType This Secret is of type Opaque, and gets no token for the annotation kubernetes.io/service-account.name: only one of type kubernetes.io/service-account-token does. The type of a Secret cannot be changed; delete this one, and create one with the type"
	events.mu.Lock()
	defer events.mu.Unlock()
	for _, text := range events.texts {
		if text != want {
			t.Errorf("event %q", text)
		}
	}

	requests, err := cp.Audit.Since(t.Context(), mark, func(r controlplane.Request) bool { return r.User.Username == "watcher" })
	must(t, err)
	lists := 0
	for _, r := range requests {
		options, err := url.ParseQuery(r.URI[strings.Index(r.URI, "?")+1:])
		must(t, err)
		switch {
		case r.Verb == "list" && options.Get("limit") == "1":
			lists++
		case r.Verb == "watch" && options.Get("fieldSelector") == "type=Opaque" && options.Get("sendInitialEvents") == "" && options.Get("resourceVersion") != "":
		default:
			t.Errorf("request %s %s", r.Verb, r.URI)
		}
	}
	if lists != 1 {
		t.Errorf("%d lists, want one", lists)
	}
}

func eventually(t *testing.T, what string, check func(ctx context.Context) error) {
	t.Helper()
	testkit.Await(t, 10*time.Millisecond, 30*time.Second, what, check)
}
