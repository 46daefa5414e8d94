package podadmission

import (
	"context"
	"errors"
	"fmt"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	toolscache "k8s.io/client-go/tools/cache"

	"github.com/sakeeper/sakeeper/pkg/podadmission/rules"
)

// Config is what a reviewer needs. Settings and Awaited may be left out, and
// Secrets unless the settings say that tokens come from Secrets.
type Config struct {
	// Accounts caches all ServiceAccounts; [Accounts] makes it.
	Accounts toolscache.TypedSharedIndexInformer[*Account]
	// Client reads a ServiceAccount that is not in the cache.
	Client typedcorev1.ServiceAccountsGetter
	// Secrets reads token Secrets.
	Secrets  typedcorev1.SecretsGetter
	Settings rules.Settings
	// Awaited names the ServiceAccounts that a controller makes in every namespace,
	// so that a pod waits for them; "default" is always one.
	Awaited []string
}

// Reviewer answers reviews. It is safe for concurrent use.
type Reviewer struct {
	accounts *accounts
	secrets  typedcorev1.SecretsGetter
	settings rules.Settings
}

// New checks cfg and registers with the informer, which the caller starts.
func New(cfg Config) (*Reviewer, error) {
	switch {
	case cfg.Accounts == nil, cfg.Client == nil:
		return nil, errors.New("podreview: Accounts and Client are required")
	case cfg.Settings.TokenVolumeSource == rules.SecretTokens && cfg.Secrets == nil:
		return nil, errors.New("podreview: Secrets is required where tokens come from Secrets")
	}
	if err := cfg.Settings.Check(); err != nil {
		return nil, fmt.Errorf("podreview: %w", err)
	}
	found, err := newAccounts(cfg)
	if err != nil {
		return nil, err
	}
	return &Reviewer{accounts: found, secrets: cfg.Secrets, settings: cfg.Settings}, nil
}

// Ready tells whether the cache is filled. Reviews are answered right before that
// too, by a live read each.
func (r *Reviewer) Ready() bool { return r.accounts.ready() }

// Mutate answers a review by which a pod may be changed: it gets what it should have
// from its ServiceAccount, unless it is refused.
//
// The end of ctx is taken for the moment at which nobody waits for the answer any
// more. An error is returned where there is no request to answer.
func (r *Reviewer) Mutate(ctx context.Context, request *admissionv1.AdmissionRequest) (*admissionv1.AdmissionResponse, error) {
	return answer(request, func() ([]byte, error) {
		matter, err := operationOf(request)
		if err != nil || matter != creation { // ephemeral containers get nothing
			return nil, err
		}
		pod, err := decode(request)
		if err != nil {
			return nil, err
		}
		return r.mutate(ctx, pod)
	})
}

// Validate answers a review by which a pod may only be refused; see [Reviewer.Mutate].
func (r *Reviewer) Validate(ctx context.Context, request *admissionv1.AdmissionRequest) (*admissionv1.AdmissionResponse, error) {
	return answer(request, func() ([]byte, error) {
		matter, err := operationOf(request)
		if err != nil || matter == nothing {
			return nil, err
		}
		pod, err := decode(request)
		if err != nil {
			return nil, err
		}
		if matter == ephemeralContainers {
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

// accountOf is the ServiceAccount of a pod that is being created, nil where it needs
// none.
func (r *Reviewer) accountOf(ctx context.Context, pod *corev1.Pod) (*corev1.ServiceAccount, error) {
	if !rules.NeedsAccount(pod) {
		return nil, nil //nolint:nilnil // none is an answer
	}
	account, err := r.accounts.get(ctx, toolscache.ObjectName{Namespace: pod.Namespace, Name: rules.AccountName(pod)})
	if err != nil {
		return nil, rules.LookupFailed(pod, err)
	}
	return account, nil
}

// tokenSecretOf is the name of the first token Secret that account lists, empty
// where there is none or none is needed.
func (r *Reviewer) tokenSecretOf(ctx context.Context, pod *corev1.Pod, account *corev1.ServiceAccount) (string, error) {
	if r.settings.TokenVolumeSource != rules.SecretTokens || !rules.NeedsToken(pod, account) {
		return "", nil
	}
	ctx, cancel := withReserve(ctx)
	defer cancel()
	for _, listed := range account.Secrets {
		secret, err := r.secrets.Secrets(pod.Namespace).Get(ctx, listed.Name, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err): // the list may name what is gone
		case err != nil:
			return "", rules.TokenLookupFailed(pod, err)
		case rules.IsToken(secret, account):
			return secret.Name, nil
		}
	}
	return "", nil
}

// answer makes the response of what decide says: an error is a refusal.
func answer(request *admissionv1.AdmissionRequest, decide func() (patch []byte, err error)) (*admissionv1.AdmissionResponse, error) {
	switch {
	case request == nil:
		return nil, errors.New("the review has no request")
	case request.UID == "":
		return nil, errors.New("the request has no uid")
	}
	changed, err := decide()
	if err == nil {
		response := &admissionv1.AdmissionResponse{UID: request.UID, Allowed: true}
		if changed != nil {
			response.Patch, response.PatchType = changed, new(admissionv1.PatchTypeJSONPatch)
		}
		return response, nil
	}
	refused := apierrors.APIStatus(nil)
	if !errors.As(err, &refused) {
		return nil, err
	}
	return &admissionv1.AdmissionResponse{UID: request.UID, Result: new(refused.Status())}, nil
}
