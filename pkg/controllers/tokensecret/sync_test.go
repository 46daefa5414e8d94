package tokensecret

import (
	"encoding/base64"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sakeeper/sakeeper/pkg/cache"
	"github.com/sakeeper/sakeeper/pkg/testkit"
)

// secret is team/s of team/robot as it should be, changed by opts.
func secret(opts ...testkit.Option) *corev1.Secret {
	return testkit.Secret("team/s", append([]testkit.Option{
		testkit.WithAccount("robot"), testkit.WithAccountUID(testkit.AccountUID),
		testkit.WithData("token", secretBytes), testkit.WithData("ca.crt", string(testkit.Bundle().PEM())), testkit.WithData("namespace", "team"),
	}, opts...)...)
}

func filled(uid types.UID, opts ...testkit.Option) testkit.Request {
	return testkit.Request{Verb: "update", Resource: "secrets", Name: "team/s", Body: secret(append(opts,
		testkit.WithAccountUID(uid), testkit.WithData("token", tokenFor("team/s", "robot", string(uid))))...)}
}

func repaired(withNamespace bool) testkit.Request {
	data := map[string]any{"ca.crt": base64.StdEncoding.EncodeToString(testkit.Bundle().PEM())}
	if withNamespace {
		data["namespace"] = base64.StdEncoding.EncodeToString([]byte("team"))
	}
	return testkit.Request{Verb: "patch", Resource: "secrets", Name: "team/s", Body: map[string]any{
		"metadata": map[string]any{
			"uid": string(testkit.SecretUID), "resourceVersion": testkit.ResourceVersion,
			"annotations": map[string]any{"kubernetes.io/service-account.name": "robot", "kubernetes.io/service-account.uid": string(testkit.AccountUID)},
		},
		"data": data,
	}}
}

func removed() testkit.Request {
	uid, version := testkit.SecretUID, testkit.ResourceVersion
	return testkit.Request{Verb: "delete", Resource: "secrets", Name: "team/s", Body: &metav1.Preconditions{UID: &uid, ResourceVersion: &version}}
}

func TestSync(t *testing.T) {
	account := testkit.ServiceAccount("team/robot")
	reborn := testkit.ServiceAccount("team/robot", testkit.WithUID(testkit.OtherUID))
	mine := []testkit.Option{testkit.WithAnnotation("note", "mine"), testkit.WithLabel("app", "ci"), testkit.WithData("extra", "1")}
	unfilled := func(opts ...testkit.Option) *corev1.Secret {
		return testkit.Secret("team/s", append([]testkit.Option{testkit.WithAccount("robot")}, opts...)...)
	}

	cases := map[string]struct {
		inSecret    *corev1.Secret // cached
		inCached    *corev1.ServiceAccount
		inLive      *corev1.ServiceAccount
		inDeleted   types.UID // of an account whose deletion was seen
		want        []testkit.Request
		wantRequeue time.Duration
	}{
		"a secret that does not exist": {
			inCached: account,
		},
		"one that is right costs nothing": {
			inSecret: secret(), inCached: account,
		},
		"nor does one that lacks the uid annotation alone": {
			inSecret: secret(testkit.WithAccountUID("")), inCached: account,
		},
		"an empty one is filled by one PUT of the cached version, without a GET": {
			inSecret: unfilled(), inCached: account,
			want: []testkit.Request{filled(testkit.AccountUID)},
		},
		"the data of a user stays": {
			inSecret: unfilled(mine...), inCached: account,
			want: []testkit.Request{filled(testkit.AccountUID, mine...)},
		},
		"but a wrong CA and a wrong namespace are replaced": {
			inSecret: unfilled(testkit.WithData("namespace", "elsewhere"), testkit.WithData("ca.crt", "wrong")), inCached: account,
			want: []testkit.Request{filled(testkit.AccountUID)},
		},
		"the version that is written is the one in the cache": {
			inSecret: unfilled(testkit.WithResourceVersion("123")), inCached: account,
			want: []testkit.Request{filled(testkit.AccountUID, testkit.WithResourceVersion("123"))},
		},
		"an account that the cache lacks is read once": {
			wantRequeue: requeueNotCached,
			inSecret:    unfilled(), inLive: account,
			want: []testkit.Request{getAccount(), filled(testkit.AccountUID)},
		},
		"a wrong CA is one patch, and the token is not in it": {
			inSecret: secret(testkit.WithData("ca.crt", "wrong")), inCached: account,
			want: []testkit.Request{repaired(false)},
		},
		"a patch for the CA sets the uid annotation too": {
			inSecret: secret(testkit.WithData("ca.crt", "wrong"), testkit.WithAccountUID("")), inCached: account,
			want: []testkit.Request{repaired(false)},
		},
		"a missing namespace is one patch": {
			inSecret: secret(testkit.WithData("namespace", "")), inCached: account,
			want: []testkit.Request{repaired(true)},
		},
		"and so is a wrong one": {
			inSecret: secret(testkit.WithData("namespace", "elsewhere")), inCached: account,
			want: []testkit.Request{repaired(true)},
		},
		"a secret without an account is deleted, with preconditions": {
			inSecret: secret(),
			want:     []testkit.Request{getAccount(), removed()},
		},
		"one that names no UID waits for its account": {
			wantRequeue: accountGrace,
			inSecret:    unfilled(),
			want:        []testkit.Request{getAccount()},
		},
		"a secret that is being deleted already does not": {
			inSecret: secret(testkit.Deleting()),
			want:     []testkit.Request{getAccount()},
		},
		"a secret of a former account is deleted after a GET": {
			inSecret: secret(), inCached: reborn, inLive: reborn,
			want: []testkit.Request{getAccount(), removed()},
		},
		"a cache that lags deletes nothing": {
			wantRequeue: requeueNotCached,
			inSecret:    secret(testkit.WithAccountUID(testkit.OtherUID)), inCached: account, inLive: reborn,
			want: []testkit.Request{getAccount()},
		},
		"and an empty secret is filled for the account that exists": {
			wantRequeue: requeueNotCached,
			inSecret:    unfilled(testkit.WithAccountUID(testkit.OtherUID)), inCached: account, inLive: reborn,
			want: []testkit.Request{getAccount(), filled(testkit.OtherUID)},
		},
		"an account whose deletion was seen is not read": {
			inSecret: secret(), inDeleted: testkit.AccountUID,
			want: []testkit.Request{removed()},
		},
		"nor if there is a new one of that name": {
			inSecret: secret(), inCached: reborn, inDeleted: testkit.AccountUID,
			want: []testkit.Request{removed()},
		},
		"the secret of the new account stays": {
			inSecret: secret(testkit.WithAccountUID(testkit.OtherUID)), inCached: reborn, inDeleted: testkit.AccountUID,
		},
		"the account of a secret that names no UID is read even then": {
			wantRequeue: requeueNotCached,
			inSecret:    unfilled(), inLive: reborn, inDeleted: testkit.AccountUID,
			want: []testkit.Request{getAccount(), filled(testkit.OtherUID)},
		},
		"a secret that names no account costs nothing": {
			inSecret: testkit.Secret("team/s"),
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			s := apiServer{}
			if tc.inLive != nil {
				s.accounts = append(s.accounts, tc.inLive)
			}
			f := newFixture(t, s)
			f.cfg.Resign = ResignNever // the tokens here are none
			if tc.inSecret != nil {
				f.cache(t, tc.inSecret)
			}
			if tc.inCached != nil {
				f.cache(t, tc.inCached)
			}
			if tc.inDeleted != "" {
				f.accountDeleted(testkit.ServiceAccount("team/robot", testkit.WithUID(tc.inDeleted)))
			}
			requeueAfter, err := f.sync(f.context(t), objectName("team/s"))
			if requeueAfter != tc.wantRequeue || err != nil {
				t.Errorf("requeued after %v, error %v, want %v", requeueAfter, err, tc.wantRequeue)
			}
			if diff := cmp.Diff(tc.want, testkit.Requests(f.client.Actions())); diff != "" {
				t.Errorf("requests (-want +got):\n%s", diff)
			}
			if tc.inSecret != nil {
				cached, _, _ := f.cfg.Secrets.GetStore().GetByKey("team/s")
				if diff := cmp.Diff(cache.NewTokenSecret(tc.inSecret.DeepCopy(), nil), cached.(*cache.TokenSecret)); diff != "" {
					t.Errorf("the cached object changed (-want +got):\n%s", diff)
				}
			}
		})
	}
}

func TestAPIErrorsOfWrites(t *testing.T) {
	toFill := []metav1.Object{testkit.ServiceAccount("team/robot"), testkit.Secret("team/s", testkit.WithAccount("robot"))}
	toRepair := []metav1.Object{testkit.ServiceAccount("team/robot"), secret(testkit.WithData("ca.crt", "wrong"))}
	toRemove := []metav1.Object{secret()}
	internal, quota, immutable := testkit.InternalError(), testkit.QuotaExceeded(), testkit.Invalid("data", secretBytes)
	// The text of immutable quotes a token.
	const invalidText = "Invalid (the message is redacted, because it contains a token)"
	event := func(text string) []string {
		return []string{"Warning FailedUpdateTokenSecret " + text + " involvedObject{kind=Secret,apiVersion=v1}"}
	}
	invalidEvent := event("The API server refuses the change, because this secret is immutable. Delete it and create it again without that")

	cases := map[string]struct {
		inCached   []metav1.Object
		inError    error
		wantErr    string
		wantEvents []string
	}{
		"fill: a conflict":              {inCached: toFill, inError: testkit.Conflict()},
		"fill: the secret is gone":      {inCached: toFill, inError: testkit.NotFound()},
		"fill: forbidden":               {inCached: toFill, inError: quota, wantErr: quota.Error()},
		"fill: an internal error":       {inCached: toFill, inError: internal, wantErr: internal.Error()},
		"fill: it is immutable":         {inCached: toFill, inError: immutable, wantErr: invalidText, wantEvents: invalidEvent},
		"repair: a conflict":            {inCached: toRepair, inError: testkit.Conflict()},
		"repair: the secret is gone":    {inCached: toRepair, inError: testkit.NotFound()},
		"repair: forbidden":             {inCached: toRepair, inError: quota, wantErr: quota.Error()},
		"repair: an internal error":     {inCached: toRepair, inError: internal, wantErr: internal.Error()},
		"repair: it is immutable":       {inCached: toRepair, inError: immutable, wantErr: invalidText, wantEvents: invalidEvent},
		"remove: a conflict":            {inCached: toRemove, inError: testkit.Conflict()},
		"remove: the secret is gone":    {inCached: toRemove, inError: testkit.NotFound()},
		"remove: forbidden":             {inCached: toRemove, inError: quota, wantErr: quota.Error()},
		"remove: an internal error":     {inCached: toRemove, inError: internal, wantErr: internal.Error()},
		"a terminating namespace":       {inCached: toFill, inError: testkit.NamespaceTerminating(), wantErr: testkit.NamespaceTerminating().Error()},
		"a refusal that names no field": {inCached: toFill, inError: fieldless(), wantErr: fieldless().Error(), wantEvents: event("An admission policy or webhook of the API server refuses the change of this secret")},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, apiServer{writes: tc.inError}, tc.inCached...)
			_, err := f.sync(f.context(t), objectName("team/s"))
			got := ""
			if err != nil {
				got = err.Error()
			}
			want := tc.wantErr
			if want != "" {
				want = "write secret team/s: " + want
			}
			if got != want {
				t.Errorf("error %q, want %q", got, want)
			}
			if diff := cmp.Diff(tc.wantEvents, testkit.Events(f.recorder)); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
		})
	}
}

// fieldless is a 422 without fields, as admission webhooks return it.
func fieldless() error {
	return apierrors.NewGenericServerResponse(http.StatusUnprocessableEntity, "update", schema.GroupResource{}, "s", secretBytes, 0, false)
}

func TestNothingIsWrittenWhenTheAccountCannotBeRead(t *testing.T) {
	for name, answer := range map[string]error{"an internal error": testkit.InternalError(), "forbidden": testkit.QuotaExceeded(), "no connection": errBoom} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, apiServer{reads: answer}, secret())
			if _, err := f.sync(f.context(t), objectName("team/s")); !errors.Is(err, answer) || !strings.HasPrefix(err.Error(), "get service account team/robot: ") {
				t.Errorf("error %v", err)
			}
			if diff := cmp.Diff([]testkit.Request{getAccount()}, testkit.Requests(f.client.Actions())); diff != "" {
				t.Errorf("requests (-want +got):\n%s", diff)
			}
		})
	}
}

func TestNothingIsWrittenWithoutASignature(t *testing.T) {
	f := newFixture(t, apiServer{}, testkit.ServiceAccount("team/robot"), testkit.Secret("team/s", testkit.WithAccount("robot")))
	f.cfg.Tokens = tokens{err: errBoom, set: f.known()}
	if _, err := f.sync(f.context(t), objectName("team/s")); !errors.Is(err, errBoom) || err.Error() != "sign the token of secret team/s: boom" {
		t.Errorf("error %v", err)
	}
	if requests := f.client.Actions(); len(requests) > 0 {
		t.Errorf("requests: %v", requests)
	}
}

// An admission webhook or a quota may answer with a conflict too, which no event follows.
func TestAConflictIsRequeued(t *testing.T) {
	cases := map[string]*corev1.Secret{
		"filling":   testkit.Secret("team/s", testkit.WithAccount("robot")),
		"repairing": secret(testkit.WithData("ca.crt", "old")),
		"removing":  secret(testkit.WithAccount("missing")),
	}
	for name, cached := range cases {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, apiServer{writes: testkit.Conflict()}, testkit.ServiceAccount("team/robot"), cached)
			if requeueAfter, err := f.sync(f.context(t), objectName("team/s")); requeueAfter != time.Second || err != nil {
				t.Errorf("requeued after %v, error %v", requeueAfter, err)
			}
		})
	}
}

func TestAnImpossibleAccountNameCostsNothingAndHasOneEvent(t *testing.T) {
	for _, name := range []string{"a/b", "..", ".", "%2e", "Robot", "a b", "\n", strings.Repeat("a", 254)} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, apiServer{reads: errBoom}, testkit.Secret("team/s", testkit.WithAccount(name)))
			for range 3 {
				if requeueAfter, err := f.sync(f.context(t), objectName("team/s")); requeueAfter != 0 || err != nil {
					t.Errorf("requeued after %v, error %v", requeueAfter, err)
				}
			}
			want := []string{"Warning ImpossibleServiceAccount " + impossibleAccountText + " involvedObject{kind=Secret,apiVersion=v1}"}
			if diff := cmp.Diff(want, testkit.Events(f.recorder)); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
			if requests := f.client.Actions(); len(requests) > 0 {
				t.Errorf("requests: %v", requests)
			}
		})
	}
}
