package kube_test

import (
	"errors"
	"fmt"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sakeeper/sakeeper/pkg/kube"
	"github.com/sakeeper/sakeeper/pkg/testkit"
)

func TestIsPermanentAndDefinitelyRejected(t *testing.T) {
	cases := map[string]struct {
		in                          error
		wantRefused, wantNotWritten bool
	}{
		"none":                    {},
		"a conflict":              {in: testkit.Conflict(), wantNotWritten: true},
		"not found":               {in: testkit.NotFound(), wantNotWritten: true},
		"already there":           {in: testkit.AlreadyExists(), wantNotWritten: true},
		"forbidden":               {in: testkit.QuotaExceeded(), wantRefused: true, wantNotWritten: true},
		"invalid":                 {in: testkit.Invalid("data", "x"), wantRefused: true, wantNotWritten: true},
		"too many requests":       {in: apierrors.NewTooManyRequests("later", 1), wantNotWritten: true},
		"wrapped":                 {in: fmt.Errorf("write: %w", testkit.Conflict()), wantNotWritten: true},
		"an internal error":       {in: testkit.InternalError()},
		"a timeout":               {in: apierrors.NewTimeoutError("slow", 1)},
		"a timeout of the server": {in: apierrors.NewServerTimeout(schema.GroupResource{}, "create", 1)},
		"a connection that broke": {in: errors.New("connection reset by peer")},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if got := kube.IsPermanent(tc.in); got != tc.wantRefused {
				t.Errorf("refused %t", got)
			}
			if got := kube.DefinitelyRejected(tc.in); got != tc.wantNotWritten {
				t.Errorf("not written %t", got)
			}
		})
	}
}

func TestRedact(t *testing.T) {
	plain := errors.New("quota")
	if got := kube.Redact(plain); !errors.Is(got, plain) {
		t.Errorf("got %v", got)
	}
	if got := kube.Redact(nil); got != nil {
		t.Errorf("got %v", got)
	}
	unknown := &apierrors.StatusError{ErrStatus: metav1.Status{Code: 418, Message: "eyJhbGciOi"}}
	if got := kube.Redact(unknown); got.Error() != "failed (the message is redacted, because it contains a token)" {
		t.Errorf("got %v", got)
	}
	for want, err := range map[string]error{
		"Invalid (the message is redacted, because it contains a token)": testkit.Invalid("data", "eyJhbGciOi"),
		"failed (the message is redacted, because it contains a token)":  errors.New("proxy said eyJhbGciOi"),
	} {
		if got := kube.Redact(err); got.Error() != want || kube.IsPermanent(got) != kube.IsPermanent(err) {
			t.Errorf("got %v, want %s", got, want)
		}
	}
}
