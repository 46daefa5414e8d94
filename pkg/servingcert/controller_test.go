package servingcert

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	toolscache "k8s.io/client-go/tools/cache"

	"github.com/sakeeper/sakeeper/pkg/servingcert/pki"
	"github.com/sakeeper/sakeeper/pkg/testkit"
)

// requests are the requests of the controller. The data of Secrets, which is random, is replaced
// by a description.
func (f fixture) requests(t *testing.T) []testkit.Request {
	t.Helper()
	requests := testkit.Requests(f.client.Actions())
	for i, r := range requests {
		secret, ok := r.Body.(*corev1.Secret)
		if !ok {
			continue
		}
		secret = secret.DeepCopy()
		for key, value := range descriptions(t, secret.Data, f.clock.Now()) {
			secret.Data[key] = []byte(value)
		}
		requests[i].Body = secret
	}
	return requests
}

// descriptions says how old each certificate is, and checks that it belongs to its key and CA.
func descriptions(t *testing.T, data map[string][]byte, now time.Time) map[string]string {
	t.Helper()
	c := parse(data)
	if len(c.damaged) > 0 {
		t.Errorf("%v cannot be parsed", c.damaged)
	}
	found := map[string]string{}
	add := func(p pki.Pair, cert, key string) {
		if p.Cert() != nil {
			found[cert] = fmt.Sprint("made ", now.Sub(p.Cert().NotBefore)-pki.Backdate, " ago")
			found[key] = "its key"
		}
	}
	add(c.ca, keyCA, keyCAKey)
	add(c.next, keyNextCA, keyNextCAKey)
	add(c.serving, keyServing, keyServingKey)
	if !c.serving.Covers([]string{host}) || c.serving.Cert().CheckSignatureFrom(c.ca.Cert()) != nil {
		t.Errorf("%v is not signed by %v for %s", c.serving, c.ca, host)
	}
	if len(c.old) > 0 {
		found[keyOldCAs] = fmt.Sprint(len(c.old), " old CAs")
	}
	return found
}

func get() testkit.Request {
	return testkit.Request{Verb: "get", Resource: "secrets", Name: namespace + "/" + secretName}
}

func patch(resource string, bundle []byte, webhooks ...string) testkit.Request {
	var list []any
	for _, name := range webhooks {
		list = append(list, map[string]any{"name": name, "clientConfig": map[string]any{"caBundle": base64.StdEncoding.EncodeToString(bundle)}})
	}
	return testkit.Request{Verb: "patch application/strategic-merge-patch+json", Resource: resource, Name: "/" + configName, Body: map[string]any{
		"metadata": map[string]any{"uid": string(testkit.OtherUID), "resourceVersion": testkit.ResourceVersion},
		"webhooks": list,
	}}
}

// absent is the message if there is no Secret.
const absent = "there is no secret " + namespace + "/" + secretName +
	": apply the manifests of the webhook again, or create an empty secret of that name and the type sakeeper.io/webhook-certificates"

func TestSync(t *testing.T) {
	now := testkit.Instant()
	c := made(t, now)
	bundle := c.bundle()
	// secret is the one in the cache with the data of a write.
	secret := func(data map[string]string, opts ...testkit.Option) *corev1.Secret {
		s := secretOf(t, contents{}, opts...)
		for key, value := range data {
			s.Data[key] = []byte(value)
		}
		return s
	}
	old := made(t, now.Add(-80*day))
	due := made(t, now.Add(-250*day))
	due.serving = mustIssue(t, due.ca, now.Add(-day), host)
	expired := made(t, now.Add(-1000*day))
	user := testkit.WithData("note", "mine")
	label := testkit.WithLabel("app", "webhook")

	cases := map[string]struct {
		inCached    []metav1.Object
		want        []testkit.Request
		wantEvents  []string
		wantUnready string
	}{
		"a secret that is missing is not created": {
			inCached:    []metav1.Object{mutating(bundle), validating(bundle)},
			wantEvents:  []string{"Warning SecretMissing The webhook cannot keep its certificates: " + absent},
			wantUnready: absent,
		},
		"nothing is written if all is right": {
			inCached: []metav1.Object{secretOf(t, c), mutating(bundle, bundle), validating(bundle)},
		},
		"each wrong configuration is one patch": {
			inCached: []metav1.Object{secretOf(t, c), mutating(nil, bundle, []byte("x")), validating(nil)},
			want:     []testkit.Request{get(), patch("mutatingwebhookconfigurations", bundle, "a.sakeeper.io", "c.sakeeper.io"), patch("validatingwebhookconfigurations", bundle, "a.sakeeper.io")},
			wantEvents: []string{
				"Normal PublishedCABundle Set the caBundle of a.sakeeper.io, c.sakeeper.io in MutatingWebhookConfiguration sakeeper-webhook",
				"Normal PublishedCABundle Set the caBundle of a.sakeeper.io in ValidatingWebhookConfiguration sakeeper-webhook",
			},
			wantUnready: "MutatingWebhookConfiguration sakeeper-webhook, webhook a.sakeeper.io: its caBundle does not trust the certificate that is served",
		},
		"an empty secret is filled by one update, which keeps other data": {
			inCached: []metav1.Object{secretOf(t, contents{}, user, label)},
			want: []testkit.Request{get(), {Verb: "update", Resource: "secrets", Name: namespace + "/" + secretName, Body: secret(
				map[string]string{keyCA: "made 0s ago", keyCAKey: "its key", keyServing: "made 0s ago", keyServingKey: "its key"}, user, label)}},
			wantEvents:  []string{"Normal ChangedCertificates Made a new CA and a serving certificate, because the CA is missing"},
			wantUnready: "there is no certificate yet",
		},
		"garbage is replaced by one update": {
			inCached: []metav1.Object{secretOf(t, contents{}, testkit.WithData(keyCA, "garbage"), testkit.WithData(keyOldCAs, "garbage"), testkit.WithData(keyNextCA, "garbage"), testkit.WithData(keyServing, "garbage"))},
			want: []testkit.Request{get(), {Verb: "update", Resource: "secrets", Name: namespace + "/" + secretName, Body: secret(
				map[string]string{keyCA: "made 0s ago", keyCAKey: "its key", keyServing: "made 0s ago", keyServingKey: "its key"})}},
			wantEvents:  []string{"Normal ChangedCertificates Made a new CA and a serving certificate, because the CA is damaged"},
			wantUnready: "there is no certificate yet",
		},
		"expired certificates are replaced at once, and the old bundle is not written": {
			inCached: []metav1.Object{secretOf(t, expired), mutating(nil), validating(expired.bundle())},
			want: []testkit.Request{get(), {Verb: "update", Resource: "secrets", Name: namespace + "/" + secretName, Body: secret(
				map[string]string{keyCA: "made 0s ago", keyCAKey: "its key", keyServing: "made 0s ago", keyServingKey: "its key"})}},
			wantEvents:  []string{"Normal ChangedCertificates Made a new CA and a serving certificate, because the CA is expired"},
			wantUnready: "MutatingWebhookConfiguration sakeeper-webhook, webhook a.sakeeper.io: its caBundle does not trust the certificate that is served",
		},
		"renewing keeps the CA": {
			inCached: []metav1.Object{secretOf(t, old), mutating(old.bundle()), validating(old.bundle())},
			want: []testkit.Request{get(), {Verb: "update", Resource: "secrets", Name: namespace + "/" + secretName, Body: secret(
				map[string]string{keyCA: "made 1920h0m0s ago", keyCAKey: "its key", keyServing: "made 0s ago", keyServingKey: "its key"})}},
			wantEvents: []string{"Normal ChangedCertificates Made a serving certificate, because the serving certificate is in the last third of its life"},
		},
		"bundles wait for a change of the secret": {
			inCached: []metav1.Object{secretOf(t, old), mutating(nil), validating(old.bundle())},
			want: []testkit.Request{get(), {Verb: "update", Resource: "secrets", Name: namespace + "/" + secretName, Body: secret(
				map[string]string{keyCA: "made 1920h0m0s ago", keyCAKey: "its key", keyServing: "made 0s ago", keyServingKey: "its key"})}},
			wantEvents:  []string{"Normal ChangedCertificates Made a serving certificate, because the serving certificate is in the last third of its life"},
			wantUnready: "MutatingWebhookConfiguration sakeeper-webhook, webhook a.sakeeper.io: its caBundle does not trust the certificate that is served",
		},
		"the next CA is made while the first goes on signing": {
			inCached: []metav1.Object{secretOf(t, due), mutating(due.bundle()), validating(due.bundle())},
			want: []testkit.Request{get(), {Verb: "update", Resource: "secrets", Name: namespace + "/" + secretName, Body: secret(
				map[string]string{keyCA: "made 6000h0m0s ago", keyCAKey: "its key", keyNextCA: "made 0s ago", keyNextCAKey: "its key", keyServing: "made 24h0m0s ago", keyServingKey: "its key"})}},
			wantEvents: []string{"Normal ChangedCertificates Made the next CA, which signs nothing yet, because the CA is in the last third of its life"},
		},
		"a secret of another type is not changed, and neither are the configurations": {
			inCached: []metav1.Object{testkit.Secret(namespace+"/"+secretName, testkit.WithData(keyCA, "theirs")), mutating(nil), validating(nil)},
			wantEvents: []string{"Warning SecretNotOurs The webhook cannot keep its certificates in this secret: " +
				`its type is "kubernetes.io/service-account-token", not "sakeeper.io/webhook-certificates". Delete it and apply the manifests of the webhook again, or name another one`},
			wantUnready: `the secret cannot be used: its type is "kubernetes.io/service-account-token", not "sakeeper.io/webhook-certificates"`,
		},
		"a clock that is behind makes no certificates, but the bundle is published": {
			inCached: []metav1.Object{func() metav1.Object {
				s := secretOf(t, c)
				s.CreationTimestamp = metav1.NewTime(now.Add(2 * time.Hour))
				return s
			}(), mutating(bundle), validating(nil)},
			want: []testkit.Request{get(), patch("validatingwebhookconfigurations", bundle, "a.sakeeper.io")},
			wantEvents: []string{
				"Warning ClockBehind A replica of the webhook makes no certificates: the clock of this process is behind the API server's",
				"Normal PublishedCABundle Set the caBundle of a.sakeeper.io in ValidatingWebhookConfiguration sakeeper-webhook",
			},
			wantUnready: "ValidatingWebhookConfiguration sakeeper-webhook, webhook a.sakeeper.io: its caBundle does not trust the certificate that is served",
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, nil, tc.inCached...)
			requeueAfter, err := f.sync(newContext(t), key{})
			wantRequeue := resyncInterval
			if tc.wantUnready != "" {
				wantRequeue = retryInterval
			}
			if requeueAfter != wantRequeue || err != nil {
				t.Errorf("requeued after %v, error %v", requeueAfter, err)
			}
			if diff := cmp.Diff(tc.want, f.requests(t)); diff != "" {
				t.Errorf("requests (-want +got):\n%s", diff)
			}
			events := testkit.Events(f.recorder)
			for i, e := range events {
				events[i] = strings.TrimSuffix(e, " involvedObject{kind=Secret,apiVersion=v1}")
			}
			if diff := cmp.Diff(tc.wantEvents, events); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
			if err := f.Ready(); (err == nil) != (tc.wantUnready == "") || err != nil && err.Error() != tc.wantUnready {
				t.Errorf("ready: %v, want %q", err, tc.wantUnready)
			}
		})
	}
}

func TestAPIErrors(t *testing.T) {
	c := made(t, testkit.Instant())
	toUpdate := []metav1.Object{secretOf(t, contents{ca: c.ca})}
	toPatch := []metav1.Object{secretOf(t, c), mutating(nil)}
	internal, quota := testkit.InternalError(), testkit.QuotaExceeded()
	quoting := testkit.Invalid("data", string(mustData(t, c)[keyCAKey]))
	immutable := testkit.Invalid("data", "redacted")
	event := func(text string) []string {
		return []string{"Warning FailedWrite The API server refuses to " + text + " involvedObject{kind=Secret,apiVersion=v1}"}
	}
	const writing, patching = "write secret " + namespace + "/" + secretName + ": ", "patch " + kindMutating + " " + configName + ": "
	const redacted = "write refused as Invalid, with a message that is not shown because it quotes a certificate or key"

	cases := map[string]struct {
		inCached   []metav1.Object
		inAnswer   error
		want       string // the error
		wantEvents []string
	}{
		"update: another replica was faster":   {inCached: toUpdate, inAnswer: testkit.Conflict()},
		"update: it is gone":                   {inCached: toUpdate, inAnswer: testkit.NotFound()},
		"update: it is immutable":              {inCached: toUpdate, inAnswer: immutable, want: writing + immutable.Error(), wantEvents: event(writing + immutable.Error())},
		"update: an internal error":            {inCached: toUpdate, inAnswer: internal, want: writing + internal.Error()},
		"update: an error that quotes a key":   {inCached: toUpdate, inAnswer: quoting, want: redacted},
		"patch: the configuration has changed": {inCached: toPatch, inAnswer: testkit.Conflict()},
		"patch: it is gone":                    {inCached: toPatch, inAnswer: testkit.NotFound()},
		"patch: an internal error":             {inCached: toPatch, inAnswer: internal, want: patching + internal.Error()},
		"patch: a quota is an event":           {inCached: toPatch, inAnswer: quota, want: patching + quota.Error(), wantEvents: event(patching + quota.Error())},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, tc.inAnswer, tc.inCached...)
			_, err := f.sync(newContext(t), key{})
			if got := fmt.Sprint(err); got != tc.want && (err != nil || tc.want != "") {
				t.Errorf("error %q, want %q", got, tc.want)
			}
			if diff := cmp.Diff(tc.wantEvents, testkit.Events(f.recorder)); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
			if n, err := testutil.GatherAndCount(f.registry, "sakeeper_webhook_certificate_writes_total", "sakeeper_webhook_bundle_writes_total"); n != 0 || err != nil {
				t.Errorf("%d writes counted, error %v", n, err)
			}
		})
	}
}

// TestADeletedSecretIsReported, and its certificate is still served.
func TestADeletedSecretIsReported(t *testing.T) {
	c := made(t, testkit.Instant())
	untrusting := kindMutating + " " + configName + ", webhook a.sakeeper.io: its caBundle does not trust the certificate that is served; " + absent
	for name, tc := range map[string]struct {
		in          []byte // the bundle
		wantUnready string
	}{
		"and its certificate is still trusted": {in: c.bundle()},
		"and the bundle is wiped":              {wantUnready: untrusting},
	} {
		t.Run(name, func(t *testing.T) {
			secret := secretOf(t, c)
			f := newFixture(t, nil, secret, mutating(c.bundle()))
			sync := func() {
				t.Helper()
				if _, err := f.sync(newContext(t), key{}); err != nil {
					t.Fatal(err)
				}
			}
			sync()
			if err := errors.Join(f.cfg.Secrets.GetStore().Delete(newSecret(secret)), f.cfg.Mutating.GetStore().Update(reduceMutating(mutating(tc.in)))); err != nil {
				t.Fatal(err)
			}
			sync()
			sync()
			if found, err := f.GetCertificate(nil); err != nil || !found.Leaf.Equal(c.serving.Cert()) {
				t.Errorf("serves %v, error %v", found, err)
			}
			if err := f.Ready(); (err == nil) != (tc.wantUnready == "") || err != nil && err.Error() != tc.wantUnready {
				t.Errorf("ready: %v, want %q", err, tc.wantUnready)
			}
			if got := f.requests(t); len(got) > 0 {
				t.Errorf("requests %v", got)
			}
			want := []string{"Warning SecretMissing The webhook cannot keep its certificates: " + absent + " involvedObject{kind=Secret,apiVersion=v1}"}
			if diff := cmp.Diff(want, testkit.Events(f.recorder)); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
		})
	}
}

// TestABundleIsNotWrittenFromAStaleSecret in the cache.
func TestABundleIsNotWrittenFromAStaleSecret(t *testing.T) {
	c := made(t, testkit.Instant())
	for name, live := range map[string]*corev1.Secret{
		"it has changed":       secretOf(t, c, testkit.WithResourceVersion("101")),
		"it was created again": secretOf(t, c, testkit.WithUID(testkit.AccountUID)),
		"it was deleted":       nil,
	} {
		t.Run(name, func(t *testing.T) {
			objects := []metav1.Object{mutating(nil), validating(nil)}
			if live != nil {
				objects = append(objects, live)
			}
			f := newFixture(t, nil, objects...)
			if err := f.cfg.Secrets.GetStore().Update(newSecret(secretOf(t, c))); err != nil {
				t.Fatal(err)
			}
			requeueAfter, err := f.sync(newContext(t), key{})
			if requeueAfter != cacheLag || err != nil {
				t.Errorf("requeued after %v, error %v", requeueAfter, err)
			}
			if diff := cmp.Diff([]testkit.Request{get()}, f.requests(t)); diff != "" {
				t.Errorf("requests (-want +got):\n%s", diff)
			}
		})
	}
}

// TestRevertedWrites: another client puts its own bundle back after each write.
func TestRevertedWrites(t *testing.T) {
	c := made(t, testkit.Instant())
	other := mustCA(t, testkit.Instant())
	for name, tc := range map[string]struct {
		in   []byte // the bundle of the other client
		want int    // writes in ten minutes
	}{
		"with the CA of the webhook, they are ever further apart": {in: append(pki.Bundle(other.Cert()), c.bundle()...), want: 15},
		"without it all calls fail, and none waits":               {in: pki.Bundle(other.Cert()), want: 600},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, nil, secretOf(t, c), mutating(tc.in))
			end := f.clock.Now().Add(10 * time.Minute)
			var warnings []string
			for f.clock.Now().Before(end) { // an event each second
				if _, err := f.sync(newContext(t), key{}); err != nil {
					t.Fatal(err)
				}
				f.clock.SetTime(f.clock.Now().Add(time.Second))
				warnings = append(warnings, slices.DeleteFunc(testkit.Events(f.recorder), func(e string) bool { return strings.HasPrefix(e, "Normal") })...)
			}
			if got := testutil.ToFloat64(f.metrics.bundleWrites.WithLabelValues(kindMutating)); got != float64(tc.want) {
				t.Errorf("%v writes, want %d", got, tc.want)
			}
			if diff := cmp.Diff([]string{"Warning WritesUndone Another client keeps reverting MutatingWebhookConfiguration sakeeper-webhook, such as a tool with another caBundle, or a replica whose clock is wrong. It is written again ever more slowly; at most 10 times a second while calls of the webhook fail involvedObject{kind=Secret,apiVersion=v1}"}, warnings); diff != "" {
				t.Errorf("warnings (-want +got):\n%s", diff)
			}
		})
	}
}

// TestUrgentWritesAreTenASecond at most, also after the clock was set back.
func TestUrgentWritesAreTenASecond(t *testing.T) {
	f := newFixture(t, nil, secretOf(t, made(t, testkit.Instant())), mutating(nil))
	for i, step := range []struct {
		after time.Duration
		want  float64 // writes until then
		again time.Duration
	}{
		{want: 1, again: retryInterval},
		{after: urgentInterval / 4, want: 1, again: urgentInterval * 3 / 4},
		{after: urgentInterval * 3 / 4, want: 2, again: retryInterval},
		{after: -time.Minute, want: 3, again: retryInterval},
	} {
		f.clock.SetTime(f.clock.Now().Add(step.after))
		requeueAfter, err := f.sync(t.Context(), key{})
		if got := testutil.ToFloat64(f.metrics.bundleWrites.WithLabelValues(kindMutating)); got != step.want || requeueAfter != step.again || err != nil {
			t.Errorf("step %d: %v writes, requeued after %v, error %v", i, got, requeueAfter, err)
		}
	}
}

func TestGetCertificate(t *testing.T) {
	c := made(t, testkit.Instant())
	f := newFixture(t, nil, secretOf(t, c), mutating(c.bundle()))
	if _, err := f.GetCertificate(nil); err == nil || f.Ready() == nil {
		t.Error("there is a certificate before the first sync")
	}
	if _, err := f.sync(newContext(t), key{}); err != nil {
		t.Fatal(err)
	}
	found, err := f.GetCertificate(nil)
	if err != nil || !bytes.Equal(found.Certificate[0], c.serving.Cert().Raw) || f.Ready() != nil {
		t.Errorf("got %v, error %v, ready: %v", found, err, f.Ready())
	}
	want := fmt.Sprintf(`# HELP sakeeper_webhook_certificate_expiry_timestamp_seconds When a certificate of the webhook expires, in seconds since 1970, by certificate (serving, ca). 0: there is none.
# TYPE sakeeper_webhook_certificate_expiry_timestamp_seconds gauge
sakeeper_webhook_certificate_expiry_timestamp_seconds{certificate="ca"} %d
sakeeper_webhook_certificate_expiry_timestamp_seconds{certificate="serving"} %d
`, c.ca.Cert().NotAfter.Unix(), c.serving.Cert().NotAfter.Unix())
	if err := testutil.GatherAndCompare(f.registry, strings.NewReader(want), "sakeeper_webhook_certificate_expiry_timestamp_seconds"); err != nil {
		t.Error(err)
	}
	f.clock.SetTime(c.serving.Cert().NotAfter) // without a sync
	if f.Ready() == nil {
		t.Error("ready with a certificate that has expired")
	}
}

func TestNewRefusesABadConfig(t *testing.T) {
	f := newFixture(t, nil)
	cases := map[string]struct {
		in   func(*Config)
		want string
	}{
		"no client":                    {in: func(c *Config) { c.Client = nil }, want: "webhook-certificates: Client, Configurations, Secrets, Recorder, Clock and Registerer are required"},
		"no client for configurations": {in: func(c *Config) { c.Configurations = nil }, want: "webhook-certificates: Client, Configurations, Secrets, Recorder, Clock and Registerer are required"},
		"no secrets":                   {in: func(c *Config) { c.Secrets = nil }, want: "webhook-certificates: Client, Configurations, Secrets, Recorder, Clock and Registerer are required"},
		"no recorder":                  {in: func(c *Config) { c.Recorder = nil }, want: "webhook-certificates: Client, Configurations, Secrets, Recorder, Clock and Registerer are required"},
		"no clock":                     {in: func(c *Config) { c.Clock = nil }, want: "webhook-certificates: Client, Configurations, Secrets, Recorder, Clock and Registerer are required"},
		"no registerer":                {in: func(c *Config) { c.Registerer = nil }, want: "webhook-certificates: Client, Configurations, Secrets, Recorder, Clock and Registerer are required"},
		"no name of the secret":        {in: func(c *Config) { c.SecretName = toolscache.ObjectName{Namespace: "n"} }, want: "webhook-certificates: SecretName is required"},
		"no namespace of the secret":   {in: func(c *Config) { c.SecretName = toolscache.ObjectName{Name: "n"} }, want: "webhook-certificates: SecretName is required"},
		"no configuration":             {in: func(c *Config) { c.MutatingName, c.ValidatingName, c.Mutating, c.Validating = "", "", nil, nil }, want: "webhook-certificates: MutatingName or ValidatingName is required"},
		"a name without informer":      {in: func(c *Config) { c.Mutating = nil }, want: "webhook-certificates: Mutating and Validating are required with their names"},
		"an informer without name":     {in: func(c *Config) { c.ValidatingName = "" }, want: "webhook-certificates: Mutating and Validating are required with their names"},
		"no hosts":                     {in: func(c *Config) { c.Hosts = nil }, want: "webhook-certificates: Hosts are required"},
		"a host with a port":           {in: func(c *Config) { c.Hosts = []string{"a:443"} }, want: `webhook-certificates: "a:443" is neither a DNS name nor an IP address`},
		"an empty host":                {in: func(c *Config) { c.Hosts = []string{""} }, want: `webhook-certificates: "" is neither a DNS name nor an IP address`},
		"a wildcard":                   {in: func(c *Config) { c.Hosts = []string{"*.svc"} }, want: `webhook-certificates: "*.svc" is neither a DNS name nor an IP address`},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			cfg := f.cfg
			cfg.Registerer = prometheus.NewRegistry()
			tc.in(&cfg)
			if _, err := New(cfg); err == nil || err.Error() != tc.want {
				t.Errorf("got %v, want %s", err, tc.want)
			}
		})
	}
}

func TestRedact(t *testing.T) {
	key := mustData(t, made(t, testkit.Instant()))[keyCAKey]
	for name, tc := range map[string]struct {
		in   error
		want bool
	}{
		"a key":           {in: testkit.Invalid("data", string(key)), want: true},
		"a key in base64": {in: testkit.Invalid("data", base64.StdEncoding.EncodeToString(key)), want: true},
		"neither":         {in: testkit.Invalid("data", "redacted")},
		"no status":       {in: errors.New("quoting " + string(key)), want: true},
	} {
		t.Run(name, func(t *testing.T) {
			got := redact(fmt.Errorf("write: %w", tc.in))
			if errors.Is(got, tc.in) == tc.want || strings.Contains(got.Error(), string(key[28:60])) {
				t.Errorf("got %v", got)
			}
			if apierrors.IsInvalid(got) == tc.want && name != "no status" {
				t.Errorf("got %v", got)
			}
		})
	}
}
