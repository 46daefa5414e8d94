package certfiles_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/ktesting"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/sakeeper/sakeeper/pkg/servingcert/certfiles"
	"github.com/sakeeper/sakeeper/pkg/servingcert/pki"
	"github.com/sakeeper/sakeeper/pkg/testkit"
	"github.com/sakeeper/sakeeper/pkg/testkit/leaks"
)

func TestMain(m *testing.M) { leaks.Main(m) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func mustIssue(t *testing.T) pki.Pair {
	t.Helper()
	pair, err := mustCA(t).Issue([]string{"a"}, testkit.Instant())
	must(t, err)
	return pair
}

func mustCA(t *testing.T) pki.Pair {
	t.Helper()
	ca, err := pki.NewCA(testkit.Instant())
	must(t, err)
	return ca
}

// write writes the files as kubelet does for a mounted Secret: as symlinks through a symlink that
// is swapped.
func write(t *testing.T, dir, version string, cert, key []byte) {
	t.Helper()
	must(t, os.Mkdir(filepath.Join(dir, version), 0o700))
	must(t, os.WriteFile(filepath.Join(dir, version, "tls.crt"), cert, 0o600))
	must(t, os.WriteFile(filepath.Join(dir, version, "tls.key"), key, 0o600))
	must(t, os.Symlink(version, filepath.Join(dir, "next")))
	must(t, os.Rename(filepath.Join(dir, "next"), filepath.Join(dir, "..data")))
	for _, name := range []string{"tls.crt", "tls.key"} {
		if _, err := os.Lstat(filepath.Join(dir, name)); err != nil {
			must(t, os.Symlink(filepath.Join("..data", name), filepath.Join(dir, name)))
		}
	}
}

func encode(t *testing.T, pair pki.Pair) (cert, key []byte) {
	t.Helper()
	cert, key, err := pair.Encode()
	must(t, err)
	return cert, key
}

func config(dir string) certfiles.Config {
	return certfiles.Config{
		CertFile: filepath.Join(dir, "tls.crt"), KeyFile: filepath.Join(dir, "tls.key"),
		Clock: clocktesting.NewFakePassiveClock(testkit.Instant()), Registerer: prometheus.NewRegistry(),
	}
}

func TestFilesAreReloaded(t *testing.T) {
	dir := t.TempDir()
	first, second, third := mustIssue(t), mustIssue(t), mustIssue(t)
	cert, key := encode(t, first)
	write(t, dir, "1", cert, key)
	files, err := certfiles.New(config(dir))
	must(t, err)
	failures := make(chan error, 10)
	files.OnError(func(err error) { failures <- err })
	logger := ktesting.NewLogger(t, ktesting.NewConfig(ktesting.BufferLogs(true)))
	defer testkit.Start(klog.NewContext(context.WithoutCancel(t.Context()), logger), t, files.Run)()

	expect := func(want pki.Pair) {
		t.Helper()
		var found *tls.Certificate
		for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
			found, err = files.GetCertificate(nil)
			must(t, err)
			if found.Leaf.Equal(want.Cert()) {
				return
			}
		}
		t.Fatalf("serves %x, want %v", found.Leaf.SerialNumber, want)
	}
	expect(first)
	secondCert, secondKey := encode(t, second)
	write(t, dir, "2", secondCert, secondKey)
	expect(second)

	_, thirdKey := encode(t, third)
	write(t, dir, "3", secondCert, thirdKey) // of another certificate
	if err := <-failures; !strings.Contains(err.Error(), "--tls-cert-file "+filepath.Join(dir, "tls.crt")) || !strings.Contains(err.Error(), "private key does not match public key") {
		t.Errorf("error %v", err)
	}
	expect(second)
	expired, err := mustCA(t).Issue([]string{"a"}, testkit.Instant().AddDate(-1, 0, 0))
	must(t, err)
	expiredCert, expiredKey := encode(t, expired)
	write(t, dir, "expired", expiredCert, expiredKey)
	if err := <-failures; !strings.Contains(err.Error(), "--tls-cert-file "+filepath.Join(dir, "tls.crt")+": the serving certificate expired at 2025-") {
		t.Errorf("error %v", err)
	}
	expect(second)
	thirdCert, _ := encode(t, third)
	write(t, dir, "4", thirdCert, thirdKey)
	expect(third)
	logs := logger.GetSink().(ktesting.Underlier).GetBuffer().String()
	if strings.Contains(logs, "PRIVATE KEY") || !strings.Contains(logs, "which expires at 2026-04-02T03:04:05Z") {
		t.Errorf("log:\n%s", logs)
	}
}

func TestReadinessAndMetric(t *testing.T) {
	dir := t.TempDir()
	pair := mustIssue(t)
	cert, key := encode(t, pair)
	write(t, dir, "1", cert, key)
	for name, tc := range map[string]struct {
		in   time.Time
		want string
	}{
		"valid":         {in: testkit.Instant()},
		"expired":       {in: pair.Cert().NotAfter, want: "the serving certificate expired at 2026-04-02T03:04:05Z"},
		"not valid yet": {in: testkit.Instant().Add(-2 * time.Hour), want: "the serving certificate is not valid before 2026-01-02T02:04:05Z"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := config(dir)
			registry := prometheus.NewRegistry()
			cfg.Clock, cfg.Registerer = clocktesting.NewFakePassiveClock(tc.in), registry
			files, err := certfiles.New(cfg)
			must(t, err)
			if got := files.Ready(); (got == nil) != (tc.want == "") || got != nil && got.Error() != tc.want {
				t.Errorf("got %v, want %s", got, tc.want)
			}
			want := fmt.Sprintf(`# HELP sakeeper_webhook_certificate_expiry_timestamp_seconds When a certificate of the webhook expires, in seconds since 1970, by certificate (serving, ca). 0: there is none.
# TYPE sakeeper_webhook_certificate_expiry_timestamp_seconds gauge
sakeeper_webhook_certificate_expiry_timestamp_seconds{certificate="serving"} %d
`, pair.Cert().NotAfter.Unix())
			if err := testutil.GatherAndCompare(registry, strings.NewReader(want)); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestNewRefuses(t *testing.T) {
	good, bad := t.TempDir(), t.TempDir()
	cert, key := encode(t, mustIssue(t))
	write(t, good, "1", cert, key)
	write(t, bad, "1", key, cert) // swapped
	cases := map[string]struct {
		inDir string
		in    func(*certfiles.Config)
		want  string // is in the error
	}{
		"no certificate":   {inDir: good, in: func(c *certfiles.Config) { c.CertFile = "" }, want: "CertFile, KeyFile, Clock and Registerer are required"},
		"no key":           {inDir: good, in: func(c *certfiles.Config) { c.KeyFile = "" }, want: "CertFile, KeyFile, Clock and Registerer are required"},
		"no clock":         {inDir: good, in: func(c *certfiles.Config) { c.Clock = nil }, want: "CertFile, KeyFile, Clock and Registerer are required"},
		"no registerer":    {inDir: good, in: func(c *certfiles.Config) { c.Registerer = nil }, want: "CertFile, KeyFile, Clock and Registerer are required"},
		"no such file":     {inDir: good, in: func(c *certfiles.Config) { c.KeyFile += ".gone" }, want: "tls.key.gone: no such file or directory"},
		"swapped contents": {inDir: bad, in: func(*certfiles.Config) {}, want: "--tls-private-key-file " + filepath.Join(bad, "tls.key")},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			cfg := config(tc.inDir)
			tc.in(&cfg)
			_, err := certfiles.New(cfg)
			if err == nil || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "-----BEGIN") {
				t.Errorf("got %v, want %s", err, tc.want)
			}
		})
	}
}
