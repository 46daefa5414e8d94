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

// Audit reads the API server's audit log: what was really asked of it, by whom.
type Audit struct {
	path  string
	admin kubernetes.Interface
}

// Request is one request that the API server has answered.
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
	// Annotations say, among others, what webhooks did.
	Annotations map[string]string `json:"annotations"`
}

// Mark is a place in the log.
type Mark int64

// Mark returns the end of the log as it is now. Everything that was answered before the
// call lies before it.
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

// barrierPrefix begins the names of what Since asks for.
const barrierPrefix = "audit-barrier-"

// Since returns the requests from mark on that keep, which may be nil, is true
// for. Everything that was answered before the call is in it: Since sends a
// request of its own and waits until the log shows it.
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

// All passes every request that the log shows to each, of which watches may come twice.
// The API server need not run.
func (a *Audit) All(each func(Request)) error { return a.read(0, each) }

func (a *Audit) read(mark Mark, each func(Request)) error {
	file, err := os.Open(a.path)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	lines := bufio.NewReaderSize(file, 1<<20)
	if mark > 0 {
		// A mark may be in the midst of a line that was being written.
		if _, err := file.Seek(int64(mark)-1, io.SeekStart); err != nil {
			return err
		}
		if _, err := lines.ReadBytes('\n'); err != nil {
			return nil // it still is
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
