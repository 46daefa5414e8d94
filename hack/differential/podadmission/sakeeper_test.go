package podadmission

import (
	"errors"
	"fmt"

	gocmp "github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apiserver "k8s.io/apiserver/pkg/admission"

	"github.com/sakeeper/sakeeper/pkg/admission"
	"github.com/sakeeper/sakeeper/pkg/podsecrets"
)

// mutate is our first webhook: it returns the pod with its changes, or a refusal.
// Its pod is made from the changes alone, as a patch is.
func mutate(r *request, given *corev1.Pod) (*corev1.Pod, *outcome, error) {
	pod := given.DeepCopy()
	if r.Operation != apiserver.Create || r.Subresource != "" {
		return pod, nil, nil
	}
	named := admission.Default(pod)
	account, err := lookup(r, pod)
	if err != nil {
		refused, err := denied(err)

		return nil, refused, err
	}
	changes, err := admission.Mutate(pod, account, "", settings(r))
	if err != nil {
		refused, err := denied(err)

		return nil, refused, err
	}
	patched := given.DeepCopy()
	if named {
		patched.Spec.ServiceAccountName = pod.Spec.ServiceAccountName
	}
	if patch(&patched.Spec, changes); !equal(pod, patched) {
		return nil, nil, fmt.Errorf("what Mutate says is not what it did (-says +did):\n%s", gocmp.Diff(patched, pod))
	}

	return patched, nil, nil
}

// patch makes the changes, as whoever only has those does.
func patch(spec *corev1.PodSpec, changes admission.Changes) {
	if len(changes.PullSecrets) > 0 {
		spec.ImagePullSecrets = changes.PullSecrets
	}
	if changes.Volume != nil {
		spec.Volumes = append(spec.Volumes, *changes.Volume)
	}
	for _, place := range changes.Mounted {
		for at, container := range podsecrets.Containers(spec) {
			if at == place {
				container.VolumeMounts = append(container.VolumeMounts, changes.Mount)
			}
		}
	}
}

// validate is our second webhook: it refuses the pod, or not.
func validate(r *request, pod *corev1.Pod) (*outcome, error) {
	switch {
	case r.Operation == apiserver.Create && r.Subresource == "":
		account, err := lookup(r, pod)
		if err == nil {
			err = admission.Validate(pod, account, settings(r))
		}

		return denied(err)
	case r.Operation == apiserver.Update && r.Subresource == "ephemeralcontainers":
		var account *corev1.ServiceAccount
		var err error
		if name := admission.AccountName(pod); name != "" {
			account, err = find(r, pod, name)
		}
		if err == nil {
			err = admission.ValidateEphemeralContainers(pod, account, settings(r))
		}

		return denied(err)
	default:
		return nil, nil
	}
}

func settings(r *request) admission.Settings {
	return admission.Settings{LimitSecretReferences: r.LimitSecretReferences}
}

func lookup(r *request, pod *corev1.Pod) (*corev1.ServiceAccount, error) {
	if !admission.NeedsAccount(pod) {
		return nil, nil
	}

	return find(r, pod, admission.AccountName(pod))
}

func find(r *request, pod *corev1.Pod, name string) (*corev1.ServiceAccount, error) {
	account, _ := r.account(name)
	if account == nil {
		return nil, admission.LookupFailed(pod, admission.AccountNotFound(name))
	}

	return account, nil
}

// denied is what a client gets to see of our answer; nil is no refusal.
func denied(err error) (*outcome, error) {
	if err == nil {
		return nil, nil
	}
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return nil, err
	}
	answer := status.Status()
	o := refused(&answer)

	return &o, nil
}
