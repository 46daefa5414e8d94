package controlplane

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
)

// Audit reads the audit log of the API server.
type Audit struct {
	path  string
	admin kubernetes.Interface
}

// Request is an audit event.
type Request struct {
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
	// Annotations include those about admission webhooks.
	Annotations map[string]string `json:"annotations"`
}

// Mark is a position in the log, in bytes.
type Mark int64

// Mark returns the current end of the log. Every request that was answered before the call
// is before it.
func (a *Audit) Mark(ctx context.Context) (Mark, error) {
	before, err := a.end()
	if err != nil {
		return 0, err
	}
	if _, err := a.Since(ctx, before, nil); err != nil {
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

// barrierPrefix begins the names of the namespaces that Since requests.
const barrierPrefix = "audit-barrier-"

// Since returns the requests after mark for which keep returns true; a nil keep keeps all.
// Every request that was answered before the call is included: Since sends a request of its
// own and waits until the log has it.
func (a *Audit) Since(ctx context.Context, mark Mark, keep func(Request) bool) ([]Request, error) {
	barrier := barrierPrefix + rand.String(10)
	if _, err := a.admin.CoreV1().Namespaces().Get(ctx, barrier, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("audit barrier: %w", err)
	}
	var requests []Request
	err := wait.PollUntilContextTimeout(ctx, 20*time.Millisecond, time.Minute, true, func(context.Context) (bool, error) {
		requests = nil
		seen := false
		err := a.read(mark, func(r Request) {
			seen = seen || r.Object.Name == barrier
			// A watch counts when it begins, everything else when it is answered.
			done := r.Stage == "ResponseComplete" && r.Verb != "watch" || r.Stage == "ResponseStarted" && r.Verb == "watch"
			if done && !strings.HasPrefix(r.Object.Name, barrierPrefix) && (keep == nil || keep(r)) {
				requests = append(requests, r)
			}
		})
		return seen, err
	})
	return requests, err
}

// All calls each for every audit event in the log; a watch may have two of them. The API
// server need not run.
func (a *Audit) All(each func(Request)) error { return a.read(0, each) }

func (a *Audit) read(mark Mark, each func(Request)) error {
	file, err := os.Open(a.path)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	lines := bufio.NewReaderSize(file, 1<<20)
	if mark > 0 {
		// The mark may be within a line that was being written.
		if _, err := file.Seek(int64(mark)-1, io.SeekStart); err != nil {
			return err
		}
		if _, err := lines.ReadBytes('\n'); err != nil {
			return nil // the line is still being written
		}
	}
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return nil // a line that is still being written
		}
		var r Request
		if err := json.Unmarshal(line, &r); err != nil {
			return fmt.Errorf("audit log: %w", err)
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
