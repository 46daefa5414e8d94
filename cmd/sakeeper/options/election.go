package options

import (
	"fmt"
	"time"

	"github.com/spf13/pflag"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/sakeeper/sakeeper/pkg/kube"
)

// Election describes the Lease by which replicas elect the one that works.
type Election struct {
	Enabled                                   bool
	Namespace, Name                           string
	LeaseDuration, RenewDeadline, RetryPeriod time.Duration
}

// NewElection returns the defaults, with the name of the Lease.
func NewElection(name string) *Election {
	return &Election{
		Enabled: true, Name: name,
		LeaseDuration: 15 * time.Second, RenewDeadline: 10 * time.Second, RetryPeriod: 2 * time.Second,
	}
}

// AddFlags adds the flags to fs.
func (o *Election) AddFlags(fs *pflag.FlagSet) {
	fs.BoolVar(&o.Enabled, "leader-elect", o.Enabled,
		"Work only while holding a Lease, so that several replicas can run.")
	fs.StringVar(&o.Name, "leader-elect-resource-name", o.Name, "Name of the Lease.")
	fs.StringVar(&o.Namespace, "leader-elect-resource-namespace", o.Namespace,
		"Namespace of the Lease. Empty: the namespace of the pod, and kube-system outside a cluster.")
	fs.DurationVar(&o.LeaseDuration, "leader-elect-lease-duration", o.LeaseDuration,
		"How long others wait before they take a Lease that is not renewed.")
	fs.DurationVar(&o.RenewDeadline, "leader-elect-renew-deadline", o.RenewDeadline,
		"How long the leader tries to renew before it stops. Less than the lease duration.")
	fs.DurationVar(&o.RetryPeriod, "leader-elect-retry-period", o.RetryPeriod,
		"Time between two tries to get or renew the Lease.")
}

// Validate returns what is wrong with the flags.
func (o *Election) Validate() []error {
	if !o.Enabled {
		return nil
	}
	var errs []error
	for _, problem := range validation.IsDNS1123Subdomain(o.Name) {
		errs = append(errs, fmt.Errorf("--leader-elect-resource-name: %q: %s", o.Name, problem))
	}
	if o.RetryPeriod <= 0 {
		errs = append(errs, fmt.Errorf("--leader-elect-retry-period: %v is not positive", o.RetryPeriod))
	}
	if o.RenewDeadline <= o.RetryPeriod*12/10 {
		errs = append(errs, fmt.Errorf("--leader-elect-renew-deadline: %v is not more than 1.2 times --leader-elect-retry-period (%v)", o.RenewDeadline, o.RetryPeriod))
	}
	if o.LeaseDuration <= o.RenewDeadline {
		errs = append(errs, fmt.Errorf("--leader-elect-lease-duration: %v is not more than --leader-elect-renew-deadline (%v)", o.LeaseDuration, o.RenewDeadline))
	}
	return errs
}

// LeaseNamespace returns the namespace of the Lease, which is never empty.
func (o *Election) LeaseNamespace() string {
	if o.Namespace != "" {
		return o.Namespace
	}
	return kube.Namespace(metav1.NamespaceSystem)
}

// Reference refers to the Lease in events.
func (o *Election) Reference() *corev1.ObjectReference {
	return &corev1.ObjectReference{Kind: "Lease", APIVersion: "coordination.k8s.io/v1", Namespace: o.LeaseNamespace(), Name: o.Name}
}
