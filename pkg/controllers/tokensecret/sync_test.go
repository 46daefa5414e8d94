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
	"github.com/sakeeper/sakeeper/pkg/testkit/fakeapi"
	"github.com/sakeeper/sakeeper/pkg/token"
)

// getAccount is the live GET of team/robot.
func getAccount() testkit.Request {
	return testkit.Request{Verb: "get", Resource: "serviceaccounts", Name: "team/robot"}
}

func filled(uid types.UID, opts ...testkit.Option) testkit.Request {
	compact := signed(signingKey, func(c *token.LegacyClaims) { c.ServiceAccountUID = string(uid) })
	return testkit.Request{
		Verb: "update", Resource: "secrets", Name: "team/s",
		Body: secret(append(opts, testkit.WithAccountUID(uid), withToken(compact))...),
	}
}

func repaired(keys ...string) testkit.Request {
	content, data := secret(), map[string]any{}
	for _, key := range keys {
		data[key] = base64.StdEncoding.EncodeToString(content.Data[key])
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

// accounts are team/robot in the cache and in the API server.
type accounts struct{ cached, live *corev1.ServiceAccount }

func TestSync(t *testing.T) {
	const seconds = time.Second
	reborn := robot(testkit.WithUID(testkit.OtherUID))
	ofReborn := testkit.WithAccountUID(testkit.OtherUID)
	withoutUID := testkit.WithAccountUID("")
	wrongCA := testkit.WithData("ca.crt", "wrong")
	mine := []testkit.Option{testkit.WithAnnotation("note", "mine"), testkit.WithLabel("app", "ci"), testkit.WithData("extra", "1")}
	none, notCached := &accounts{}, &accounts{live: robot()}
	replaced, lagging := &accounts{cached: reborn, live: reborn}, &accounts{cached: robot(), live: reborn}

	cases := map[string]struct {
		in          *corev1.Secret
		inAccounts  *accounts // nil: team/robot exists
		inDeleted   bool      // the deletion of team/robot was seen
		want        []testkit.Request
		wantRequeue time.Duration
	}{
		"one that is right costs nothing":                  {in: secret()},
		"nor does one that lacks the uid annotation alone": {in: secret(withoutUID)},
		"nor does one that names no account":               {in: testkit.Secret("team/s")},

		"an empty one is filled by one PUT of the cached version": {in: empty(), want: list(filled(testkit.AccountUID))},
		"the data of a user stays":                                {in: empty(mine...), want: list(filled(testkit.AccountUID, mine...))},
		"but a wrong CA and a wrong namespace are replaced": {
			in: empty(testkit.WithData("namespace", "elsewhere"), wrongCA), want: list(filled(testkit.AccountUID)),
		},
		"the version that is written is the one in the cache": {
			in: empty(testkit.WithResourceVersion("123")), want: list(filled(testkit.AccountUID, testkit.WithResourceVersion("123"))),
		},
		"an account that the cache lacks is read once": {
			in: empty(), inAccounts: notCached, want: list(getAccount(), filled(testkit.AccountUID)), wantRequeue: 10 * seconds,
		},

		"a wrong CA is one patch, and the token is not in it": {in: secret(wrongCA), want: list(repaired("ca.crt"))},
		"a patch for the CA sets the uid annotation too":      {in: secret(wrongCA, withoutUID), want: list(repaired("ca.crt"))},
		"a missing namespace is one patch":                    {in: secret(testkit.WithData("namespace", "")), want: list(repaired("ca.crt", "namespace"))},
		"and so is a wrong one":                               {in: secret(testkit.WithData("namespace", "elsewhere")), want: list(repaired("ca.crt", "namespace"))},

		"a secret without an account is deleted, with preconditions": {in: secret(), inAccounts: none, want: list(getAccount(), removed())},
		"one that names no UID waits for its account":                {in: empty(), inAccounts: none, want: list(getAccount()), wantRequeue: 5 * seconds},
		"a secret that is being deleted already does not":            {in: secret(testkit.Deleting()), inAccounts: none, want: list(getAccount())},
		"a secret of a former account is deleted after a GET":        {in: secret(), inAccounts: replaced, want: list(getAccount(), removed())},

		"a cache that lags deletes nothing": {in: secret(ofReborn), inAccounts: lagging, want: list(getAccount()), wantRequeue: 10 * seconds},
		"and an empty secret is filled for the account that exists": {
			in: empty(ofReborn), inAccounts: lagging, want: list(getAccount(), filled(testkit.OtherUID)), wantRequeue: 10 * seconds,
		},

		"an account whose deletion was seen is not read": {in: secret(), inAccounts: none, inDeleted: true, want: list(removed())},
		"nor if there is a new one of that name":         {in: secret(), inAccounts: replaced, inDeleted: true, want: list(removed())},
		"the secret of the new account stays":            {in: secret(ofReborn), inAccounts: replaced, inDeleted: true},
		"the account of a secret that names no UID is read even then": {
			in: empty(), inAccounts: &accounts{live: reborn}, inDeleted: true, want: list(getAccount(), filled(testkit.OtherUID)), wantRequeue: 10 * seconds,
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, tc.in)
			f.cfg.Resign = ResignNever // some name another UID than their tokens
			exist := accounts{cached: robot(), live: robot()}
			if tc.inAccounts != nil {
				exist = *tc.inAccounts
			}
			if exist.cached != nil {
				f.cache(t, exist.cached)
			}
			if exist.live != nil {
				f.addToServer(t, exist.live)
			}
			if tc.inDeleted {
				f.accountDeleted(robot())
			}
			if requeueAfter, err := f.syncS(t); requeueAfter != tc.wantRequeue || err != nil {
				t.Errorf("requeued after %v, error %v, want %v", requeueAfter, err, tc.wantRequeue)
			}
			expectRequests(t, testkit.Requests(f.server.Requests()), tc.want...)
			if diff := cmp.Diff(cache.NewTokenSecret(tc.in.DeepCopy(), f.inspect), f.cached()); diff != "" {
				t.Errorf("the cached object changed (-want +got):\n%s", diff)
			}
		})
	}
}

func list(requests ...testkit.Request) []testkit.Request { return requests }

func TestASecretThatDoesNotExistCostsNothing(t *testing.T) {
	f := newFixture(t, robot())
	if requeueAfter, err := f.syncS(t); requeueAfter != 0 || err != nil {
		t.Errorf("requeued after %v, error %v", requeueAfter, err)
	}
	expectRequests(t, f.requests())
}

func TestAPIErrorsOfWrites(t *testing.T) {
	const value = beginningOfTokens + "-must-not-be-seen"
	// Admission webhooks return a 422 without fields.
	fieldless := apierrors.NewGenericServerResponse(http.StatusUnprocessableEntity, "update", schema.GroupResource{}, "s", value, 0, false)
	writes := map[string]*corev1.Secret{
		"update": empty(), "patch": secret(testkit.WithData("ca.crt", "wrong")), "delete": secret(testkit.WithAccount("missing")),
	}
	cases := map[string]struct {
		in          error
		want        string // the error, less its beginning
		wantEvent   string // the same
		wantRequeue time.Duration
	}{
		// An admission webhook or a quota may answer with a conflict too, which no event follows.
		"a conflict is tried again":         {in: testkit.Conflict(), wantRequeue: time.Second},
		"the secret is gone":                {in: testkit.NotFound()},
		"it is forbidden":                   {in: testkit.QuotaExceeded(), want: testkit.QuotaExceeded().Error()},
		"there is an internal error":        {in: testkit.InternalError(), want: testkit.InternalError().Error()},
		"the namespace is being terminated": {in: testkit.NamespaceTerminating(), want: testkit.NamespaceTerminating().Error()},
		"the secret is immutable": {
			in: testkit.Invalid("data", value), want: "Invalid (the message is redacted, because it contains a token)",
			wantEvent: "The API server refuses the change, because this secret is immutable. Delete it and create it again without that",
		},
		"no field is named": {
			in: fieldless, want: fieldless.Error(),
			wantEvent: "An admission policy or webhook of the API server refuses the change of this secret",
		},
	}
	for name, tc := range cases {
		for verb, secret := range writes {
			t.Run(name+" in the response to "+verb, func(t *testing.T) {
				f := newFixture(t, robot(), secret)
				f.server.Inject(fakeapi.Errors{verb + " secrets": tc.in}.Fault)
				requeueAfter, err := f.syncS(t)
				if tc.want == "" && err != nil || tc.want != "" && (err == nil || err.Error() != "write secret team/s: "+tc.want) {
					t.Errorf("error %v, want %q", err, tc.want)
				}
				if requeueAfter != tc.wantRequeue {
					t.Errorf("requeued after %v, want %v", requeueAfter, tc.wantRequeue)
				}
				var want []string
				if tc.wantEvent != "" {
					want = []string{"Warning FailedUpdateTokenSecret " + tc.wantEvent + " involvedObject{kind=Secret,apiVersion=v1}"}
				}
				if diff := cmp.Diff(want, testkit.Events(f.recorder)); diff != "" {
					t.Errorf("events (-want +got):\n%s", diff)
				}
			})
		}
	}
}

func TestNothingIsWrittenWhenTheAccountCannotBeRead(t *testing.T) {
	for name, answer := range map[string]error{"an internal error": testkit.InternalError(), "forbidden": testkit.QuotaExceeded(), "no connection": errBoom} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, secret())
			f.server.Inject(fakeapi.Errors{"get serviceaccounts": answer}.Fault)
			if _, err := f.syncS(t); !errors.Is(err, answer) || !strings.HasPrefix(err.Error(), "get service account team/robot: ") {
				t.Errorf("error %v", err)
			}
			expectRequests(t, f.requests(), "get serviceaccounts team/robot")
		})
	}
}

func TestNothingIsWrittenWithoutASignature(t *testing.T) {
	f := newFixture(t, robot(), empty())
	f.tokens.err = errBoom
	if _, err := f.syncS(t); !errors.Is(err, errBoom) || err.Error() != "sign the token of secret team/s: boom" {
		t.Errorf("error %v", err)
	}
	expectRequests(t, f.requests())
}

func TestAnImpossibleAccountNameCostsNothingAndHasOneEvent(t *testing.T) {
	for _, name := range []string{"a/b", "..", ".", "%2e", "Robot", "a b", "\n", strings.Repeat("a", 254)} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, empty(testkit.WithAccount(name)))
			for range 3 {
				if requeueAfter, err := f.syncS(t); requeueAfter != 0 || err != nil {
					t.Errorf("requeued after %v, error %v", requeueAfter, err)
				}
			}
			want := []string{"Warning ImpossibleServiceAccount " + impossibleAccountText + " involvedObject{kind=Secret,apiVersion=v1}"}
			if diff := cmp.Diff(want, testkit.Events(f.recorder)); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
			expectRequests(t, f.requests())
		})
	}
}
