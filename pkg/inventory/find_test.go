package inventory

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sakeeper/sakeeper/pkg/inventory/reach"
	"github.com/sakeeper/sakeeper/pkg/keys"
	"github.com/sakeeper/sakeeper/pkg/testkit"
	"github.com/sakeeper/sakeeper/pkg/token"
)

func now() time.Time { return testkit.Instant() }

func daysAgo(days int) string { return now().AddDate(0, 0, -days).Format(time.DateOnly) }

// objects are those of an account with one legacy token that was made a year ago.
func objects() (Objects, *Secret, *Held) {
	account := reach.Account{Namespace: "ci", Name: "bot"}
	o := Objects{
		Now: now(), UnusedAfter: 90 * 24 * time.Hour, TrackedSince: now().AddDate(-2, 0, 0),
		Accounts: []Account{{Account: account, UID: testkit.AccountUID}},
		Secrets: []Secret{{Namespace: "ci", Name: "token", UID: testkit.SecretUID, Created: now().AddDate(-1, 0, 0), Tokens: []Held{{
			DataKey: "token", Kind: Legacy, Account: account, UID: testkit.AccountUID, Secret: token.Ref{Name: "token"}, KeyID: "key", Published: Yes,
		}}}},
	}
	return o, &o.Secrets[0], &o.Secrets[0].Tokens[0]
}

func TestVerdict(t *testing.T) {
	bind := func(held *Held, expires time.Duration) { // as a bound token
		held.Kind, held.Secret, held.Expires = Bound, token.Ref{}, now().Add(expires)
	}
	cases := map[string]struct {
		in   func(*Objects, *Secret, *Held)
		want Verdict
	}{
		"never used, and uses are recorded": {in: func(*Objects, *Secret, *Held) {}, want: Unused},
		"never used, recorded for a day":    {in: func(o *Objects, _ *Secret, _ *Held) { o.TrackedSince = now().AddDate(0, 0, -1) }, want: NeverExpires},
		"never used, made yesterday":        {in: func(_ *Objects, s *Secret, _ *Held) { s.Created = now().AddDate(0, 0, -1) }, want: NeverExpires},
		"nothing is recorded":               {in: func(o *Objects, _ *Secret, _ *Held) { o.TrackedSince = time.Time{} }, want: NeverExpires},
		"used last month":                   {in: func(_ *Objects, s *Secret, _ *Held) { s.LastUsed = daysAgo(30) }, want: InUse},
		"used last year":                    {in: func(_ *Objects, s *Secret, _ *Held) { s.LastUsed = daysAgo(300) }, want: Unused},
		"used at no date":                   {in: func(_ *Objects, s *Secret, _ *Held) { s.LastUsed = "?" }, want: NeverExpires},
		"a pod mounts it": {in: func(o *Objects, _ *Secret, _ *Held) {
			o.Pods = []Pod{{Namespace: "ci", Name: "pod", Secrets: map[string]string{"token": "spec"}}}
		}, want: InUse},
		"a pod of another namespace": {in: func(o *Objects, _ *Secret, _ *Held) {
			o.Pods = []Pod{{Namespace: "shop", Name: "pod", Secrets: map[string]string{"token": "spec"}}}
		}, want: Unused},
		"the account refers to it": {in: func(o *Objects, _ *Secret, _ *Held) { o.Accounts[0].Secrets = []string{"token"} }, want: Unused},
		"pods are unknown":         {in: func(o *Objects, _ *Secret, _ *Held) { o.Unread.Pods = true }, want: NeverExpires},
		"marked by the cleaner":    {in: func(_ *Objects, s *Secret, _ *Held) { s.LastUsed, s.InvalidSince = daysAgo(1), daysAgo(1) }, want: Unused},
		"the account is gone":      {in: func(o *Objects, _ *Secret, _ *Held) { o.Accounts = nil }, want: AccountGone},
		"the account is another":   {in: func(o *Objects, _ *Secret, _ *Held) { o.Accounts[0].UID = testkit.OtherUID }, want: AccountGone},
		"accounts are unknown":     {in: func(o *Objects, _ *Secret, _ *Held) { o.Accounts, o.Unread.Accounts = nil, true }, want: NeverExpires},
		"an account elsewhere": {in: func(o *Objects, _ *Secret, h *Held) {
			o.Namespace, h.Account.Namespace, h.Secret = "ci", "shop", token.Ref{}
		}, want: Unused},
		"no published key":           {in: func(_ *Objects, _ *Secret, h *Held) { h.Published = No }, want: DeadNoKey},
		"no key, and used last week": {in: func(_ *Objects, s *Secret, h *Held) { h.Published, s.LastUsed = No, daysAgo(7) }, want: DeadNoKey},
		"no key, but used today":     {in: func(_ *Objects, s *Secret, h *Held) { h.Published, s.LastUsed = No, daysAgo(0) }, want: InUse},
		"keys are unknown":           {in: func(_ *Objects, _ *Secret, h *Held) { h.Published = Unknown }, want: Unused},
		"it expires":                 {in: func(_ *Objects, _ *Secret, h *Held) { bind(h, time.Hour) }, want: Expires},
		"it has expired":             {in: func(_ *Objects, _ *Secret, h *Held) { bind(h, -time.Hour) }, want: Expired},
		"its Secret is another": {in: func(_ *Objects, _ *Secret, h *Held) {
			bind(h, time.Hour)
			h.Secret = token.Ref{Name: "token", UID: string(testkit.OtherUID)}
		}, want: ObjectGone},
		"its Secret is gone": {in: func(_ *Objects, _ *Secret, h *Held) { bind(h, time.Hour); h.Secret.Name = "gone" }, want: ObjectGone},
		"its Secret was not read": {in: func(o *Objects, _ *Secret, h *Held) {
			bind(h, time.Hour)
			h.Secret.Name, o.Unread.Secrets = "gone", true
		}, want: Expires},
		"its pod is gone":    {in: func(_ *Objects, _ *Secret, h *Held) { bind(h, time.Hour); h.Pod.Name = "gone" }, want: ObjectGone},
		"its pod is unknown": {in: func(o *Objects, _ *Secret, h *Held) { bind(h, time.Hour); h.Pod.Name, o.Unread.Pods = "gone", true }, want: Expires},
		"its pod has ended": {in: func(o *Objects, _ *Secret, h *Held) {
			bind(h, time.Hour)
			h.Pod = token.Ref{Name: "pod", UID: "1"}
			o.Pods = []Pod{NewPod(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ci", Name: "pod", UID: "1"}, Status: corev1.PodStatus{Phase: corev1.PodSucceeded}})}
		}, want: Expires},
		"its Secret has another token": {in: func(o *Objects, _ *Secret, h *Held) {
			h.Secret.Name = "other"
			o.Secrets = append(o.Secrets, Secret{Namespace: "ci", Name: "other", Tokens: []Held{{Kind: Legacy, sum: [32]byte{1}}}})
		}, want: ObjectGone},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			o, secret, held := objects()
			tc.in(&o, secret, held)
			all := Find(o)
			i := slices.IndexFunc(all, func(found Token) bool { return found.Secret == "token" })
			if i < 0 || all[i].Verdict != tc.want {
				t.Errorf("got %+v, want %q", all, tc.want)
			}
		})
	}
}

// TestUsedBy counts the pods of a workload together, and names what people know them by.
func TestUsedBy(t *testing.T) {
	o, _, _ := objects()
	set := Workload{"ReplicaSet", "ci", "web-5d9"}
	o.Owners = map[Workload]Workload{set: {"Deployment", "ci", "web"}}
	mounts := map[string]string{"token": "spec.volumes[0].secret.secretName"}
	o.Pods = []Pod{
		{Namespace: "ci", Name: "web-1", Owner: set, Secrets: mounts}, {Namespace: "ci", Name: "web-2", Owner: set, Secrets: mounts},
		{Namespace: "ci", Name: "alone", Secrets: map[string]string{"token": "spec.containers[0].env[0].valueFrom.secretKeyRef.name"}},
		{Namespace: "ci", Name: "other", Secrets: map[string]string{"password": "spec"}},
	}
	o.Accounts[0].PullSecrets = []string{"token"}
	want := []User{
		{Workload: Workload{"ServiceAccount", "ci", "bot"}, Field: "imagePullSecrets"},
		{Workload: Workload{"Deployment", "ci", "web"}, Pods: 2, Field: "spec.volumes[0].secret.secretName"},
		{Workload: Workload{"Pod", "ci", "alone"}, Pods: 1, Field: "spec.containers[0].env[0].valueFrom.secretKeyRef.name"},
	}
	if diff := cmp.Diff(want, Find(o)[0].UsedBy); diff != "" {
		t.Error(diff)
	}
}

func TestScanner(t *testing.T) {
	own, other := testkit.Keys("p256"), testkit.Keys("rsa2048")
	claims := token.LegacyClaims{Namespace: "ci", SecretName: "token", ServiceAccountName: "bot", ServiceAccountUID: string(testkit.AccountUID)}
	compact, err := token.NewSigner(func() *keys.Set { return own }).SignLegacy(t.Context(), claims)
	if err != nil {
		t.Fatal(err)
	}
	secret := func(kind corev1.SecretType, key, value string) *corev1.Secret {
		s := testkit.Secret("ci/token", testkit.WithAccount("annotated"), testkit.WithAccountUID("9"), testkit.WithData(key, value))
		s.Type = kind
		return s
	}
	garbage := strings.Repeat("eyJ.eyJ..", 1<<17)
	header, _, _ := strings.Cut(compact, ".")
	signature := compact[strings.LastIndex(compact, "."):]
	own1 := Held{DataKey: "token", Kind: Legacy, Account: reach.Account{Namespace: "ci", Name: "bot"}, UID: testkit.AccountUID, Secret: token.Ref{Name: "token"}, KeyID: own.Signing().String(), Published: Yes}
	placeholder := Held{DataKey: "token", Kind: Legacy, Account: reach.Account{Namespace: "ci", Name: "annotated"}, UID: "9", Published: No}
	elsewhere := own1
	elsewhere.DataKey = "config"
	cases := map[string]struct {
		in   *corev1.Secret
		keys *Scanner
		want []Held
	}{
		"a token":                        {in: secret(corev1.SecretTypeServiceAccountToken, "token", compact), keys: NewScanner(own), want: []Held{own1}},
		"a token of an unknown key":      {in: secret(corev1.SecretTypeServiceAccountToken, "token", compact), keys: NewScanner(other), want: []Held{with(own1, No)}},
		"a token, keys are unknown":      {in: secret(corev1.SecretTypeServiceAccountToken, "token", compact), keys: NewScanner(nil), want: []Held{with(own1, Unknown)}},
		"in an Argo CD cluster":          {in: secret("", "config", `{"bearerToken":"`+compact+`"}`), keys: NewScanner(own), want: []Held{elsewhere}},
		"twice in one text":              {in: secret("", "config", compact+" "+compact), keys: NewScanner(own), want: []Held{elsewhere}},
		"no token yet":                   {in: secret(corev1.SecretTypeServiceAccountToken, "token", ""), keys: NewScanner(own)},
		"garbage in its place":           {in: secret(corev1.SecretTypeServiceAccountToken, "token", "garbage"), keys: NewScanner(own), want: []Held{placeholder}},
		"a megabyte of garbage":          {in: secret("", "config", garbage), keys: NewScanner(own)},
		"claims that are no JSON":        {in: secret("", "config", header+".AAAA"+signature), keys: NewScanner(own)},
		"an issuer that is a number":     {in: secret("", "config", header+".eyJpc3MiOjEyM30"+signature), keys: NewScanner(own)},
		"the token of another kind":      {in: secret("", "config", header+".eyJpc3MiOiJodHRwczovL2V4YW1wbGUuY29tIn0"+signature), keys: NewScanner(own)},
		"garbage in another kind's data": {in: secret("", "token", "garbage"), keys: NewScanner(own)},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got := tc.keys.Secret(tc.in)
			for i := range got.Tokens {
				got.Tokens[i].sum = [32]byte{}
			}
			if diff := cmp.Diff(tc.want, got.Tokens, cmp.AllowUnexported(Held{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func with(held Held, published Answer) Held {
	held.Published = published
	return held
}
