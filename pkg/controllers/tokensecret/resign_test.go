package tokensecret

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/internal/tokenreview"
	"github.com/sakeeper/sakeeper/pkg/internal/workqueue"
	"github.com/sakeeper/sakeeper/pkg/testkit"
	"github.com/sakeeper/sakeeper/pkg/token"
)

func TestResigningIsRateLimited(t *testing.T) {
	f := newFixture(t, apiServer{}, testkit.ServiceAccount("team/robot"))
	f.cfg.Resign = ResignAll
	for _, name := range []string{"a", "b", "c"} {
		compact := signedBy(t, "rsa2048", func(c *token.LegacyClaims) { c.SecretName = name })
		old := secret(testkit.WithData("token", compact))
		old.Name = name
		f.cache(t, old)
	}
	waits := map[string]time.Duration{}
	for _, name := range []string{"a", "b", "c"} {
		requeueAfter, err := f.sync(f.context(t), objectName("team/"+name))
		if err != nil && !errors.Is(err, workqueue.ErrRequeueLater) {
			t.Fatal(err)
		}
		waits[name] = requeueAfter
	}
	want := map[string]time.Duration{"a": 0, "b": 100 * time.Millisecond, "c": 200 * time.Millisecond}
	if diff := cmp.Diff(want, waits); diff != "" {
		t.Errorf("waits (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"patch secrets team/a"}, f.writes()); diff != "" {
		t.Errorf("writes (-want +got):\n%s", diff)
	}
}

func TestADeadTokenIsReplacedThoughTheCACannotBeWritten(t *testing.T) {
	f := newCheckFixture(t, signedBy(t, "p384"), testkit.WithData("ca.crt", "another"))
	f.reviewer.answer = tokenreview.Result{Reason: "unknown key"}
	f.client.PrependReactor("patch", "secrets", func(action clienttesting.Action) (bool, runtime.Object, error) {
		data, _ := testkit.Requests([]clienttesting.Action{action})[0].Body.(map[string]any)["data"].(map[string]any)
		if data["ca.crt"] != nil && data["token"] == nil {
			return true, nil, testkit.Invalid("data", "too large")
		}
		return false, nil, nil
	})
	for range 50 { // about 15 minutes
		requeueAfter, err := f.sync(f.context(t), objectName("team/s"))
		if err != nil && !errors.Is(err, workqueue.ErrRequeueLater) {
			requeueAfter = 5 * time.Millisecond // the repair failed
		}
		f.advance(requeueAfter)
	}
	resigned := slices.ContainsFunc(testkit.Events(f.recorder), func(event string) bool { return strings.Contains(event, api.ReasonResignedToken) })
	if !resigned || len(f.reviewer.reviewed) != 3 {
		t.Errorf("signed anew: %t, after %d reviews", resigned, len(f.reviewer.reviewed))
	}
}

func TestAResignedSecretGetsAllThatIsWrong(t *testing.T) {
	f := newCheckFixture(t, signedBy(t, "rsa2048"))
	f.cfg.Resign = ResignAll
	f.cache(t, secret(testkit.WithData("token", signedBy(t, "rsa2048")), testkit.WithData("namespace", "")))
	f.syncS(t)
	patch := testkit.Requests(f.client.Actions())[0]
	data := patch.Body.(map[string]any)["data"].(map[string]any)
	var got []string
	for _, key := range []string{"token", "ca.crt", "namespace"} {
		if data[key] != nil && data[key] != "" {
			got = append(got, key)
		}
	}
	if diff := cmp.Diff([]string{"token", "ca.crt", "namespace"}, got); diff != "" {
		t.Errorf("patched (-want +got):\n%s", diff)
	}
}

func TestASecretsAnnotationBeatsThatOfItsNamespace(t *testing.T) {
	cases := map[string]struct {
		inSecret, inNamespace []testkit.Option
		want                  int
	}{
		"no annotation":                  {want: 1},
		"never on the namespace":         {inNamespace: []testkit.Option{testkit.WithAnnotation(api.ResignAnnotation, "never")}},
		"another value on the secret":    {inNamespace: []testkit.Option{testkit.WithAnnotation(api.ResignAnnotation, "never")}, inSecret: []testkit.Option{testkit.WithAnnotation(api.ResignAnnotation, "")}, want: 1},
		"never on the secret":            {inSecret: []testkit.Option{testkit.WithAnnotation(api.ResignAnnotation, "never")}},
		"an unknown value on the secret": {inSecret: []testkit.Option{testkit.WithAnnotation(api.ResignAnnotation, "sometimes")}, want: 1},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			f := newCheckFixture(t, signedBy(t, "p384"), tc.inSecret...)
			f.cache(t, testkit.Namespace("team", tc.inNamespace...))
			f.syncS(t)
			if len(f.reviewer.reviewed) != tc.want {
				t.Errorf("%d reviews, want %d", len(f.reviewer.reviewed), tc.want)
			}
		})
	}
}
