package podadmission

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	toolscache "k8s.io/client-go/tools/cache"

	"github.com/sakeeper/sakeeper/pkg/podadmission/rules"
	"github.com/sakeeper/sakeeper/pkg/webhook/review"
)

// Config configures a [Reviewer].
type Config struct {
	// Accounts is the informer that [Accounts] makes. The caller runs it. Either Accounts or
	// ServiceAccounts is required.
	Accounts toolscache.TypedSharedIndexInformer[*Account]
	// ServiceAccounts is an informer of the caller's for *corev1.ServiceAccount, used instead of
	// Accounts. It may be filtered: an object that it does not have is read live. It must not
	// drop the annotation [rules.EnforceAnnotation], secrets, imagePullSecrets or
	// automountServiceAccountToken of an object, because the rules read them. Its objects are
	// not changed.
	ServiceAccounts toolscache.SharedIndexInformer
	// Client reads a ServiceAccount that is not in the cache. Required.
	Client typedcorev1.ServiceAccountsGetter
	// Secrets reads token Secrets. Required if Settings.TokenVolumeSource is
	// [rules.SecretTokens].
	Secrets typedcorev1.SecretsGetter
	// Settings are those of the rules. The zero value has the rules of kube-apiserver.
	Settings rules.Settings
	// Awaited names the ServiceAccounts that a controller creates in every namespace. A request
	// for a pod waits up to two seconds for one of these, and for "default" in any case.
	Awaited []string
}

// Reviewer decides admission reviews of pods. It is safe for concurrent use.
type Reviewer struct {
	accounts *accounts
	secrets  typedcorev1.SecretsGetter
	settings rules.Settings
	inFlight review.InFlight
}

// New checks cfg, and adds a handler to the informer.
func New(cfg Config) (*Reviewer, error) {
	switch {
	case cfg.Client == nil, cfg.Accounts == nil && cfg.ServiceAccounts == nil:
		return nil, errors.New("podadmission: Client and either Accounts or ServiceAccounts are required")
	case cfg.Accounts != nil && cfg.ServiceAccounts != nil:
		return nil, errors.New("podadmission: Accounts and ServiceAccounts exclude each other")
	case cfg.Settings.TokenVolumeSource == rules.SecretTokens && cfg.Secrets == nil:
		return nil, errors.New("podadmission: Secrets is required if tokens come from Secrets")
	}
	if err := cfg.Settings.Check(); err != nil {
		return nil, fmt.Errorf("podadmission: %w", err)
	}
	found, err := newAccounts(cfg)
	if err != nil {
		return nil, err
	}
	return &Reviewer{accounts: found, secrets: cfg.Secrets, settings: cfg.Settings}, nil
}

// Ready returns true if the informer has delivered its initial list. Reviews are decided correctly
// before that too, with a live read each.
func (r *Reviewer) Ready() bool { return r.accounts.ready() }

// MutateHandler answers AdmissionReviews of the version v1 with [Reviewer.Mutate], on any path. It
// is for servers other than pkg/webhook; the server must serve HTTPS, and limit the header and the
// time to read a request. The handlers of a Reviewer share one limit of 64 MiB for the bodies that
// they read.
func (r *Reviewer) MutateHandler() http.Handler { return review.NewHandler(r.Mutate, &r.inFlight) }

// ValidateHandler answers AdmissionReviews with [Reviewer.Validate]; see [Reviewer.MutateHandler].
func (r *Reviewer) ValidateHandler() http.Handler { return review.NewHandler(r.Validate, &r.inFlight) }

// Mutate decides a request of a mutating webhook. The response refuses the pod, or has a patch
// with what the pod gets from its ServiceAccount. request is not changed.
//
// ctx should end when the client stops waiting: live reads and waits end up to half a second before
// that. Mutate returns an error if request is nil or has no uid, or if it cannot decide.
func (r *Reviewer) Mutate(ctx context.Context, request *admissionv1.AdmissionRequest) (*admissionv1.AdmissionResponse, error) {
	return respond(request, func() ([]byte, error) {
		operation, err := operationOf(request)
		if err != nil || operation != createPod { // ephemeral containers get nothing
			return nil, err
		}
		pod, err := decode(request)
		if err != nil {
			return nil, err
		}
		return r.mutate(ctx, pod)
	})
}

// Validate decides a request of a validating webhook. The response allows or refuses the pod and
// has no patch; for the rest see [Reviewer.Mutate].
func (r *Reviewer) Validate(ctx context.Context, request *admissionv1.AdmissionRequest) (*admissionv1.AdmissionResponse, error) {
	return respond(request, func() ([]byte, error) {
		operation, err := operationOf(request)
		if err != nil || operation == otherOperation {
			return nil, err
		}
		pod, err := decode(request)
		if err != nil {
			return nil, err
		}
		if operation == updateEphemeralContainers {
			return nil, r.validateEphemeralContainers(ctx, pod)
		}
		return nil, r.validate(ctx, pod)
	})
}

func (r *Reviewer) mutate(ctx context.Context, pod *corev1.Pod) ([]byte, error) {
	named := rules.Default(pod)
	account, err := r.accountOf(ctx, pod)
	if err != nil {
		return nil, err
	}
	secret, err := r.tokenSecretOf(ctx, pod, account)
	if err != nil {
		return nil, err
	}
	changes, err := rules.Mutate(pod, account, secret, r.settings)
	if err != nil {
		return nil, err
	}
	if err := rules.Validate(pod, account, r.settings); err != nil {
		return nil, err
	}
	return patch(pod, named, changes)
}

func (r *Reviewer) validate(ctx context.Context, pod *corev1.Pod) error {
	account, err := r.accountOf(ctx, pod)
	if err != nil {
		return err
	}
	return rules.Validate(pod, account, r.settings)
}

func (r *Reviewer) validateEphemeralContainers(ctx context.Context, pod *corev1.Pod) error {
	var account *corev1.ServiceAccount
	if name := rules.AccountName(pod); name != "" {
		var err error
		if account, err = r.accounts.get(ctx, toolscache.ObjectName{Namespace: pod.Namespace, Name: name}); err != nil {
			return rules.LookupFailed(pod, err)
		}
	}
	return rules.ValidateEphemeralContainers(pod, account, r.settings)
}

// accountOf returns the ServiceAccount of a pod that is being created; nil if it needs none.
func (r *Reviewer) accountOf(ctx context.Context, pod *corev1.Pod) (*corev1.ServiceAccount, error) {
	if !rules.NeedsAccount(pod) {
		return nil, nil //nolint:nilnil // a mirror pod needs none
	}
	account, err := r.accounts.get(ctx, toolscache.ObjectName{Namespace: pod.Namespace, Name: rules.AccountName(pod)})
	if err != nil {
		return nil, rules.LookupFailed(pod, err)
	}
	return account, nil
}

// tokenSecretOf returns the name of the first token Secret that account lists; empty if there is
// none, or if none is needed. If one is listed, but has no token yet, it is an error.
func (r *Reviewer) tokenSecretOf(ctx context.Context, pod *corev1.Pod, account *corev1.ServiceAccount) (string, error) {
	if r.settings.TokenVolumeSource != rules.SecretTokens || !rules.NeedsToken(pod, account) {
		return "", nil
	}
	ctx, cancel := withReserve(ctx)
	defer cancel()
	unfilled := ""
	for _, listed := range account.Secrets {
		secret, err := r.secrets.Secrets(pod.Namespace).Get(ctx, listed.Name, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err): // the list may name Secrets that do not exist
		case err != nil:
			return "", rules.TokenLookupFailed(pod, err)
		case rules.IsToken(secret, account):
			return secret.Name, nil
		case unfilled == "" && rules.IsTokenOf(secret, account):
			unfilled = secret.Name
		}
	}
	if unfilled != "" {
		return "", rules.TokenNotFilled(account, unfilled)
	}
	return "", nil
}

// respond calls decide and makes a response: an error with an API status is a refusal.
func respond(request *admissionv1.AdmissionRequest, decide func() (patch []byte, err error)) (*admissionv1.AdmissionResponse, error) {
	switch {
	case request == nil:
		return nil, errors.New("the review has no request")
	case request.UID == "":
		return nil, errors.New("the request has no uid")
	}
	patch, err := decide()
	if err == nil {
		response := &admissionv1.AdmissionResponse{UID: request.UID, Allowed: true}
		if patch != nil {
			response.Patch, response.PatchType = patch, new(admissionv1.PatchTypeJSONPatch)
		}
		return response, nil
	}
	refusal := apierrors.APIStatus(nil)
	if !errors.As(err, &refusal) {
		return nil, err
	}
	return &admissionv1.AdmissionResponse{UID: request.UID, Result: new(refusal.Status())}, nil
}
