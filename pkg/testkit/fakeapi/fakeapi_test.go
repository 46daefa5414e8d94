package fakeapi

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clienttesting "k8s.io/client-go/testing"

	"github.com/sakeeper/sakeeper/pkg/testkit"
)

var errBoom = errors.New("boom")

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestPreconditions sends requests about team/s, which has the testkit's UID and version.
func TestPreconditions(t *testing.T) {
	patch := func(body string, opts metav1.PatchOptions) func(*Server) error {
		return func(s *Server) error {
			_, err := s.CoreV1().Secrets("team").Patch(t.Context(), "s", types.MergePatchType, []byte(body), opts)
			return err
		}
	}
	update := func(opts ...testkit.Option) func(*Server) error {
		return func(s *Server) error {
			_, err := s.CoreV1().Secrets("team").Update(t.Context(), testkit.Secret("team/s", append(opts, testkit.WithLabel("new", "yes"))...), metav1.UpdateOptions{})
			return err
		}
	}
	remove := func(p metav1.Preconditions) func(*Server) error {
		return func(s *Server) error {
			return s.CoreV1().Secrets("team").Delete(t.Context(), "s", metav1.DeleteOptions{Preconditions: &p})
		}
	}
	right, other, old := testkit.SecretUID, testkit.OtherUID, "99"
	const label = `"labels":{"new":"yes"}`
	cases := map[string]struct {
		in           func(*Server) error
		wantConflict bool
		wantVersion  string // empty: the Secret is gone
	}{
		"a patch with uid and version":  {in: patch(`{"metadata":{"uid":"`+string(right)+`","resourceVersion":"100",`+label+`}}`, metav1.PatchOptions{}), wantVersion: "1001"},
		"a patch without preconditions": {in: patch(`{"metadata":{`+label+`}}`, metav1.PatchOptions{}), wantVersion: "1001"},
		"a patch of another uid":        {in: patch(`{"metadata":{"uid":"`+string(other)+`"}}`, metav1.PatchOptions{}), wantConflict: true, wantVersion: "100"},
		"a patch of another version":    {in: patch(`{"metadata":{"resourceVersion":"99"}}`, metav1.PatchOptions{}), wantConflict: true, wantVersion: "100"},
		"a dry run":                     {in: patch(`{"metadata":{`+label+`}}`, metav1.PatchOptions{DryRun: []string{"All"}}), wantVersion: "100"},
		"a dry run of another version":  {in: patch(`{"metadata":{"resourceVersion":"99"}}`, metav1.PatchOptions{DryRun: []string{"All"}}), wantConflict: true, wantVersion: "100"},
		"an update":                     {in: update(), wantVersion: "1001"},
		"an update without a version":   {in: update(testkit.WithResourceVersion("")), wantVersion: "1001"},
		"an update of another version":  {in: update(testkit.WithResourceVersion("99")), wantConflict: true, wantVersion: "100"},
		"a deletion":                    {in: remove(metav1.Preconditions{UID: &right})},
		"a deletion of another uid":     {in: remove(metav1.Preconditions{UID: &other}), wantConflict: true, wantVersion: "100"},
		"a deletion of another version": {in: remove(metav1.Preconditions{ResourceVersion: &old}), wantConflict: true, wantVersion: "100"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			s := New(testkit.Secret("team/s"))
			if err := tc.in(s); apierrors.IsConflict(err) != tc.wantConflict || (err != nil) != tc.wantConflict {
				t.Errorf("got %v", err)
			}
			secret := Get[corev1.Secret](s, "team/s")
			switch {
			case secret == nil:
				if tc.wantVersion != "" {
					t.Error("the secret is gone")
				}
			case secret.ResourceVersion != tc.wantVersion || secret.UID != testkit.SecretUID || (secret.Labels["new"] == "yes") != (tc.wantVersion == "1001"):
				t.Errorf("got %v", secret.ObjectMeta)
			}
		})
	}
}

func TestACreatedObjectGetsAUIDAndAVersion(t *testing.T) {
	s := New()
	created, err := s.CoreV1().Secrets("team").Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "s"}}, metav1.CreateOptions{})
	must(t, err)
	if created.UID != "uid-1001" || created.ResourceVersion != "1001" {
		t.Errorf("got %v", created.ObjectMeta)
	}
	if _, err := s.CoreV1().Secrets("team").Create(t.Context(), created, metav1.CreateOptions{}); !apierrors.IsAlreadyExists(err) {
		t.Errorf("got %v", err)
	}
}

func TestListsAndWatchesObeySelectors(t *testing.T) {
	opaque := testkit.Secret("team/opaque")
	opaque.Type = corev1.SecretTypeOpaque
	s := New(testkit.Secret("team/a"), testkit.Secret("team/b"), testkit.Secret("other/a"), opaque)
	options := metav1.ListOptions{FieldSelector: "metadata.name!=b,type=kubernetes.io/service-account-token"}
	typed, err := s.CoreV1().Secrets("team").List(t.Context(), options)
	must(t, err)
	metadata, err := s.Metadata.Resource(corev1.SchemeGroupVersion.WithResource("secrets")).Namespace("team").List(t.Context(), options)
	must(t, err)
	if len(typed.Items) != 1 || typed.Items[0].Name != "a" || len(metadata.Items) != 1 || metadata.Items[0].Name != "a" || metadata.Items[0].UID != testkit.SecretUID {
		t.Errorf("got %v and %v", typed.Items, metadata.Items)
	}
	options.ResourceVersion = typed.ResourceVersion
	w, err := s.CoreV1().Secrets("team").Watch(t.Context(), options)
	must(t, err)
	defer w.Stop()
	for _, name := range []string{"team/b", "other/c", "team/c"} {
		s.Set(testkit.Secret(name))
	}
	if event := <-w.ResultChan(); event.Object.(*corev1.Secret).Name != "c" || event.Type != "ADDED" {
		t.Errorf("got %v", event)
	}
}

func TestAWatchEndsWithAnEventThatWasNotReceived(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // fails if a goroutine does not end
		s := New()
		w, err := s.CoreV1().Secrets("team").Watch(t.Context(), metav1.ListOptions{})
		must(t, err)
		s.Set(testkit.Secret("team/s"))
		synctest.Wait()
		w.Stop()
		w.Stop()
	})
}

func TestFaults(t *testing.T) {
	cases := map[string]struct {
		in          func(clienttesting.Action) *Fault
		wantErr     error
		wantCreated bool
	}{
		"none":                         {in: func(clienttesting.Action) *Fault { return nil }, wantCreated: true},
		"an error":                     {in: Errors{"create secrets": errBoom}.Fault, wantErr: errBoom},
		"an error of another request":  {in: Errors{"patch secrets": errBoom}.Fault, wantCreated: true},
		"an error of what was done":    {in: func(clienttesting.Action) *Fault { return &Fault{Err: errBoom, CarriedOut: true} }, wantErr: errBoom, wantCreated: true},
		"an error of another resource": {in: Errors{"create serviceaccounts/token": errBoom}.Fault, wantCreated: true},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			s := New()
			s.Inject(tc.in)
			_, err := s.CoreV1().Secrets("team").Create(t.Context(), testkit.Secret("team/s"), metav1.CreateOptions{})
			if !errors.Is(err, tc.wantErr) || (err == nil) != (tc.wantErr == nil) {
				t.Errorf("got %v", err)
			}
			if got := Get[corev1.Secret](s, "team/s") != nil; got != tc.wantCreated {
				t.Errorf("created: %t", got)
			}
			if requests := s.Requests(); len(requests) != 1 || requests[0].GetVerb() != "create" {
				t.Errorf("requests %v", requests)
			}
		})
	}
}

func TestChangesOfOtherClientsAreSeenAndAreNoRequests(t *testing.T) {
	s := New(testkit.Secret("team/b"))
	var seen []string
	s.OnChange(func(before, after runtime.Object) {
		version := func(obj runtime.Object) string {
			if obj == nil {
				return "none"
			}
			return accessor(obj).GetResourceVersion()
		}
		seen = append(seen, version(before)+" to "+version(after))
	})
	s.Set(testkit.Secret("team/a"))
	s.Set(testkit.Secret("team/b"))
	s.Remove(testkit.Secret("team/b"))
	s.Remove(testkit.Secret("team/none"))
	if diff := cmp.Diff([]string{"none to 1001", "100 to 1002", "1002 to none"}, seen); diff != "" {
		t.Errorf("changes (-want +got):\n%s", diff)
	}
	names := []string{}
	for _, secret := range List[corev1.Secret](s, "") {
		names = append(names, secret.Name)
	}
	if !slices.Equal(names, []string{"a"}) || len(s.Requests()) != 0 {
		t.Errorf("got %v and %v", names, s.Requests())
	}
}
