package api

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

// TemplateFieldManager is the field manager that applies ServiceAccountTemplates.
const TemplateFieldManager = "sakeeper-account-templates"

// PullSecretFieldManager is the field manager that writes copies of pull secrets, and the condition
// that tells of them.
const PullSecretFieldManager = "sakeeper-pull-secret-copies" //nolint:gosec // no credential
