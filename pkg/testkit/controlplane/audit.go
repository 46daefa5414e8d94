package controlplane

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
)

// Audit reads the audit log of the API server. It is safe for concurrent use.
type Audit struct {
	path  string
	admin kubernetes.Interface

	writes writes
}

// Request is an audit event.
type Request struct {
	ID        string `json:"auditID"`
	Verb      string `json:"verb"`
	UserAgent string `json:"userAgent"`
	URI       string `json:"requestURI"`
	User      struct {
		Username string `json:"username"`
	} `json:"user"`
	Object struct {
		Group       string `json:"apiGroup"`
		Resource    string `json:"resource"`
		Subresource string `json:"subresource"`
		Namespace   string `json:"namespace"`
		Name        string `json:"name"`
	} `json:"objectRef"`
	Response struct {
		Code int `json:"code"`
	} `json:"responseStatus"`
	Stage string `json:"stage"`
	// Received and Staged are when the request came, and when it reached the stage.
	Received  time.Time `json:"requestReceivedTimestamp"`
	Staged    time.Time `json:"stageTimestamp"`
	SourceIPs []string  `json:"sourceIPs"`
	// Deletion are the options of a deletion.
	Deletion struct {
		Preconditions struct {
			UID string `json:"uid"`
		} `json:"preconditions"`
	} `json:"requestObject"`
	// Annotations include those about admission webhooks.
	Annotations map[string]string `json:"annotations"`
}

// Mark is a position in the log, in bytes.
type Mark int64

// Mark returns the current end of the log. Every request that was answered before the call is
// before it, and every write that had an effect before the call.
func (a *Audit) Mark(ctx context.Context) (Mark, error) {
	if err := a.settle(ctx, nil); err != nil {
		return 0, err
	}
	return a.end()
}

func (a *Audit) end() (Mark, error) {
	info, err := os.Stat(a.path)
	if err != nil {
		return 0, err
	}
	return Mark(info.Size()), nil
}

// barrierPrefix begins the names of the namespaces that settle requests.
const barrierPrefix = "audit-barrier-"

// Since returns the requests after mark for which keep returns true; a nil keep keeps all. Every
// request that was answered before the call is included, and every write that had an effect
// before the call, if keep returns true for it also without its answer.
func (a *Audit) Since(ctx context.Context, mark Mark, keep func(Request) bool) ([]Request, error) {
	if err := a.settle(ctx, keep); err != nil {
		return nil, err
	}
	var requests []Request
	_, err := a.read(int64(mark), func(r Request) {
		// A watch counts when it begins, everything else when it is answered.
		done := r.Stage == "ResponseComplete" && r.Verb != "watch" || r.Stage == "ResponseStarted" && r.Verb == "watch"
		if done && !strings.HasPrefix(r.Object.Name, barrierPrefix) && (keep == nil || keep(r)) {
			requests = append(requests, r)
		}
	})
	return requests, err
}

// settle sends a request, and waits until the log has the answer to it and to each write that the
// API server received before and for which keep returns true: others can see the effect of a write
// before the log has its answer.
func (a *Audit) settle(ctx context.Context, keep func(Request) bool) error {
	barrier := barrierPrefix + rand.String(10)
	defer a.writes.forget(barrier)
	if _, err := a.admin.CoreV1().Namespaces().Get(ctx, barrier, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		return fmt.Errorf("audit barrier: %w", err)
	}
	return wait.PollUntilContextTimeout(ctx, 20*time.Millisecond, 2*time.Minute, true, func(context.Context) (bool, error) {
		err := a.follow()
		return a.writes.answered(barrier, keep), err
	})
}

// follow reads what was added to the log.
func (a *Audit) follow() error {
	a.writes.mu.Lock()
	defer a.writes.mu.Unlock()
	end, err := a.read(a.writes.position, a.writes.note)
	a.writes.position = end
	return err
}

// serverDied notes that the writes without an answer will never have one.
func (a *Audit) serverDied() error {
	err := a.follow()
	a.writes.mu.Lock()
	defer a.writes.mu.Unlock()
	clear(a.writes.pending)
	return err
}

// writes are the writes that have no answer in the log yet.
type writes struct {
	mu       sync.Mutex
	position int64 // up to which the log was read
	pending  map[string]Request
	// before are the IDs of the writes that were pending when a barrier was answered, by the name of the barrier.
	before map[string][]string
}

func (w *writes) note(r Request) {
	if w.pending == nil {
		w.pending, w.before = map[string]Request{}, map[string][]string{}
	}
	switch {
	case r.Stage == "RequestReceived":
		w.pending[r.ID] = r
	case r.Stage == "ResponseStarted": // of a watch
	case strings.HasPrefix(r.Object.Name, barrierPrefix):
		w.before[r.Object.Name] = slices.Collect(maps.Keys(w.pending))
	default:
		delete(w.pending, r.ID)
	}
}

// answered returns true if the log has the answers to barrier and to the writes before it that keep
// keeps.
func (w *writes) answered(barrier string, keep func(Request) bool) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	before, ok := w.before[barrier]
	return ok && !slices.ContainsFunc(before, func(id string) bool {
		r, pending := w.pending[id]
		return pending && (keep == nil || keep(r))
	})
}

func (w *writes) forget(barrier string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.before, barrier)
}

// All calls each for every audit event in the log but those of requests without an answer; a watch
// may have two of them. The API server need not run.
func (a *Audit) All(each func(Request)) error {
	_, err := a.read(0, func(r Request) {
		if r.Stage != "RequestReceived" {
			each(r)
		}
	})
	return err
}

// read calls each for the events from begin on, and returns where the last of them ends.
func (a *Audit) read(begin int64, each func(Request)) (end int64, err error) {
	file, err := os.Open(a.path)
	if err != nil {
		return begin, err
	}
	defer func() { _ = file.Close() }()
	lines := bufio.NewReaderSize(file, 1<<20)
	end = begin
	if begin > 0 {
		// A mark may be within a line that was being written.
		if _, err := file.Seek(begin-1, io.SeekStart); err != nil {
			return begin, err
		}
		rest, err := lines.ReadBytes('\n')
		if err != nil {
			return begin, nil // the line is still being written
		}
		end += int64(len(rest)) - 1
	}
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return end, nil // a line that is still being written
		}
		end += int64(len(line))
		var r Request
		if err := json.Unmarshal(line, &r); err != nil {
			return end, fmt.Errorf("audit log: %w", err)
		}
		each(r)
	}
}

// Count counts requests by "<verb> <resource>".
func Count(requests []Request) map[string]int {
	counts := map[string]int{}
	for _, r := range requests {
		resource := r.Object.Resource
		if r.Object.Subresource != "" {
			resource += "/" + r.Object.Subresource
		}
		counts[r.Verb+" "+resource]++
	}
	return counts
}
