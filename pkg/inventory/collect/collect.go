package collect

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/inventory"
	"github.com/sakeeper/sakeeper/pkg/inventory/reach"
	"github.com/sakeeper/sakeeper/pkg/keys"
)

// Config says what to read. Client is required, and Metadata unless NoOwners is set and Namespace and
// ReachOnly are not.
type Config struct {
	Client   kubernetes.Interface
	Metadata metadata.Interface
	// Namespace is the only one whose Secrets are read; empty for all.
	Namespace string
	// Deep reads Secrets of all types, not only token Secrets and managed ones.
	Deep bool
	// ReachOnly reads neither Secrets nor pods.
	ReachOnly bool
	// NoOwners does not read which workloads own the ReplicaSets and Jobs that own pods.
	NoOwners bool
	// Now is the time that the findings are for; nil: the clock of this machine.
	Now func() time.Time
	// Progress, if not nil, is called after each chunk, from several goroutines.
	Progress func(objects int64)
}

// Missing is a list or an object that could not be read.
type Missing struct {
	// Right is what is missing, as "list secrets".
	Right string `json:"right"`
	// Namespace is where; empty for all namespaces.
	Namespace string `json:"namespace,omitempty"`
	// Forbidden is true if the API server refused it; false if the API server does not have it, or did
	// not answer, or no more.
	Forbidden bool `json:"forbidden"`
	// Affects is what is unknown therefore.
	Affects string `json:"affects"`
	// Err is the error.
	Err error `json:"-"`
}

// Result is what could be read.
type Result struct {
	inventory.Objects

	// Published are the keys that the API server publishes; nil if they are unknown.
	Published *keys.Set
	// RBAC are the objects that Objects.Policy is made of.
	RBAC reach.Objects
	// Read is the number of objects.
	Read int64
	// Missing is what could not be read, in a fixed order.
	Missing []Missing
}

// Interrupted returns the first error that is neither a missing right nor the answer that the API
// server does not have something; nil if there is none.
func (r *Result) Interrupted() error {
	for _, m := range r.Missing {
		if !m.Forbidden && !m.Absent() {
			return fmt.Errorf("%s: %w", m.Right, m.Err)
		}
	}
	return nil
}

// Absent returns true if the API server does not have it: some have no pods, or publish no keys.
func (m Missing) Absent() bool { return apierrors.IsNotFound(m.Err) }

// TokensMissing returns true if there may be more Secrets with tokens than those that were read.
func (r *Result) TokensMissing() bool {
	return slices.ContainsFunc(r.Missing, func(m Missing) bool { return m.Right == listSecrets && m.Namespace == r.Namespace })
}

// listSecrets is a right.
const listSecrets = "list secrets"

// resource returns the resource of the right.
func (m Missing) resource() string {
	_, resource, _ := strings.Cut(m.Right, " ")
	return resource
}

// tokenSecrets selects the Secrets of the type for tokens of ServiceAccounts, and otherSecrets the
// others.
const (
	tokenSecrets = "type=" + string(corev1.SecretTypeServiceAccountToken)
	otherSecrets = "type!=" + string(corev1.SecretTypeServiceAccountToken)
)

type collector struct {
	Config

	mu     sync.Mutex
	result *Result
	read   atomic.Int64
	// secretsMissing is true if not all token Secrets were read.
	secretsMissing bool
}

// Collect reads the objects. If ctx ends, or the API server goes away, it returns what was read until
// then; the error is not nil only if there is nothing to return.
func Collect(ctx context.Context, cfg Config) (*Result, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	c := &collector{Config: cfg, result: &Result{Objects: inventory.Objects{
		Now: cfg.Now(), Namespace: cfg.Namespace, Unread: inventory.Unread{Secrets: !cfg.Deep},
	}}}
	if err := c.checkNamespace(ctx); err != nil {
		return nil, err
	}
	if !cfg.ReachOnly {
		c.readKeys(ctx)
		c.readTracking(ctx)
	}
	var lists sync.WaitGroup
	for _, list := range c.lists() {
		lists.Go(func() { list(ctx) })
	}
	lists.Wait()
	if !cfg.ReachOnly && !cfg.NoOwners {
		c.readOwners(ctx)
	}
	c.result.Read = c.read.Load()
	c.finish()
	return c.result, nil
}

// lists are read at the same time. The Secrets are the longest.
func (c *collector) lists() []func(context.Context) {
	all := []func(context.Context){c.readAccounts, c.readRBAC}
	if !c.ReachOnly {
		all = append(all, c.readSecrets, c.readPods)
	}
	if c.ReachOnly || c.Namespace != "" {
		all = append(all, c.readTokenHolders)
	}
	return all
}

func (c *collector) finish() {
	r := c.result
	for _, account := range r.Accounts {
		r.RBAC.Accounts = append(r.RBAC.Accounts, account.Account)
	}
	if r.Namespace == "" && !c.ReachOnly {
		r.RBAC.TokensUnknown = c.secretsMissing
	}
	for i := range r.Secrets {
		for _, held := range r.Secrets[i].Tokens {
			if held.Account.Namespace == r.Secrets[i].Namespace {
				r.RBAC.WithTokens = append(r.RBAC.WithTokens, held.Account)
			}
		}
	}
	r.Policy = reach.New(r.RBAC)
	order := []string{"secrets", "serviceaccounts", "pods", "replicasets", "jobs", "clusterrolebindings", "rolebindings", "clusterroles", "roles"}
	slices.SortStableFunc(r.Missing, func(a, b Missing) int { return slices.Index(order, a.resource()) - slices.Index(order, b.resource()) })
}

// checkNamespace returns an error if the namespace does not exist. If it may not be read, it may
// exist.
func (c *collector) checkNamespace(ctx context.Context) error {
	if c.Namespace == "" {
		return nil
	}
	_, err := c.Client.CoreV1().Namespaces().Get(ctx, c.Namespace, metav1.GetOptions{})
	switch {
	case err == nil, apierrors.IsForbidden(err):
		return nil
	case apierrors.IsNotFound(err):
		return fmt.Errorf("namespace %s does not exist", c.Namespace)
	default:
		return fmt.Errorf("reading namespace %s: %w", c.Namespace, err)
	}
}

// count adds n read objects.
func (c *collector) count(n int) {
	total := c.read.Add(int64(n))
	if c.Progress != nil {
		c.Progress(total)
	}
}

// miss notes what could not be read, and what is unknown therefore.
func (c *collector) miss(right, namespace, affects string, err error, mark func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.result.Missing = append(c.result.Missing, Missing{Right: right, Namespace: namespace, Forbidden: apierrors.IsForbidden(err), Affects: affects, Err: err})
	mark()
}

func (c *collector) readSecrets(ctx context.Context) {
	scanner := inventory.NewScanner(c.result.Published)
	selections := []metav1.ListOptions{
		{FieldSelector: tokenSecrets, Limit: chunk},
		{LabelSelector: api.TokenLabel + "=" + api.TokenManaged, FieldSelector: otherSecrets, Limit: chunk},
	}
	if c.Deep {
		selections = []metav1.ListOptions{{Limit: firstDeepChunk}}
	}
	for _, selection := range selections {
		err := pages(ctx, selection, func(ctx context.Context, opts metav1.ListOptions) (string, int64, error) {
			list, err := c.Client.CoreV1().Secrets(c.Namespace).List(ctx, opts)
			if err != nil {
				return "", 0, err
			}
			size := 1
			for i := range list.Items {
				size += sizeOf(&list.Items[i])
				c.result.Secrets = append(c.result.Secrets, scanner.Secret(&list.Items[i]))
				list.Items[i] = corev1.Secret{} // its bytes are not needed any more
			}
			c.count(len(list.Items))
			return list.Continue, min(chunk, max(1, int64(len(list.Items))*chunkBytes/int64(size))), nil
		})
		if err != nil {
			c.miss(listSecrets, c.Namespace, "not all tokens are shown", err, func() { c.result.Unread.Secrets, c.secretsMissing = true, true })
			return
		}
	}
}

func sizeOf(secret *corev1.Secret) int {
	size := 1024
	for _, value := range secret.Data {
		size += len(value)
	}
	return size
}

func (c *collector) readAccounts(ctx context.Context) {
	namespace := "" // the reach of one depends on others
	err := c.accountsIn(ctx, namespace)
	if apierrors.IsForbidden(err) && c.Namespace != "" {
		c.miss("list serviceaccounts", "", "reach is unknown", err, func() { c.result.RBAC.Incomplete = true })
		namespace = c.Namespace
		err = c.accountsIn(ctx, namespace)
	}
	if err != nil {
		c.miss("list serviceaccounts", namespace, "whether an account exists, and refers to a Secret, is unknown", err, func() {
			c.result.Unread.Accounts, c.result.RBAC.Incomplete = true, true
		})
	}
}

func (c *collector) accountsIn(ctx context.Context, namespace string) error {
	return pages(ctx, metav1.ListOptions{Limit: chunk}, func(ctx context.Context, opts metav1.ListOptions) (string, int64, error) {
		list, err := c.Client.CoreV1().ServiceAccounts(namespace).List(ctx, opts)
		if err != nil {
			return "", 0, err
		}
		for i := range list.Items {
			c.result.Accounts = append(c.result.Accounts, inventory.NewAccount(&list.Items[i]))
		}
		c.count(len(list.Items))
		return list.Continue, chunk, nil
	})
}

func (c *collector) readPods(ctx context.Context) {
	err := pages(ctx, metav1.ListOptions{Limit: chunk}, func(ctx context.Context, opts metav1.ListOptions) (string, int64, error) {
		list, err := c.Client.CoreV1().Pods(c.Namespace).List(ctx, opts)
		if err != nil {
			return "", 0, err
		}
		for i := range list.Items {
			c.result.Pods = append(c.result.Pods, inventory.NewPod(&list.Items[i]))
		}
		c.count(len(list.Items))
		return list.Continue, chunk, nil
	})
	if err != nil {
		c.miss("list pods", c.Namespace, "who uses a Secret is unknown", err, func() { c.result.Unread.Pods = true })
	}
}

func (c *collector) readRBAC(ctx context.Context) {
	rbac, into := c.Client.RbacV1(), &c.result.RBAC
	opts := metav1.ListOptions{Limit: chunk}
	lists := []struct {
		resource string
		page     func(context.Context, metav1.ListOptions) (string, int64, error)
	}{
		{"clusterrolebindings", func(ctx context.Context, opts metav1.ListOptions) (string, int64, error) {
			list, err := rbac.ClusterRoleBindings().List(ctx, opts)
			return appendPage(c, &into.ClusterRoleBindings, list, func() []rbacv1.ClusterRoleBinding { return list.Items }, err)
		}},
		{"rolebindings", func(ctx context.Context, opts metav1.ListOptions) (string, int64, error) {
			list, err := rbac.RoleBindings("").List(ctx, opts)
			return appendPage(c, &into.RoleBindings, list, func() []rbacv1.RoleBinding { return list.Items }, err)
		}},
		{"clusterroles", func(ctx context.Context, opts metav1.ListOptions) (string, int64, error) {
			list, err := rbac.ClusterRoles().List(ctx, opts)
			return appendPage(c, &into.ClusterRoles, list, func() []rbacv1.ClusterRole { return list.Items }, err)
		}},
		{"roles", func(ctx context.Context, opts metav1.ListOptions) (string, int64, error) {
			list, err := rbac.Roles("").List(ctx, opts)
			return appendPage(c, &into.Roles, list, func() []rbacv1.Role { return list.Items }, err)
		}},
	}
	for _, list := range lists {
		if err := pages(ctx, opts, list.page); err != nil {
			c.miss("list "+list.resource, "", "reach is unknown", err, func() { into.Incomplete = true })
		}
	}
}

// appendPage adds the objects of a chunk without what is not needed of them.
func appendPage[T any, P interface {
	*T
	metav1.Object
}](c *collector, into *[]T, list metav1.ListInterface, items func() []T, err error) (string, int64, error) {
	if err != nil {
		return "", 0, err
	}
	page := items()
	for i := range page {
		P(&page[i]).SetManagedFields(nil)
		P(&page[i]).SetAnnotations(nil)
	}
	*into = append(*into, page...)
	c.count(len(page))
	return list.GetContinue(), chunk, nil
}

// trackingConfigMap says since when the API server records uses of legacy tokens.
const trackingConfigMap = "kube-apiserver-legacy-service-account-token-tracking"

func (c *collector) readTracking(ctx context.Context) {
	configMap, err := c.Client.CoreV1().ConfigMaps(metav1.NamespaceSystem).Get(ctx, trackingConfigMap, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err): // the API server records nothing
	case err != nil:
		c.miss("get configmaps "+trackingConfigMap, metav1.NamespaceSystem, "whether a token without a recorded use was never used is unknown", err, func() { c.result.Unread.Tracking = true })
	default:
		c.result.TrackedSince, _ = time.Parse(time.DateOnly, configMap.Data["since"])
	}
}

func (c *collector) readKeys(ctx context.Context) {
	set, err := Published(ctx, c.Client)
	if err != nil {
		c.miss("get /openid/v1/jwks", "", "whether the API server has the key of a token is unknown", err, func() { c.result.Unread.Keys = true })
		return
	}
	c.result.Published = set
}

// Published returns the keys that the API server publishes.
func Published(ctx context.Context, client kubernetes.Interface) (*keys.Set, error) {
	body, err := client.Discovery().RESTClient().Get().AbsPath("/openid/v1/jwks").SetHeader("Accept", "application/jwk-set+json").DoRaw(ctx)
	if err != nil {
		return nil, err
	}
	found, _, err := keys.ParseJWKS(body)
	if err != nil {
		return nil, fmt.Errorf("the answer of /openid/v1/jwks %w", err)
	}
	return keys.NewVerificationSet(found...), nil
}

func asStatus(err error, status *apierrors.APIStatus) bool { return errors.As(err, status) }
