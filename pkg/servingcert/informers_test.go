package servingcert

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sakeeper/sakeeper/pkg/testkit"
)

func TestHosts(t *testing.T) {
	cases := map[string]struct {
		in   admissionregistrationv1.WebhookClientConfig
		want string
	}{
		"a service":           {in: service(), want: host},
		"a URL with a name":   {in: admissionregistrationv1.WebhookClientConfig{URL: new("https://Webhook.example:9443/path?x=y")}, want: "webhook.example"},
		"a URL, address":      {in: admissionregistrationv1.WebhookClientConfig{URL: new("https://127.0.0.1:9443/path")}, want: "127.0.0.1"},
		"a URL, IPv6 address": {in: admissionregistrationv1.WebhookClientConfig{URL: new("https://[0:0::1]:9443/path")}, want: "::1"},
		"no URL":              {in: admissionregistrationv1.WebhookClientConfig{URL: new("https://%")}},
		"neither":             {},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if got := hostOf(&tc.in); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
	checked, err := checkHosts([]string{"Webhook.Example", "0:0::1", "10.0.0.1"})
	if diff := cmp.Diff([]string{"webhook.example", "::1", "10.0.0.1"}, checked); diff != "" || err != nil {
		t.Errorf("error %v, -want +got:\n%s", err, diff)
	}
}

func TestReduce(t *testing.T) {
	w := mutating([]byte("one"), nil)
	w.Labels = map[string]string{"app": "webhook"}
	want := &Configuration{
		ObjectMeta: meta(), Kind: kindMutating,
		Webhooks: []Webhook{{Name: "a.sakeeper.io", Host: host, CABundle: []byte("one")}, {Name: "b.sakeeper.io", Host: host}},
	}
	if diff := cmp.Diff(want, reduceMutating(w)); diff != "" {
		t.Errorf("mutating (-want +got):\n%s", diff)
	}
	want.Kind = kindValidating
	if diff := cmp.Diff(want, reduceValidating(validating([]byte("one"), nil))); diff != "" {
		t.Errorf("validating (-want +got):\n%s", diff)
	}
}

func TestWrittenAt(t *testing.T) {
	at := func(after time.Duration) metav1.ManagedFieldsEntry {
		return metav1.ManagedFieldsEntry{Time: new(metav1.NewTime(testkit.Instant().Add(after)))}
	}
	for name, tc := range map[string]struct {
		in   []metav1.ManagedFieldsEntry
		want time.Duration
	}{
		"created":               {},
		"changed twice":         {in: []metav1.ManagedFieldsEntry{at(time.Minute), at(time.Hour), at(time.Second)}, want: time.Hour},
		"an entry without time": {in: []metav1.ManagedFieldsEntry{{}, at(time.Second)}, want: time.Second},
		"older than the secret": {in: []metav1.ManagedFieldsEntry{at(-time.Hour)}},
	} {
		t.Run(name, func(t *testing.T) {
			secret := secretOf(t, contents{})
			secret.ManagedFields = tc.in
			got := newSecret(secret)
			if got.WrittenAt.Sub(testkit.Instant()) != tc.want || got.ManagedFields != nil {
				t.Errorf("written at %v, managed fields %v", got.WrittenAt, got.ManagedFields)
			}
		})
	}
}
