package inventory

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sakeeper/sakeeper/pkg/inventory/reach"
	"github.com/sakeeper/sakeeper/pkg/podadmission/secretrefs"
)

// Objects are the reduced objects of a cluster, or of one namespace of it.
type Objects struct {
	// Now is the time for ages and for whether a token has expired.
	Now time.Time
	// Namespace is the only one whose objects were read; empty for all.
	Namespace string
	// UnusedAfter is how long a legacy token must not have been used to count as unused.
	UnusedAfter time.Duration
	// TrackedSince is when the API server began to record uses of legacy tokens; zero if unknown.
	TrackedSince time.Time

	Secrets  []Secret
	Accounts []Account
	Pods     []Pod
	// Owners are the owners of ReplicaSets and Jobs that own pods.
	Owners map[Workload]Workload
	// Policy answers for the reach of accounts. Nil: it is unknown.
	Policy *reach.Policy

	// Unread says which of these could not be read, or not to the end.
	Unread Unread
}

// Unread says what is not known. The zero value is that everything is.
type Unread struct {
	Accounts, Pods bool
	// Keys is true if the keys that the API server publishes are not known.
	Keys bool
	// Secrets is true unless all Secrets of the namespaces were read, of any type: only then a
	// Secret that is not there does not exist.
	Secrets bool
	// Tracking is true if it is not known since when the API server records uses of legacy tokens.
	Tracking bool
}

// DefaultUnusedAfter is the default of Objects.UnusedAfter where users can set it, and the value
// elsewhere.
const DefaultUnusedAfter = 90 * 24 * time.Hour

// Account is a reduced ServiceAccount.
type Account struct {
	reach.Account

	UID types.UID
	// Secrets are the names of the Secrets in the fields secrets and imagePullSecrets.
	Secrets, PullSecrets []string
}

// NewAccount reduces a ServiceAccount.
func NewAccount(sa *corev1.ServiceAccount) Account {
	account := Account{Account: reach.Account{Namespace: sa.Namespace, Name: sa.Name}, UID: sa.UID}
	for _, ref := range sa.Secrets {
		account.Secrets = append(account.Secrets, ref.Name)
	}
	for _, ref := range sa.ImagePullSecrets {
		account.PullSecrets = append(account.PullSecrets, ref.Name)
	}
	return account
}

// Workload is an object that owns pods, or a pod.
type Workload struct {
	Kind      string `json:"kind"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
}

// String returns kind and name, as "Deployment/web".
func (w Workload) String() string { return w.Kind + "/" + w.Name }

// Pod is a reduced pod.
type Pod struct {
	Namespace, Name string
	UID             types.UID
	// Owner is the controller of the pod; zero if it has none.
	Owner Workload
	// Secrets are the Secrets that the pod refers to, by name, with the first field that does.
	Secrets map[string]string
}

// NewPod reduces a pod. One that has ended uses no Secret any more.
func NewPod(pod *corev1.Pod) Pod {
	reduced := Pod{Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID}
	if pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
		return reduced
	}
	for _, owner := range pod.OwnerReferences {
		if owner.Controller != nil && *owner.Controller {
			reduced.Owner = Workload{Kind: owner.Kind, Namespace: pod.Namespace, Name: owner.Name}
		}
	}
	for ref := range secretrefs.All(&pod.Spec) {
		if _, known := reduced.Secrets[ref.Name]; known || ref.Name == "" {
			continue
		}
		if reduced.Secrets == nil {
			reduced.Secrets = map[string]string{}
		}
		reduced.Secrets[ref.Name] = ref.Path()
	}
	return reduced
}
