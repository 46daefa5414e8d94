package inspect

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/sakeeper/sakeeper/cmd/kubectl-sakeeper/options"
	"github.com/sakeeper/sakeeper/pkg/keys"
	"github.com/sakeeper/sakeeper/pkg/testkit"
	"github.com/sakeeper/sakeeper/pkg/token"
)

// legacy returns a token of the account ci/bot.
func legacy(t *testing.T, secret string) string {
	t.Helper()
	compact, err := token.NewSigner(func() *keys.Set { return testkit.Keys("p256") }).SignLegacy(t.Context(), token.LegacyClaims{
		Namespace: "ci", SecretName: secret, ServiceAccountName: "bot", ServiceAccountUID: string(testkit.AccountUID),
	})
	if err != nil {
		t.Fatal(err)
	}
	return compact
}

// server is an API server that publishes a key, and answers reviews; a review that is nil is an
// interruption.
func server(t *testing.T, review func(compact string) *authenticationv1.TokenReviewStatus) (kubeconfig string) {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if r.URL.Path == "/openid/v1/jwks" {
			_ = json.NewEncoder(w).Encode(testkit.Keys("p256").JWKS())
			return
		}
		body, _ := io.ReadAll(r.Body)
		var asked authenticationv1.TokenReview
		if err := runtime.DecodeInto(scheme.Codecs.UniversalDeserializer(), body, &asked); err != nil {
			t.Error(err)
		}
		status := review(asked.Spec.Token)
		if status == nil {
			panic(http.ErrAbortHandler)
		}
		_ = json.NewEncoder(w).Encode(authenticationv1.TokenReview{
			TypeMeta: metav1.TypeMeta{APIVersion: "authentication.k8s.io/v1", Kind: "TokenReview"}, Status: *status,
		})
	}))
	t.Cleanup(s.Close)
	return writeKubeconfig(t, s.URL)
}

func writeKubeconfig(t *testing.T, url string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kubeconfig")
	content := `{"apiVersion": "v1", "kind": "Config", "current-context": "x", "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
		"users": [{"name": "u", "user": {}}], "clusters": [{"name": "c", "cluster": {"server": "` + url + `"}}]}`
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// execute runs the command, and fails the test if it prints a signature.
func execute(t *testing.T, kubeconfig, stdin string, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	var out, errOut bytes.Buffer
	o := options.New("v0", options.Streams{
		IOStreams: genericiooptions.IOStreams{In: strings.NewReader(stdin), Out: &out, ErrOut: &errOut}, Now: testkit.Instant,
	})
	root := &cobra.Command{Use: "test", SilenceUsage: true, SilenceErrors: true}
	o.AddFlags(root)
	root.AddCommand(NewCommand(o))
	root.SetArgs(append([]string{"inspect", "--kubeconfig", kubeconfig}, args...))
	err = root.ExecuteContext(t.Context())
	for _, compact := range find([]byte(stdin)) {
		signature := compact[strings.LastIndex(compact, ".")+1:]
		if printed := out.String() + errOut.String(); len(signature) > 8 && strings.Contains(printed, signature) || err != nil && strings.Contains(err.Error(), compact) {
			t.Error("it printed a token")
		}
	}
	return out.String(), errOut.String(), err
}

func TestReview(t *testing.T) {
	good, bad := legacy(t, "good"), legacy(t, "bad")
	cases := map[string]struct {
		review  func(compact string) *authenticationv1.TokenReviewStatus
		want    []string // in the output, in this order
		wantErr string
	}{
		"one is accepted, one refused": {
			review: func(compact string) *authenticationv1.TokenReviewStatus {
				if compact == good {
					return &authenticationv1.TokenReviewStatus{Authenticated: true, User: authenticationv1.UserInfo{Username: "system:serviceaccount:ci:bot"}}
				}
				return &authenticationv1.TokenReviewStatus{Error: "it was deleted"}
			},
			want: []string{"accepted as system:serviceaccount:ci:bot", "Secret ci/bad", "refused: it was deleted"},
		},
		"a refusal that quotes the token": {
			review: func(compact string) *authenticationv1.TokenReviewStatus {
				return &authenticationv1.TokenReviewStatus{Error: "cannot decode " + compact}
			},
			want: []string{"refused: refused", "refused: refused"},
		},
		"the API server goes away half-way": {
			review: func(compact string) *authenticationv1.TokenReviewStatus {
				if compact == good {
					return &authenticationv1.TokenReviewStatus{Authenticated: true, User: authenticationv1.UserInfo{Username: "bot"}}
				}
				return nil
			},
			want: []string{"Secret ci/good", "accepted as bot", "Secret ci/bad"}, wantErr: "asking the API server: ",
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			stdout, stderr, err := execute(t, server(t, tc.review), good+"\n"+bad, "--review")
			if (err == nil) != (tc.wantErr == "") || err != nil && !strings.HasPrefix(err.Error(), tc.wantErr) {
				t.Errorf("got %v, want %q", err, tc.wantErr)
			}
			if n := strings.Count(stderr, "counts as a use"); n != 1 {
				t.Errorf("it says %d times that it is a use", n)
			}
			for _, want := range tc.want {
				_, after, found := strings.Cut(stdout, want)
				if !found {
					t.Errorf("no %q in %q", want, stdout)
				}
				stdout = after
			}
		})
	}
}

// TestAnAPIServerThatDoesNotAnswer costs only the verification.
func TestAnAPIServerThatDoesNotAnswer(t *testing.T) {
	closed := httptest.NewServer(http.NotFoundHandler())
	closed.Close()
	aborting := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "1000")
		_, _ = w.Write([]byte(`{"keys"`))
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}))
	defer aborting.Close()
	garbage := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) }))
	defer garbage.Close()
	for name, url := range map[string]string{"closed": closed.URL, "goes away half-way": aborting.URL, "garbage": garbage.URL} {
		t.Run(name, func(t *testing.T) {
			stdout, _, err := execute(t, writeKubeconfig(t, url), legacy(t, "s"))
			if err == nil || !strings.HasPrefix(err.Error(), "the signature was not verified: reading the keys of the API server: ") {
				t.Errorf("got %v", err)
			}
			if !strings.Contains(stdout, "Secret ci/s") || !strings.Contains(stdout, "Verified:    unknown") {
				t.Errorf("got %s", stdout)
			}
		})
	}
	t.Run("a context that does not exist", func(t *testing.T) {
		stdout, _, err := execute(t, writeKubeconfig(t, closed.URL), legacy(t, "s"), "--context=nowhere")
		if err == nil || !strings.Contains(err.Error(), `context "nowhere" does not exist`) || !strings.Contains(stdout, "Secret ci/s") {
			t.Errorf("got %v, %s", err, stdout)
		}
	})
}

func TestInput(t *testing.T) {
	one, two := legacy(t, "one"), legacy(t, "two")
	encoded := base64.StdEncoding.EncodeToString([]byte(two))
	cases := map[string]struct {
		in      string
		want    int // tokens
		wantErr string
	}{
		"a token":                       {in: one + "\n", want: 1},
		"a token twice":                 {in: one + " " + one, want: 1},
		"a kubeconfig with many users":  {in: "users:\n- user: {token: " + one + "}\n- user: {token: \"" + two + "\"}\n", want: 2},
		"a Secret as kubectl prints it": {in: "data:\n  token: " + encoded + "\n", want: 1},
		"the same in both ways":         {in: two + "\n" + encoded, want: 1},
		"nothing":                       {wantErr: "no token found"},
		"bytes that are no text":        {in: "\x00\xff\xfe", wantErr: "no token found"},
		"a megabyte of garbage":         {in: strings.Repeat("eyJ..ZXlK.xxxxxx", 1<<16), wantErr: "no token found"},
		"too much":                      {in: strings.Repeat("x", maxInput+1), wantErr: "the input is larger than 16 MiB"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			stdout, _, err := execute(t, writeKubeconfig(t, "http://127.0.0.1:1"), tc.in, "--offline")
			if (err == nil) != (tc.wantErr == "") || err != nil && err.Error() != tc.wantErr {
				t.Errorf("got %v, want %q", err, tc.wantErr)
			}
			if n := strings.Count(stdout, "Kind: "); n != tc.want {
				t.Errorf("%d tokens, want %d", n, tc.want)
			}
		})
	}
}

func TestCSVIsRefused(t *testing.T) {
	if _, _, err := execute(t, writeKubeconfig(t, "http://127.0.0.1:1"), legacy(t, "s"), "--offline", "-o", "csv"); err == nil {
		t.Error("no error")
	}
}

var errClosed = errors.New("closed")

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errClosed }

func TestAnInputThatFails(t *testing.T) {
	c := &command{Options: options.New("v0", options.Streams{IOStreams: genericiooptions.IOStreams{In: failing{}}})}
	if err := c.run(t.Context(), nil); !errors.Is(err, errClosed) {
		t.Errorf("got %v", err)
	}
}
