package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/sakeeper/sakeeper/cmd/kubectl-sakeeper/options"
	"github.com/sakeeper/sakeeper/pkg/testkit"
)

// half is an API server that answers the first chunk of Secrets, and empty lists otherwise. In the
// midst of the second chunk it calls second with the context of the request, and then closes the connection.
func half(t *testing.T, second func(request context.Context)) (kubeconfig string) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		list := &corev1.SecretList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "SecretList"}}
		switch {
		case !strings.HasSuffix(r.URL.Path, "/secrets"):
			http.Error(w, "", http.StatusForbidden)
			return
		case r.URL.Query().Get("continue") != "":
			w.Header().Set("Content-Length", "1000")
			_, _ = w.Write([]byte("{"))
			_ = http.NewResponseController(w).Flush()
			second(r.Context())
			panic(http.ErrAbortHandler)
		default:
			list.Continue = "more"
			list.Items = []corev1.Secret{*testkit.Secret("ci/first", testkit.WithAccount("bot"), testkit.WithData("token", "garbage"))}
		}
		body, err := runtime.Encode(scheme.Codecs.LegacyCodec(corev1.SchemeGroupVersion), list)
		if err != nil {
			t.Error(err)
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(body)
	}))
	t.Cleanup(server.Close)
	path := filepath.Join(t.TempDir(), "kubeconfig")
	mustNil(t, os.WriteFile(path, fmt.Appendf(nil, `apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: %q}}]
users: [{name: u, user: {}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
`, server.URL), 0o600))
	return path
}

// untilTheClientEnds cancels, and waits until the client has ended the request for that.
func untilTheClientEnds(cancel func()) func(request context.Context) {
	return func(request context.Context) {
		cancel()
		<-request.Done()
	}
}

// TestInterrupted shows what was read until the user or the API server ended it.
func TestInterrupted(t *testing.T) {
	cases := map[string]struct {
		in   func(cancel func()) func(request context.Context)
		want string
	}{
		"by the user":       {in: untilTheClientEnds, want: "interrupted: this is what the first 1 objects say: context canceled"},
		"by the API server": {in: func(func()) func(context.Context) { return func(context.Context) {} }, want: "interrupted: this is what the first 1 objects say: "},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var stdout, stderr bytes.Buffer
			err := run(ctx, []string{"--kubeconfig", half(t, tc.in(cancel)), "tokens", "-A"}, options.Streams{
				IOStreams: genericiooptions.IOStreams{Out: &stdout, ErrOut: &stderr}, Now: testkit.Instant, Progress: true,
			})
			if err == nil || !strings.HasPrefix(err.Error(), tc.want) || options.ExitCode(err) != 1 {
				t.Errorf("got %v, want %s", err, tc.want)
			}
			if !strings.Contains(stdout.String(), "first") {
				t.Errorf("the first chunk is not shown: %s", &stdout)
			}
			if !strings.Contains(stderr.String(), "1 objects read") {
				t.Errorf("no progress on the terminal: %q", &stderr)
			}
		})
	}
}

// TestOtherCommandsInterrupted: what was read is shown, and nothing is concluded from what was not.
func TestOtherCommandsInterrupted(t *testing.T) {
	for command, want := range map[string]string{
		"keys":      "unknown: the published keys could not be read",
		"report -A": "list secrets was interrupted",
	} {
		t.Run(command, func(t *testing.T) {
			r := execute(t, testkit.Instant(), 0, "", append([]string{"--kubeconfig", half(t, func(context.Context) {})}, strings.Fields(command)...)...)
			if options.ExitCode(r.err) != 1 || !strings.Contains(r.err.Error(), "interrupted: this is what the first 1 objects say: ") {
				t.Errorf("got %v", r.err)
			}
			if !strings.Contains(r.stdout, want) {
				t.Errorf("no %q in %s", want, r.stdout)
			}
		})
	}
}

func TestNoProgressInAPipe(t *testing.T) {
	r := execute(t, testkit.Instant(), 0, "", "--kubeconfig", half(t, func(context.Context) {}), "tokens", "-A")
	if strings.Contains(r.stderr, "objects read") {
		t.Errorf("progress in a pipe: %q", r.stderr)
	}
}
