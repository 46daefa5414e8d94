package kube

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/ktesting"
)

const kubeconfig = `apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://api.example:6443"}}]
users: [{name: u, user: {token: t}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
`

func TestConnectionConfig(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(path, []byte(kubeconfig), 0o600); err != nil {
		t.Fatal(err)
	}
	config, err := Connection{Kubeconfig: path, QPS: -1, Burst: 7, UserAgent: "me"}.Config()
	if err != nil {
		t.Fatal(err)
	}
	got := rest.Config{Host: config.Host, BearerToken: config.BearerToken, QPS: config.QPS, Burst: config.Burst, UserAgent: config.UserAgent, ContentConfig: config.ContentConfig}
	want := rest.Config{Host: "https://api.example:6443", BearerToken: "t", QPS: -1, Burst: 7, UserAgent: "me", ContentConfig: rest.ContentConfig{
		ContentType: "application/vnd.kubernetes.protobuf", AcceptContentTypes: "application/vnd.kubernetes.protobuf,application/json",
	}}
	if got.String() != want.String() || !cmp.Equal(got.ContentConfig, want.ContentConfig) || got.BearerToken != want.BearerToken {
		t.Errorf("got %v %+v, want %v %+v", got, got.ContentConfig, want, want.ContentConfig)
	}
}

func TestConnectionConfigErrors(t *testing.T) {
	dir := t.TempDir()
	garbage, empty := filepath.Join(dir, "garbage"), filepath.Join(dir, "empty")
	for path, content := range map[string]string{garbage: "{{{", empty: ""} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	other := filepath.Join(dir, "other") // must not replace the flag
	if err := os.WriteFile(other, []byte(kubeconfig), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("KUBECONFIG", other)
	t.Setenv("KUBERNETES_SERVICE_HOST", "")

	cases := map[string]struct {
		in   string
		want string // the error begins with it
	}{
		"no flag and no cluster": {want: "--kubeconfig is required outside a cluster"},
		"no such file":           {in: filepath.Join(dir, "missing"), want: "--kubeconfig: " + filepath.Join(dir, "missing") + ": "},
		"a directory":            {in: dir, want: "--kubeconfig: " + dir + ": "},
		"garbage":                {in: garbage, want: "--kubeconfig: " + garbage + ": "},
		"an empty file":          {in: empty, want: "--kubeconfig: " + empty + ": "},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			config, err := Connection{Kubeconfig: tc.in}.Config()
			if err == nil || !strings.HasPrefix(err.Error(), tc.want) {
				t.Errorf("got %v, %v; want %q", config, err, tc.want)
			}
		})
	}
}

// answers is a transport with one answer per request; the last one is repeated.
type answers []func(*http.Request) (*http.Response, error)

func (a *answers) RoundTrip(r *http.Request) (*http.Response, error) {
	answer := (*a)[0]
	if len(*a) > 1 {
		*a = (*a)[1:]
	}
	return answer(r)
}

func answer(code int, body string) func(*http.Request) (*http.Response, error) {
	return func(r *http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: code, Header: http.Header{}, Body: io.NopCloser(bytes.NewBufferString(body)), Request: r}, nil
	}
}

func TestWaitForServer(t *testing.T) {
	refused := func(*http.Request) (*http.Response, error) { return nil, errBoom }
	silent := func(r *http.Request) (*http.Response, error) {
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	version := answer(http.StatusOK, `{"gitVersion":"v1.36.3"}`)

	cases := map[string]struct {
		in         answers
		inStop     time.Duration // zero: never
		want       time.Duration
		wantErr    error
		wantLogged int // log lines about the wait
	}{
		"an answer":                           {in: answers{version}},
		"a server that is too old":            {in: answers{answer(http.StatusOK, `{"gitVersion":"v1.29.14-eks-1"}`)}, wantErr: ErrServerTooOld},
		"one that is old enough":              {in: answers{answer(http.StatusOK, `{"gitVersion":"v1.30.0-alpha.1"}`)}},
		"an unknown version":                  {in: answers{answer(http.StatusOK, `{"gitVersion":"devel"}`)}},
		"an answer at the third try":          {in: answers{refused, refused, version}, want: 2 * time.Second, wantLogged: 1},
		"a server that does not tell":         {in: answers{answer(http.StatusForbidden, "")}},
		"a server that does not know us":      {in: answers{answer(http.StatusUnauthorized, "")}},
		"a server that starts":                {in: answers{answer(http.StatusInternalServerError, "starting"), version}, want: time.Second, wantLogged: 1},
		"something that is no API server":     {in: answers{answer(http.StatusOK, "<html>"), version}, want: time.Second, wantLogged: 1},
		"a server that is silent for a while": {in: answers{silent, version}, want: 10 * time.Second, wantLogged: 1},
		"no server until we are stopped":      {in: answers{refused}, inStop: 100*time.Second + 1, want: 100*time.Second + 1, wantErr: context.Canceled, wantLogged: 4},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client, err := kubernetes.NewForConfigAndClient(&rest.Config{Host: "https://api.example", QPS: -1}, &http.Client{Transport: &tc.in})
				if err != nil {
					t.Fatal(err)
				}
				logger := ktesting.NewLogger(t, ktesting.NewConfig(ktesting.BufferLogs(true)))
				ctx, cancel := context.WithCancel(klog.NewContext(t.Context(), logger))
				defer cancel()
				if tc.inStop > 0 {
					defer time.AfterFunc(tc.inStop, cancel).Stop()
				}
				began := time.Now()
				if err := WaitForServer(ctx, client.CoreV1().RESTClient(), "https://api.example"); !errors.Is(err, tc.wantErr) || (tc.wantErr == nil) != (err == nil) {
					t.Errorf("error %v, want %v", err, tc.wantErr)
				}
				if took := time.Since(began).Truncate(time.Second); took != tc.want.Truncate(time.Second) {
					t.Errorf("took %v, want %v", took, tc.want)
				}
				logs := logger.GetSink().(ktesting.Underlier).GetBuffer().String()
				if said := strings.Count(logs, "cannot be reached"); said != tc.wantLogged {
					t.Errorf("said %d times that it waits, want %d:\n%s", said, tc.wantLogged, logs)
				}
			})
		})
	}
}
