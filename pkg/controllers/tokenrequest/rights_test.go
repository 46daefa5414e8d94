package tokenrequest

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/sakeeper/sakeeper/pkg/kube/rights"
	"github.com/sakeeper/sakeeper/pkg/testkit"
)

// withoutRights is an API server that allows nothing, and says so in reviews of rights.
type withoutRights struct{ asked []string }

func (w *withoutRights) RoundTrip(request *http.Request) (*http.Response, error) {
	w.asked = append(w.asked, request.Method+" "+request.URL.Path)
	code, body := http.StatusForbidden, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Forbidden","code":403}`
	if strings.HasSuffix(request.URL.Path, "/selfsubjectaccessreviews") {
		code, body = http.StatusCreated, `{"kind":"SelfSubjectAccessReview","apiVersion":"authorization.k8s.io/v1","status":{"allowed":false}}`
	}
	return &http.Response{
		StatusCode: code, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(body)), Request: request,
	}, nil
}

// TestANamespaceThatIsNotServedNeedsNoRights: a user of any namespace can create a Secret with the
// label, and no process is unready because the rights are bound in served namespaces only.
func TestANamespaceThatIsNotServedNeedsNoRights(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &withoutRights{}
		config := &rest.Config{Host: "https://api.example.com", Transport: server}
		monitor, err := rights.Follow(config)
		if err != nil {
			t.Fatal(err)
		}
		client, err := kubernetes.NewForConfig(config)
		if err != nil {
			t.Fatal(err)
		}
		f := newFixture(t, testkit.Namespace("team"), managed())
		f.cfg.Client = client.CoreV1()
		defer testkit.Start(testkit.Context(t), t, monitor.Run)()
		f.mustSync(t)
		synctest.Wait()
		if err := monitor.Err(); err != nil {
			t.Error(err)
		}
		if len(server.asked) != 1 || server.asked[0] != "PATCH /api/v1/namespaces/team/secrets/s" {
			t.Errorf("requests %q", server.asked)
		}
		testkit.Events(f.recorder)
	})
}
