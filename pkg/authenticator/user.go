package authenticator

import (
	authenticationv1 "k8s.io/api/authentication/v1"

	"github.com/sakeeper/sakeeper/pkg/token"
)

// Names of users and groups, as kube-apiserver makes them.
const (
	usernamePrefix     = "system:serviceaccount:"
	groupAll           = "system:serviceaccounts"
	groupAuthenticated = "system:authenticated"
)

// Keys of UserInfo.Extra, as kube-apiserver names them (KEP-4193; those of webhook configurations
// since Kubernetes 1.37).
const (
	extraPodName      = "authentication.kubernetes.io/pod-name"
	extraPodUID       = "authentication.kubernetes.io/pod-uid"
	extraNodeName     = "authentication.kubernetes.io/node-name"
	extraNodeUID      = "authentication.kubernetes.io/node-uid"
	extraCredentialID = "authentication.kubernetes.io/credential-id"

	extraValidatingWebhookName    = "authentication.kubernetes.io/validatingwebhookconfiguration-name"
	extraValidatingWebhookUID     = "authentication.kubernetes.io/validatingwebhookconfiguration-uid"
	extraMutatingWebhookName      = "authentication.kubernetes.io/mutatingwebhookconfiguration-name"
	extraMutatingWebhookUID       = "authentication.kubernetes.io/mutatingwebhookconfiguration-uid"
	extraAdmissionReviewAPIGroups = "attestation.authentication.kubernetes.io/admissionReviewAPIGroups"
)

func userOf(c token.Claims) authenticationv1.UserInfo {
	user := authenticationv1.UserInfo{
		Username: usernamePrefix + c.Namespace + ":" + c.ServiceAccount.Name,
		UID:      c.ServiceAccount.UID,
		Groups:   []string{groupAll, groupAll + ":" + c.Namespace, groupAuthenticated},
		Extra:    map[string]authenticationv1.ExtraValue{},
	}
	addRef := func(ref *token.Ref, nameKey, uidKey string) {
		if ref != nil && ref.Name != "" && ref.UID != "" {
			user.Extra[nameKey], user.Extra[uidKey] = authenticationv1.ExtraValue{ref.Name}, authenticationv1.ExtraValue{ref.UID}
		}
	}
	addRef(c.Pod, extraPodName, extraPodUID)
	addRef(c.ValidatingWebhookConfiguration, extraValidatingWebhookName, extraValidatingWebhookUID)
	addRef(c.MutatingWebhookConfiguration, extraMutatingWebhookName, extraMutatingWebhookUID)
	if len(c.AdmissionReviewAPIGroups) > 0 {
		user.Extra[extraAdmissionReviewAPIGroups] = c.AdmissionReviewAPIGroups
	}
	if c.Node != nil && c.Node.Name != "" {
		user.Extra[extraNodeName] = authenticationv1.ExtraValue{c.Node.Name}
		if c.Node.UID != "" {
			user.Extra[extraNodeUID] = authenticationv1.ExtraValue{c.Node.UID}
		}
	}
	if c.ID != "" && c.Legacy == nil {
		user.Extra[extraCredentialID] = authenticationv1.ExtraValue{"JTI=" + c.ID}
	}
	return user
}

// withPrefix returns the user of a trusted issuer. No group begins with "system:", because the
// prefix does not.
func withPrefix(prefix string, user authenticationv1.UserInfo) authenticationv1.UserInfo {
	user.Username = prefix + user.Username
	var groups []string
	for _, group := range user.Groups {
		if group != groupAuthenticated {
			groups = append(groups, prefix+group)
		}
	}
	user.Groups = groups
	return user
}
