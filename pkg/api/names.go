package api

import "time"

// ServiceAccountDir is where a container finds the token, the CA and the namespace of its
// pod's ServiceAccount.
const ServiceAccountDir = "/var/run/secrets/kubernetes.io/serviceaccount"

// ControllersLease is the Lease whose holder runs the controllers.
const ControllersLease = "sakeeper-controllers"

// RootCAConfigMap is the ConfigMap with the root CA in every namespace.
const RootCAConfigMap = "kube-root-ca.crt"

// DefaultServiceAccount is the ServiceAccount that every namespace has, and that a pod gets
// which names none.
const DefaultServiceAccount = "default"

// Defaults of settings that several packages share.
const (
	// DefaultWorkers is how many objects a controller handles at a time. With 10, the requests
	// of one controller keep a local API server busy; more only lengthen its queue.
	DefaultWorkers = 10
	// DefaultCleanUpPeriod is how long a legacy token must be unused before it is marked
	// invalid, and marked before its Secret is deleted. As in Kubernetes (KEP-2799).
	DefaultCleanUpPeriod = 8760 * time.Hour
	// DefaultCleanUpInterval is the time between two searches for unused tokens.
	DefaultCleanUpInterval = 24 * time.Hour
	// DefaultResignQPS is how many tokens are replaced in a second.
	DefaultResignQPS = 10
	// DefaultRefreshHint is how often kube-apiserver asks a signer for its keys.
	DefaultRefreshHint = time.Minute
	// DefaultMaxTokenExpiration is the longest lifetime of tokens that a signer offers.
	DefaultMaxTokenExpiration = 8760 * time.Hour
)
