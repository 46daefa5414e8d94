package tokengeneration

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sakeeper/sakeeper/pkg/cache"
	"github.com/sakeeper/sakeeper/pkg/internal/workqueue"
	"github.com/sakeeper/sakeeper/pkg/testkit"
	"github.com/sakeeper/sakeeper/pkg/testkit/fakeapi"
)

// syncCase is one sync of team/robot, which has the plan to create robot-token-ddddd.
type syncCase struct {
	inAccount *corev1.ServiceAccount // in cache and API server; nil: team/robot without references
	inCached  []*corev1.Secret       // also in the API server, unless inServer has them
	inServer  []*corev1.Secret
	inPlan    states
	inErrors  fakeapi.Errors
	inTokens  error

	want      string // requests
	wantAgain time.Duration
	wantErr   string
	wantEvent string // its beginning
	wantPlan  states // nil: no plan is left
}

// states change a plan.
type states []func(*plan)

// notCreated is the plan with which every case begins.
func notCreated() states { return states{} }

func secrets(all ...*corev1.Secret) []*corev1.Secret { return all }

const (
	lists      = "list"
	creates    = "list, create " + planned
	references = "list, create " + planned + ", patch " + planned

	refused       = "Warning FailedGenerateToken The API server refuses to "
	createSecret  = "create secret team/robot-token-ddddd: "
	patchAccount  = "patch service account team/robot: "
	quotaExceeded = "things \"name\" is forbidden: exceeded quota: few"
)

func TestSyncCreatesASecretAndItsReference(t *testing.T) {
	foreign := testkit.Secret("team/"+planned, testkit.WithAccount("other"), testkit.WithAccountUID(testkit.AccountUID))
	opaque := testkit.Secret("team/" + planned)
	opaque.Type = corev1.SecretTypeOpaque
	withoutUID := tokenSecret(planned, testkit.WithAccountUID(""))
	deadline := func(p *plan) { p.createDeadline = testkit.Instant().Add(10 * time.Second) }
	quotesToken := apierrors.NewForbidden(schema.GroupResource{Resource: "secrets"}, planned, errors.New("policy denied "+secretBytes))

	runSyncCases(t, map[string]syncCase{
		"each is one write": {want: references, wantPlan: states{createdNow, referencedAt("1002")}},
		"references that exist stay": {
			inAccount: robot(testkit.WithReferences("a", "b")), want: "list a, list b, list, create robot-token-ddddd, patch a b robot-token-ddddd",
			wantPlan: states{createdNow, referencedAt("1002")},
		},
		"a token secret that the cache does not show yet is waited for": {
			inServer: secrets(tokenSecret("robot-token-bbbbb")), want: lists, wantAgain: time.Second, wantPlan: notCreated(),
		},
		"token secrets of other accounts are not waited for": {
			inServer: secrets(testkit.Secret("team/other", testkit.WithAccount("other"))), want: references, wantPlan: states{createdNow, referencedAt("1002")},
		},
		"the list fails": {inErrors: fakeapi.Errors{"list secrets": errBoom}, want: lists, wantErr: "list secrets team/: boom", wantPlan: notCreated()},

		"the name is that of the account's token": {
			inServer: secrets(tokenSecret(planned)), inCached: secrets(withoutUID), want: "list, create robot-token-ddddd, list robot-token-ddddd", wantPlan: states{created},
		},
		"the name is that of a token of the account that was marked invalid": {
			inServer: secrets(tokenSecret(planned, marked())), inCached: secrets(withoutUID), want: "list, create robot-token-ddddd, list robot-token-ddddd", wantPlan: states{withoutSecret},
		},
		"the name is that of another account's token": {
			inServer: secrets(foreign), want: "list, create robot-token-ddddd, list robot-token-ddddd", wantPlan: states{withoutSecret},
		},
		"the name is that of another type of secret": {
			inServer: secrets(opaque), want: "list, create robot-token-ddddd, list robot-token-ddddd", wantPlan: states{withoutSecret},
		},

		"a quota is updated by another request": {inErrors: onCreate(testkit.Conflict()), want: creates, wantAgain: time.Second, wantPlan: notCreated()},
		"the namespace is terminating":          {inErrors: onCreate(testkit.NamespaceTerminating()), want: creates, wantPlan: notCreated()},
		"the namespace is gone":                 {inErrors: onCreate(testkit.NotFound()), want: creates, wantPlan: notCreated()},
		"a quota is exceeded": {
			inErrors: onCreate(testkit.QuotaExceeded()), want: creates, wantErr: createSecret + quotaExceeded, wantEvent: refused + createSecret + quotaExceeded, wantPlan: notCreated(),
		},
		"it is refused in words that quote the token": {
			inErrors: onCreate(quotesToken), want: creates, wantErr: createSecret + "Forbidden (the message is redacted, because it contains a token)",
			wantEvent: refused + createSecret + "Forbidden (the message is redacted", wantPlan: notCreated(),
		},
		"there are too many requests": {inErrors: onCreate(apierrors.NewTooManyRequests("later", 1)), want: creates, wantErr: createSecret + "later", wantPlan: notCreated()},
		"there is no answer":          {inErrors: onCreate(timeout()), want: creates, wantErr: createSecret + "Timeout: etcd is slow", wantPlan: states{deadline}},
		"there is an internal error":  {inErrors: onCreate(testkit.InternalError()), want: creates, wantErr: createSecret + "Internal error", wantPlan: states{deadline}},
		"tokens must wait":            {inTokens: workqueue.ErrRequeueLater, want: lists, wantErr: "sign the token of secret team/robot-token-ddddd: requeue later", wantPlan: notCreated()},
		"tokens cannot be signed":     {inTokens: errBoom, want: lists, wantErr: "sign the token of secret team/robot-token-ddddd: boom", wantPlan: notCreated()},
	})
}

func TestSyncHandlesAReferenceThatFails(t *testing.T) {
	const deletes = references + ", delete robot-token-ddddd uid-1001"
	const patches = "patch " + planned
	runSyncCases(t, map[string]syncCase{
		"the account changed":            {inErrors: onPatch(testkit.Conflict()), want: references, wantAgain: time.Second, wantPlan: states{createdNow, withConflicts(1)}},
		"the account changed repeatedly": {inPlan: states{created, withConflicts(3)}, inErrors: onPatch(testkit.Conflict()), want: patches, wantAgain: 8 * time.Second, wantPlan: states{created, withConflicts(4)}},
		"the delay is bounded":           {inPlan: states{created, withConflicts(300)}, inErrors: onPatch(testkit.Conflict()), want: patches, wantAgain: time.Minute, wantPlan: states{created, withConflicts(301)}},
		"the account is gone":            {inErrors: onPatch(testkit.NotFound()), want: deletes, wantPlan: states{withoutSecret}},
		"it is forbidden": {
			inErrors: onPatch(testkit.QuotaExceeded()), want: deletes, wantErr: patchAccount + quotaExceeded, wantEvent: refused + patchAccount + quotaExceeded, wantPlan: states{withoutSecret, rejected},
		},
		"it is forbidden, and the secret cannot be deleted": {
			inErrors: fakeapi.Errors{"patch serviceaccounts": testkit.QuotaExceeded(), "delete secrets": errBoom}, want: deletes,
			wantErr: "delete secret team/robot-token-ddddd: boom", wantEvent: refused + patchAccount, wantPlan: states{createdNow, rejected},
		},
		"it is forbidden, and may have been written before": {
			inPlan: states{created, mayBeReferenced}, inErrors: onPatch(testkit.QuotaExceeded()), want: patches,
			wantErr: patchAccount, wantEvent: refused + patchAccount, wantPlan: states{created, mayBeReferenced, rejected},
		},
		"there is an internal error":  {inErrors: onPatch(testkit.InternalError()), want: references, wantErr: patchAccount + "Internal error", wantPlan: states{createdNow, mayBeReferenced}},
		"there are too many requests": {inErrors: onPatch(apierrors.NewTooManyRequests("later", 1)), want: references, wantErr: patchAccount + "later", wantPlan: states{createdNow}},

		"after a rejection there is a dry run": {inPlan: states{rejected}, want: "list, dry-run robot-token-ddddd, create robot-token-ddddd, patch robot-token-ddddd", wantPlan: states{createdNow, referencedAt("1002")}},
		"a dry run is forbidden": {
			inPlan: states{rejected}, inErrors: onPatch(testkit.QuotaExceeded()), want: "list, dry-run robot-token-ddddd", wantErr: patchAccount, wantPlan: states{rejected},
		},
		"a dry run conflicts": {inPlan: states{rejected}, inErrors: onPatch(testkit.Conflict()), want: "list, dry-run robot-token-ddddd", wantAgain: time.Second, wantPlan: states{rejected}},
		"dry runs are not supported": {
			inPlan: states{rejected}, inErrors: onPatch(apierrors.NewBadRequest("webhook does not support dry run")),
			want:    "list, dry-run robot-token-ddddd, create robot-token-ddddd, patch robot-token-ddddd, delete robot-token-ddddd uid-1001",
			wantErr: patchAccount + "webhook", wantEvent: refused, wantPlan: states{withoutSecret, rejected},
		},
	})
}

func TestSyncContinuesWhatWasBegun(t *testing.T) {
	const other = "robot-token-bbbbb"
	mine := robot(testkit.WithReferences("mine"))
	later := func(p *plan) { p.createDeadline = testkit.Instant().Add(time.Minute) }
	const lookUp = "list " + planned
	const deletes = "delete " + planned + " " + string(testkit.SecretUID)
	runSyncCases(t, map[string]syncCase{
		"a secret of another process gets a reference":               {inCached: secrets(tokenSecret(other)), want: "patch " + other, wantPlan: states{func(p *plan) { p.accountVersion = "1001" }}},
		"a secret of another process is never deleted":               {inCached: secrets(tokenSecret(other)), inErrors: onPatch(testkit.QuotaExceeded()), want: "patch " + other, wantErr: patchAccount, wantEvent: refused, wantPlan: states{rejected}},
		"a secret of another process is not deleted without account": {inCached: secrets(tokenSecret(other)), inErrors: onPatch(testkit.NotFound()), want: "patch " + other, wantPlan: notCreated()},
		"a created secret gets a reference":                          {inPlan: states{created}, want: "patch " + planned, wantPlan: states{created, referencedAt("1001")}},

		"a created secret that is not needed is deleted": {inAccount: mine, inCached: secrets(tokenSecret("mine")), inPlan: states{created}, want: deletes, wantPlan: states{withoutSecret}},
		"another secret of that name is not deleted": {
			inAccount: mine, inCached: secrets(tokenSecret("mine")), inPlan: states{created}, inServer: secrets(tokenSecret(planned, testkit.WithUID(testkit.OtherUID))),
			want: deletes + ", " + lookUp, wantPlan: states{withoutSecret},
		},
		"a deletion conflicts": {
			inAccount: mine, inCached: secrets(tokenSecret("mine")), inPlan: states{created}, inServer: secrets(tokenSecret(planned)), inErrors: fakeapi.Errors{"delete secrets": testkit.Conflict()},
			want: deletes + ", " + lookUp, wantErr: "delete secret team/robot-token-ddddd: Operation cannot be fulfilled", wantPlan: states{created},
		},
		"a deletion fails": {
			inAccount: mine, inCached: secrets(tokenSecret("mine")), inPlan: states{created}, inErrors: fakeapi.Errors{"delete secrets": errBoom},
			want: deletes, wantErr: "delete secret team/robot-token-ddddd: boom", wantPlan: states{created},
		},

		"a create without an answer was carried out":       {inPlan: states{unanswered}, inServer: secrets(tokenSecret(planned)), want: lookUp, wantPlan: states{created}},
		"a create without an answer may be carried out":    {inPlan: states{later}, want: lookUp, wantAgain: time.Second, wantPlan: states{later}},
		"a create without an answer was not carried out":   {inPlan: states{unanswered}, want: lookUp, wantPlan: states{withoutSecret}},
		"a create without an answer cannot be looked up":   {inPlan: states{unanswered}, inErrors: fakeapi.Errors{"list secrets": errBoom}, want: lookUp, wantErr: "list secrets team/robot-token-ddddd: boom", wantPlan: states{unanswered}},
		"a create without an answer is shown by the cache": {inPlan: states{unanswered}, inCached: secrets(tokenSecret(planned)), want: "patch " + planned, wantPlan: states{created, referencedAt("1001")}},

		"a reference is to a token that the cache does not have": {inAccount: mine, inServer: secrets(tokenSecret("mine")), want: "list mine"},
		"a reference cannot be looked up":                        {inAccount: mine, inErrors: fakeapi.Errors{"list secrets": errBoom}, want: "list mine", wantErr: "list secrets team/mine: boom", wantPlan: notCreated()},

		"the cache shows all":                   {inAccount: robot(testkit.WithReferences(planned)), inCached: secrets(tokenSecret(planned)), inPlan: states{created, referencedAt("100")}},
		"the cache shows the reference only":    {inAccount: robot(testkit.WithReferences(planned)), inServer: secrets(tokenSecret(planned)), inPlan: states{created, referencedAt("100")}, want: lookUp, wantPlan: states{created, referencedAt("100")}},
		"the cache has the account from before": {inPlan: states{created, referencedAt("101")}, wantPlan: states{created, referencedAt("101")}},
	})
}

func onCreate(err error) fakeapi.Errors { return fakeapi.Errors{"create secrets": err} }
func onPatch(err error) fakeapi.Errors  { return fakeapi.Errors{"patch serviceaccounts": err} }

// timeout does not say whether the request was carried out.
func timeout() error { return apierrors.NewTimeoutError("etcd is slow", 1) }

func runSyncCases(t *testing.T, cases map[string]syncCase) {
	t.Helper()
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			account := tc.inAccount
			if account == nil {
				account = robot()
			}
			f := newRobotFixture(t, account, tc.inPlan...)
			for _, secret := range tc.inCached {
				f.cache(t, secret)
			}
			for _, secret := range append(tc.inServer, tc.inCached...) {
				_ = f.server.Tracker().Add(secret) // inServer has it
			}
			f.server.Inject(tc.inErrors.Fault)
			f.tokens.err = tc.inTokens

			again, err := f.syncAccount(t, "robot")

			if diff := cmp.Diff(tc.want, f.requests(t)); diff != "" {
				t.Errorf("requests (-want +got):\n%s", diff)
			}
			if again != tc.wantAgain && err == nil {
				t.Errorf("again after %v, want %v", again, tc.wantAgain)
			}
			if !strings.Contains(fmt.Sprint(err), tc.wantErr) || (err == nil) != (tc.wantErr == "") {
				t.Errorf("error %v, want %q", err, tc.wantErr)
			}
			events := testkit.Events(f.recorder)
			if !strings.HasPrefix(strings.Join(events, ""), tc.wantEvent) || (len(events) == 0) != (tc.wantEvent == "") {
				t.Errorf("events %q, want %q", events, tc.wantEvent)
			}
			if strings.Contains(fmt.Sprint(err, events), secretBytes) {
				t.Error("the error or the event holds a token")
			}
			want := plan{}
			if tc.wantPlan != nil {
				want = withPlan(tc.wantPlan...)
			}
			if diff := cmp.Diff(want, f.plans.get(robotKey()), cmp.AllowUnexported(plan{})); diff != "" {
				t.Errorf("plan (-want +got):\n%s", diff)
			}
		})
	}
}

func TestADeletedSecretWithoutAnEventIsReplacedUnderAnotherName(t *testing.T) {
	f := newRobotFixture(t, robot(testkit.WithReferences(planned)), created, mayBeReferenced)
	if again, err := f.syncAccount(t, "robot"); again != 0 || err != nil {
		t.Fatal(again, err)
	}
	name := f.plans.get(robotKey()).secretName
	if name == planned || !cache.IsGeneratedName("robot", name) {
		t.Errorf("the new name is %q", name)
	}
	want := "list robot-token-ddddd, list, create " + name + ", patch robot-token-ddddd " + name
	if diff := cmp.Diff(want, f.requests(t)); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}
