// Package load creates the load of benchmarks and measures how long it takes to be handled. It
// runs in a separate process, so that its memory and CPU do not count for a contestant.
//
// A process runs one [Job], which it reads from standard input. It starts its watches, prints
// "ready", waits for a line, begins, and prints its [Result] when the job is done. Times are
// those of watch events.
package load

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// Job describes a load.
type Job struct {
	// Kubeconfig is the path of the kubeconfig of an admin.
	Kubeconfig string `json:"kubeconfig"`
	// Kind is one of the constants of this package.
	Kind string `json:"kind"`
	// Prefix begins the names of all objects.
	Prefix string `json:"prefix"`
	// N is the number of objects. They are in Spread namespaces <prefix>-0000 and so on. If
	// Spread is 0, they are in the namespace Namespace, or Prefix if that is empty.
	N         int    `json:"n"`
	Spread    int    `json:"spread"`
	Namespace string `json:"namespace,omitempty"`
	// Own: every Secret has a ServiceAccount of the same name. Otherwise the Secrets of a
	// namespace share the ServiceAccount Prefix.
	Own bool `json:"own"`
	// Volume: every pod must get a token volume. Otherwise no pod may get one.
	Volume bool `json:"volume"`
	// Paced: 5 pods a second.
	Paced bool `json:"paced,omitempty"`
	// Ways are those of PodsInTurns.
	Ways []Way `json:"ways,omitempty"`
	// Parallel is the number of concurrent requests.
	Parallel int `json:"parallel"`
	// KeyFile and CAFile are for the tokens that the job creates.
	KeyFile string `json:"keyFile,omitempty"`
	CAFile  string `json:"caFile,omitempty"`
	// Timeout is that of the job.
	Timeout time.Duration `json:"timeout"`
}

// Result is the result of a job.
type Result struct {
	// P50 and P99 are the percentiles of the time from the request for an object until the
	// event that the job waits for. Elapsed is from the first request until the last event.
	P50     time.Duration `json:"p50"`
	P99     time.Duration `json:"p99"`
	Elapsed time.Duration `json:"elapsed"`
	// Ended is the time of the last event.
	Ended time.Time `json:"ended"`
	// First is from the first request until the first event.
	First time.Duration `json:"first"`
	// Left is the number of references that were not removed.
	Left int `json:"left"`
	// Ways has the results of the ways, by name.
	Ways map[string]Result `json:"ways,omitempty"`
}

// action runs a job.
type action interface {
	// prepare does everything that is not measured.
	prepare(ctx context.Context) error
	act(ctx context.Context) (Result, error)
}

// worker is embedded in every action.
type worker struct {
	Job

	client kubernetes.Interface
}

func (j Job) action(client kubernetes.Interface) action {
	w := worker{Job: j, client: client}
	switch j.Kind {
	case Namespaces:
		return &namespaces{worker: w}
	case Accounts, UnfilledSecrets, FilledSecrets, UnrelatedSecrets, UnrelatedConfigMaps:
		return &setup{worker: w}
	case Fill, AwaitFill, FillWithAccounts:
		return &fill{worker: w}
	case DeleteAccounts:
		return &deleteAccounts{worker: w}
	case Clear:
		return &clearSecrets{worker: w}
	case ReferencesOfMany:
		return &referencesOfMany{worker: w}
	case PacedNamespaces, PacedSecrets, PacedDeletions, PacedRepairs:
		return &paced{worker: w}
	case TakeOver:
		return &takeover{paced{worker: w}}
	case DeleteReferenced:
		return &deleteReferenced{worker: w}
	case NewCA:
		return &newCA{worker: w}
	case Pods:
		return &pods{worker: w}
	case PodsAfterNamespace:
		return &podsAfterNamespace{worker: w}
	case PodsInTurns:
		return &podsInTurns{worker: w}
	default:
		return nil
	}
}

// Kinds of jobs. Those in the first block are done when the API server has responded.
const (
	Accounts            = "accounts"             // N ServiceAccounts
	UnfilledSecrets     = "unfilled-secrets"     // one for each account
	FilledSecrets       = "filled-secrets"       // the same, with tokens
	UnrelatedSecrets    = "unrelated-secrets"    // of 4 KB
	UnrelatedConfigMaps = "unrelated-configmaps" // of 4 KB
	Clear               = "clear"                // deletes all Secrets in the namespaces of the job

	Namespaces       = "namespaces"         // until each has its ServiceAccount and its CA
	Fill             = "fill"               // UnfilledSecrets, until they are filled
	AwaitFill        = "await-fill"         // until existing UnfilledSecrets are filled
	FillWithAccounts = "fill-with-accounts" // accounts, each with a Secret right after it, until these are filled
	ReferencesOfMany = "references-of-many" // N accounts with a Secret each, which is deleted, until they list none
	DeleteAccounts   = "delete-accounts"    // until their Secrets are gone
	DeleteReferenced = "delete-referenced"  // the Secrets of one account, until it lists none
	NewCA            = "new-ca"             // until all Secrets and ConfigMaps have the CA of CAFile
	Pods             = "pods"               // until they are admitted
	// PodsAfterNamespace creates each pod in a namespace that has just been created.
	PodsAfterNamespace = "pods-after-namespace"
	// These make 5 events a second.
	PacedNamespaces = "paced-namespaces"
	PacedSecrets    = "paced-secrets"
	PacedDeletions  = "paced-deletions" // of accounts
	PacedRepairs    = "paced-repairs"   // of ConfigMaps that are damaged
	// TakeOver creates a namespace each 50 ms, until the first of them is served.
	TakeOver = "take-over"
	// PodsInTurns creates N pods in each of the Ways, whose namespaces and ServiceAccounts exist.
	PodsInTurns = "pods-in-turns"
)

// Client returns a client without rate limits.
func Client(kubeconfig, userAgent string) (kubernetes.Interface, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, err
	}
	config.QPS = -1
	config.ContentType = "application/vnd.kubernetes.protobuf"
	config.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	config.UserAgent = userAgent
	return kubernetes.NewForConfig(config)
}

// Run runs the job that it reads from in.
func Run(ctx context.Context, in io.Reader, out io.Writer) error {
	lines := bufio.NewReader(in)
	text, err := lines.ReadBytes('\n')
	if err != nil {
		return err
	}
	var job Job
	if err := json.Unmarshal(text, &job); err != nil {
		return err
	}
	client, err := Client(job.Kubeconfig, "bench-load")
	if err != nil {
		return err
	}
	act := job.action(client)
	if act == nil {
		return fmt.Errorf("no such kind of job: %q", job.Kind)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, job.Timeout, fmt.Errorf("%s took longer than %v", job.Kind, job.Timeout))
	defer cancel()
	if err := act.prepare(ctx); err != nil {
		return errors.Join(err, context.Cause(ctx))
	}
	if _, err := fmt.Fprintln(out, "ready"); err != nil {
		return err
	}
	if _, err := lines.ReadBytes('\n'); err != nil {
		return err
	}
	result, err := act.act(ctx)
	if err != nil {
		return errors.Join(err, context.Cause(ctx))
	}
	return json.NewEncoder(out).Encode(result)
}

// each calls do for 0 to N-1, Parallel at once.
func (w worker) each(ctx context.Context, do func(ctx context.Context, i int) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(w.Parallel)
	for i := range w.N {
		group.Go(func() error { return do(ctx, i) })
	}
	return group.Wait()
}

// in is the namespace of object i.
func (w worker) in(i int) string {
	if w.Spread == 0 {
		return cmp.Or(w.Namespace, w.Prefix)
	}
	return fmt.Sprintf("%s-%04d", w.Prefix, i%w.Spread)
}

func (w worker) name(i int) string { return fmt.Sprintf("%s-%05d", w.Prefix, i) }
