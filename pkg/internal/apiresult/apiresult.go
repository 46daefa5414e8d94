// Package apiresult turns the API server's response to a write into what a controller's
// sync returns: done, requeue, or an error that the work queue retries.
//
// Responses that say that the object, or its namespace, changed since it was cached are not
// errors: the event of that change queues the key again, and sync decides anew. All other
// errors are retried. A rejection that stays until a user changes something is also reported
// by one Warning event per failing key. Errors and events never quote a token.
package apiresult

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/tools/record"

	"github.com/sakeeper/sakeeper/pkg/internal/workqueue"
	"github.com/sakeeper/sakeeper/pkg/kube"
)

// ConflictRequeueAfter is the delay after which a key is synced again that met a conflict.
// Not every conflict is followed by an event: admission may respond with one too.
const ConflictRequeueAfter = time.Second

// Write describes one write. All fields but Message and Reported are required.
type Write struct {
	// Doing names the write in errors and events, for example "create secret team/s".
	Doing    string
	Recorder record.EventRecorder
	// Object and Reason are those of the Warning event.
	Object *corev1.ObjectReference
	Reason string
	// Message returns the text of the event for the API server's error, which may quote a
	// token: the text must not. Nil: it is "The API server refuses to <Doing>: <error>".
	Message func(error) string
	// Reported returns true for the errors that are reported by the Warning event. Nil:
	// [kube.IsPermanent].
	Reported func(error) bool
}

// Create handles the response to a CREATE: the result is for sync to return.
func (w Write) Create(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case apierrors.IsAlreadyExists(err):
		return nil // another client created it first: the event shows what it holds
	case apierrors.IsNotFound(err), apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return nil // the namespace was deleted, or is being deleted: a new one begins with an event
	default:
		return w.Failed(ctx, err)
	}
}

// Change handles the response to a PUT, PATCH or DELETE that carries the UID or
// resourceVersion of the cached object: the results are for sync to return.
func (w Write) Change(ctx context.Context, err error) (requeueAfter time.Duration, _ error) {
	switch {
	case err == nil:
		return 0, nil
	case apierrors.IsConflict(err):
		return ConflictRequeueAfter, nil
	case apierrors.IsNotFound(err):
		return 0, nil // the object was deleted: its event decides anew
	default:
		return 0, w.Failed(ctx, err)
	}
}

// Failed returns err with its context, for sync to return, and records the Warning event if
// err is one to be reported and the key has none since it began to fail. Controllers call it directly
// where their own rules come first. err must not be nil.
func (w Write) Failed(ctx context.Context, err error) error {
	failure := fmt.Errorf("%s: %w", w.Doing, kube.Redact(err))
	reported := kube.IsPermanent
	if w.Reported != nil {
		reported = w.Reported
	}
	if reported(err) && workqueue.Report(ctx) {
		message := fmt.Sprintf("The API server refuses to %v", failure)
		if w.Message != nil {
			message = w.Message(err)
		}
		w.Recorder.Event(w.Object, corev1.EventTypeWarning, w.Reason, message)
	}
	return failure
}
