package apiresult

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/tools/record"

	"github.com/sakeeper/sakeeper/pkg/internal/workqueue"
	"github.com/sakeeper/sakeeper/pkg/kube"
	"github.com/sakeeper/sakeeper/pkg/testkit"
)

var errBoom = errors.New("boom")

// token is what [kube.Redact] takes for one.
const token = "eyJ-must-not-be-seen"

func newWrite(message func(error) string) (Write, *record.FakeRecorder) {
	recorder := record.NewFakeRecorder(100)
	return Write{
		Doing: "write secret team/s", Recorder: recorder, Reason: "FailedWrite", Message: message,
		Object: kube.Reference("Secret", testkit.Secret("team/s")),
	}, recorder
}

func TestWrite(t *testing.T) {
	conflict, quota, terminating := testkit.Conflict(), testkit.QuotaExceeded(), testkit.NamespaceTerminating()
	invalid, quoting, badRequest := testkit.Invalid("data", "x"), testkit.Invalid("data", token), apierrors.NewBadRequest("no such field")
	event := func(err error) string {
		return "Warning FailedWrite The API server refuses to write secret team/s: " + err.Error()
	}
	redacted := "write secret team/s: Invalid (the message is redacted, because it contains a token)"

	type result struct {
		RequeueAfter time.Duration
		Err          string
		Event        string
	}
	failed := func(err error) result { return result{Err: "write secret team/s: " + err.Error()} }
	rejected := func(err error) result { return result{Err: failed(err).Err, Event: event(err)} }
	cases := map[string]struct {
		in                     error
		wantCreate, wantChange result
	}{
		"success":                                {},
		"a conflict":                             {in: conflict, wantCreate: failed(conflict), wantChange: result{RequeueAfter: time.Second}},
		"the object, or its namespace, is gone":  {in: testkit.NotFound()},
		"the object exists already":              {in: testkit.AlreadyExists(), wantChange: failed(testkit.AlreadyExists())},
		"the namespace is terminating":           {in: terminating, wantChange: rejected(terminating)},
		"forbidden, for example by a quota":      {in: quota, wantCreate: rejected(quota), wantChange: rejected(quota)},
		"invalid":                                {in: invalid, wantCreate: rejected(invalid), wantChange: rejected(invalid)},
		"a bad request":                          {in: badRequest, wantCreate: rejected(badRequest), wantChange: rejected(badRequest)},
		"an internal error":                      {in: testkit.InternalError(), wantCreate: failed(testkit.InternalError()), wantChange: failed(testkit.InternalError())},
		"an error that is not the API server's":  {in: errBoom, wantCreate: failed(errBoom), wantChange: failed(errBoom)},
		"invalid, in a message with the token":   {in: quoting, wantCreate: result{Err: redacted, Event: "Warning FailedWrite The API server refuses to " + redacted}, wantChange: result{Err: redacted, Event: "Warning FailedWrite The API server refuses to " + redacted}},
		"not the API server's, and with a token": {in: errors.New("read " + token), wantCreate: result{Err: "write secret team/s: failed (the message is redacted, because it contains a token)"}, wantChange: result{Err: "write secret team/s: failed (the message is redacted, because it contains a token)"}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			expect := func(method string, want result, handle func(Write) (time.Duration, error)) {
				t.Helper()
				w, recorder := newWrite(nil)
				var got result
				var err error
				if got.RequeueAfter, err = handle(w); err != nil {
					got.Err = err.Error()
				}
				for _, e := range testkit.Events(recorder) {
					got.Event += e
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("%s (-want +got):\n%s", method, diff)
				}
			}
			expect("Create", tc.wantCreate, func(w Write) (time.Duration, error) { return 0, w.Create(t.Context(), tc.in) })
			expect("Change", tc.wantChange, func(w Write) (time.Duration, error) { return w.Change(t.Context(), tc.in) })
		})
	}
}

func TestTheErrorIsWrapped(t *testing.T) {
	w, _ := newWrite(nil)
	if err := w.Failed(t.Context(), errBoom); !errors.Is(err, errBoom) {
		t.Errorf("got %v", err)
	}
}

func TestMessageReplacesTheText(t *testing.T) {
	invalid := testkit.Invalid("data", token)
	w, recorder := newWrite(func(err error) string {
		if !errors.Is(err, invalid) {
			t.Errorf("Message was called with %v", err)
		}
		return "Remove what else is in it"
	})
	_ = w.Failed(t.Context(), invalid)
	if diff := cmp.Diff([]string{"Warning FailedWrite Remove what else is in it"}, testkit.Events(recorder)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestARejectionIsOneEventUntilTheKeySucceeds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, recorder := newWrite(nil)
		err := testkit.QuotaExceeded()
		queue, errNew := workqueue.New(workqueue.Config[string]{Name: "test", Sync: func(ctx context.Context, _ string) (time.Duration, error) {
			return w.Change(ctx, err)
		}})
		if errNew != nil {
			t.Fatal(errNew)
		}
		defer testkit.Start(t.Context(), t, func(ctx context.Context) error { return queue.Run(ctx) })()
		expect := func(step string, want int) {
			t.Helper()
			queue.Add("s")
			time.Sleep(time.Hour)
			synctest.Wait()
			if got := len(testkit.Events(recorder)); got != want {
				t.Errorf("%s: %d events, want %d", step, got, want)
			}
		}
		expect("rejected for an hour", 1)
		err = nil
		expect("succeeded", 0)
		err = testkit.QuotaExceeded()
		expect("rejected again", 1)
	})
}
