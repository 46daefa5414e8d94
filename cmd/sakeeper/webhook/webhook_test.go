package webhook

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"k8s.io/client-go/tools/record"

	"github.com/sakeeper/sakeeper/cmd/sakeeper/internal/cmdtest"
	"github.com/sakeeper/sakeeper/pkg/podadmission/rules"
)

// configOf is the config of sakeeper webhook.
func configOf(t *testing.T, f cmdtest.Files, args ...string) (*Config, error) {
	t.Helper()
	return cmdtest.ConfigOf(t, f, NewCommand, f.WithKubeconfig(t, args)...)
}

func TestWebhookOptions(t *testing.T) {
	f := cmdtest.NewFiles(t)
	cases := map[string]struct {
		in   []string
		want []string // the lines of the error
	}{
		"the defaults": {},
		"everything that can be wrong, at once": {
			in: []string{
				"--kube-api-qps=0", "--metrics-bind-address=x", "--certificate-secret=", "--mutating-webhook-configuration=", "--validating-webhook-configuration=",
				"--certificate-hosts=a_b", "--service-accounts=UPPER", "--token-volume-source=both", "--secret-reference-scope=some", "--token-expiration-seconds=599",
				"--bind-address=localhost", "--secure-port=0", "--shutdown-delay-duration=-1s",
			},
			want: []string{
				"--kube-api-qps: 0 would allow no request; use -1 for no limit",
				`--metrics-bind-address: "x" is not [host]:port, nor 0 for off`,
				`--certificate-hosts: "a_b" is neither a DNS name nor an IP address`,
				`--certificate-secret: "": ` + cmdtest.NotADomain,
				"--mutating-webhook-configuration and --validating-webhook-configuration are both empty; without a configuration use --tls-cert-file",
				`--service-accounts: "UPPER": ` + cmdtest.NotADomain,
				`--token-volume-source: "both" is not one of projected, secret`,
				`--token-expiration-seconds: 599 is not between 600 and 4294967296`,
				`--secret-reference-scope: "some" is not one of in-tree, all`,
				`--bind-address: "localhost" is not an IP address`,
				"--secure-port: 0 is not between 1 and 65535",
				"--shutdown-delay-duration: -1s is negative",
			},
		},
		"names without a CA":                         {in: []string{"--client-name=a", "--client-name="}, want: []string{"--client-name needs --client-ca-file", "--client-name: a name is empty"}},
		"clients of a CA":                            {in: []string{"--client-ca-file=%/good.crt", "--client-name=a,b", "--client-name=c"}},
		"a client CA that is none":                   {in: []string{"--client-ca-file=%/garbage"}, want: []string{"--client-ca-file: " + f.Path("garbage") + ": holds no usable certificate: data does not contain any valid RSA or ECDSA certificates"}},
		"a certificate without its key":              {in: []string{"--tls-cert-file=%/x"}, want: []string{"--tls-cert-file and --tls-private-key-file go together"}},
		"a key without its certificate":              {in: []string{"--tls-private-key-file=%/x"}, want: []string{"--tls-cert-file and --tls-private-key-file go together"}},
		"files need no configurations":               {in: []string{"--tls-cert-file=%/x", "--tls-private-key-file=%/x", "--mutating-webhook-configuration=", "--validating-webhook-configuration="}},
		"one configuration is enough":                {in: []string{"--mutating-webhook-configuration="}},
		"an address and a name by which it is found": {in: []string{"--bind-address=::1", "--certificate-hosts=10.0.0.1,webhook.example.com"}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			cfg, err := configOf(t, f, tc.in...)
			var got []string
			if err != nil {
				got = strings.Split(err.Error(), "\n")
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if (cfg == nil) != (len(tc.want) > 0) {
				t.Errorf("started with %v", cfg)
			}
		})
	}
}

func TestWebhookSettings(t *testing.T) {
	f := cmdtest.NewFiles(t)
	cfg, err := configOf(t, f, "--token-volume-source=secret", "--limit-secret-references", "--secret-reference-scope=all", "--token-expiration-seconds=1200", "--webhook-namespace=team")
	cmdtest.MustNil(t, err)
	want := rules.Settings{TokenVolumeSource: rules.SecretTokens, TokenExpirationSeconds: 1200, LimitSecretReferences: true, SecretReferenceScope: rules.AllScope}
	if diff := cmp.Diff(want, cfg.options.settings()); diff != "" {
		t.Errorf("settings (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"sakeeper-webhook.team.svc"}, cfg.options.certificateHosts()); diff != "" {
		t.Errorf("hosts (-want +got):\n%s", diff)
	}
}

func TestProbesOfTheWebhook(t *testing.T) {
	f := cmdtest.NewFiles(t)
	cfg, err := configOf(t, f)
	cmdtest.MustNil(t, err)
	p, err := New(t.Context(), cfg)
	cmdtest.MustNil(t, err)
	t.Cleanup(p.Close)
	ctx, stop := context.WithCancel(t.Context())
	ask := func(path string) (int, string) {
		answer := httptest.NewRecorder()
		p.probesHandler(ctx).ServeHTTP(answer, httptest.NewRequest(http.MethodGet, path, nil))
		return answer.Code, answer.Body.String()
	}
	if code, body := ask("/livez"); code != http.StatusOK {
		t.Errorf("livez: %d %s", code, body)
	}
	code, body := ask("/readyz")
	if code != http.StatusServiceUnavailable || !strings.Contains(body, errNotSynced.Error()) || !strings.Contains(body, "serving certificate: ") || !strings.Contains(body, errNotListening.Error()) {
		t.Errorf("readyz: %d %s", code, body)
	}
	stop()
	if _, body := ask("/readyz"); !strings.Contains(body, errStopping.Error()) {
		t.Errorf("readyz after the stop: %s", body)
	}
}

// TestABadCertificateFileIsCountedAndReported breaks the key file after the start.
func TestABadCertificateFileIsCountedAndReported(t *testing.T) {
	f := cmdtest.NewFiles(t)
	f.WriteServingCertificate(t, "127.0.0.1")
	cfg, err := configOf(t, f, "--tls-cert-file=%/tls.crt", "--tls-private-key-file=%/tls.key", "--webhook-namespace=team")
	cmdtest.MustNil(t, err)
	recorder := record.NewFakeRecorder(10)
	recorder.IncludeObject = true
	p := &Process{cfg: cfg, recorder: recorder, registry: prometheus.NewRegistry()}
	cmdtest.MustNil(t, p.makeCertificates())

	cmdtest.MustNil(t, os.WriteFile(f.Path("tls.key"), []byte("garbage"), 0o600))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.certificates.Run(ctx) }() // reads the files at once
	event := <-recorder.Events
	cancel()
	cmdtest.MustNil(t, <-ended)

	want := "Warning ReloadFailed The last good certificate stays in use: --tls-cert-file " + f.Path("tls.crt") + ", --tls-private-key-file " + f.Path("tls.key") +
		": tls: failed to find any PEM data in key input involvedObject{kind=Service,apiVersion=v1}"
	if diff := cmp.Diff(want, event); diff != "" {
		t.Errorf("event (-want +got):\n%s", diff)
	}
	cmdtest.MustNil(t, testutil.GatherAndCompare(p.registry, strings.NewReader(`
# HELP sakeeper_reload_failures_total Changed files that could not be used, by source (certificate); the last good ones stay in use.
# TYPE sakeeper_reload_failures_total counter
sakeeper_reload_failures_total{source="certificate"} 1
`), "sakeeper_reload_failures_total"))
}
