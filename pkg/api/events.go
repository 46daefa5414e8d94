package api

// Reasons of events about namespaces and ServiceAccounts.
const (
	// ReasonFailedCreateServiceAccount is the event on a namespace if the API server refuses
	// one of its ServiceAccounts, for example because of a quota.
	ReasonFailedCreateServiceAccount = "FailedCreateServiceAccount"
	// ReasonFailedPublishRootCA is the event on a namespace if the API server refuses to create
	// or change its kube-root-ca.crt, for example because the ConfigMap is immutable.
	ReasonFailedPublishRootCA = "FailedPublishRootCA"
	// ReasonFailedGenerateToken is the event on a ServiceAccount if the API server refuses its
	// token Secret or the reference to it, for example because of a quota.
	ReasonFailedGenerateToken = "FailedGenerateToken"
	// ReasonUnusableSecretReference is the event on a ServiceAccount if its secrets have an entry
	// without a name, or with one that no Secret can have.
	ReasonUnusableSecretReference = "UnusableSecretReference"
	// ReasonDeletedTokenSecret is the event on a namespace if a token Secret in it was deleted,
	// because its ServiceAccount does not exist or has another UID than the Secret names.
	ReasonDeletedTokenSecret = "DeletedTokenSecret"
)

// Reasons of events on token Secrets (type kubernetes.io/service-account-token).
const (
	// ReasonFailedUpdateTokenSecret: the API server refuses the change, for example because the
	// Secret is immutable.
	ReasonFailedUpdateTokenSecret = "FailedUpdateTokenSecret"
	// ReasonResignedToken: the token was replaced by a new one. Copies of the old one are
	// refused from now on.
	ReasonResignedToken = "ResignedToken"
	// ReasonImpossibleServiceAccount: no ServiceAccount can have the name in the annotation.
	ReasonImpossibleServiceAccount = "ImpossibleServiceAccount"
	// ReasonKeptToken: the token was not made for this Secret, or the API server may refuse it, and
	// it is not replaced: the API server accepts it, or a setting says so.
	ReasonKeptToken = "KeptToken"
	// ReasonWrongSecretType: the Secret names a ServiceAccount as a token Secret does, but is of
	// type Opaque: it gets no token, and its type cannot be changed.
	ReasonWrongSecretType = "WrongSecretType"
)

// Reasons of events of the cleaner, on token Secrets except for the last.
const (
	// ReasonMarkedUnusedToken: the API server refuses the token of this Secret from now on.
	ReasonMarkedUnusedToken = "MarkedUnusedToken"
	// ReasonDeletedUnusedToken: the Secret was deleted.
	ReasonDeletedUnusedToken = "DeletedUnusedToken"
	// ReasonWouldMarkUnusedToken: without dry run, the token would be marked.
	ReasonWouldMarkUnusedToken = "WouldMarkUnusedToken"
	// ReasonWouldDeleteUnusedToken: without dry run, the Secret would be deleted.
	ReasonWouldDeleteUnusedToken = "WouldDeleteUnusedToken"
	// ReasonFailedTokenCleanUp: the API server refuses to mark or delete the Secret.
	ReasonFailedTokenCleanUp = "FailedTokenCleanUp"
	// ReasonInvalidCleanUpSetting: an annotation on the Secret or its namespace has no valid
	// value.
	ReasonInvalidCleanUpSetting = "InvalidCleanUpSetting"
	// ReasonUnreadableLastUsed: the label with the date of the last use holds no date.
	ReasonUnreadableLastUsed = "UnreadableLastUsed"
	// ReasonUnusableTokenTracking is on the ConfigMap kube-system/
	// kube-apiserver-legacy-service-account-token-tracking if it does not say since when uses
	// are recorded.
	ReasonUnusableTokenTracking = "UnusableTokenTracking"
)

// Reasons of events on managed Secrets (label [TokenLabel]).
const (
	// ReasonTokenNotServed: the label of the namespace does not allow token requests.
	ReasonTokenNotServed = "TokenNotServed"
	// ReasonUnusableTokenSecret: the Secret cannot hold a managed token.
	ReasonUnusableTokenSecret = "UnusableTokenSecret" //nolint:gosec // no credential
	// ReasonInvalidTokenSetting: an annotation has no valid value.
	ReasonInvalidTokenSetting = "InvalidTokenSetting"
	// ReasonNoServiceAccount: the ServiceAccount does not exist.
	ReasonNoServiceAccount = "NoServiceAccount"
	// ReasonRemovedToken: the token was removed because its ServiceAccount is gone.
	ReasonRemovedToken = "RemovedToken"
	// ReasonFailedTokenRenewal: a new token could not be requested or written.
	ReasonFailedTokenRenewal = "FailedTokenRenewal"
)

// Reasons of events on the Secret that holds the webhook's certificates.
const (
	// ReasonChangedCertificates: certificates were made, or old ones dropped.
	ReasonChangedCertificates = "ChangedCertificates"
	// ReasonPublishedCABundle: a webhook configuration got its caBundle.
	ReasonPublishedCABundle = "PublishedCABundle"
	// ReasonFilledInWebhooks: a webhook configuration got its list of webhooks.
	ReasonFilledInWebhooks = "FilledInWebhooks"
	// ReasonInvalidWebhooks: the list of webhooks in an annotation cannot be used.
	ReasonInvalidWebhooks = "InvalidWebhooks"
	// ReasonSecretMissing: the Secret does not exist.
	ReasonSecretMissing = "SecretMissing"
	// ReasonSecretNotOurs: the Secret has another type, or contents that sakeeper did not write.
	ReasonSecretNotOurs = "SecretNotOurs"
	// ReasonClockBehind: the clock of the process is too wrong to make certificates.
	ReasonClockBehind = "ClockBehind"
	// ReasonWritesUndone: another client keeps reverting the certificates or the caBundle.
	ReasonWritesUndone = "WritesUndone"
	// ReasonFailedWrite: the API server refuses a write.
	ReasonFailedWrite = "FailedWrite"
)

// Reasons of other events.
const (
	// ReasonLeftAlone is on any object that another client keeps changing back. It is written
	// again ever more slowly, at least every five minutes.
	ReasonLeftAlone = "LeftAlone"
	// ReasonReloadFailed is on the Lease if a changed key or CA file cannot be used.
	ReasonReloadFailed = "ReloadFailed"
	// ReasonSigningKeyNotPublished is on the Lease if the signing key is not among the keys that the
	// API server publishes, so that no tokens are written.
	ReasonSigningKeyNotPublished = "SigningKeyNotPublished"
	// ReasonSigningKeyUnchecked is on the Lease if the API server does not publish its keys, so that
	// tokens are written without a check.
	ReasonSigningKeyUnchecked = "SigningKeyUnchecked"
	// ReasonRootCADiffers is on kube-system/kube-root-ca.crt if --root-ca-file has another CA
	// than the one that is published.
	ReasonRootCADiffers = "RootCADiffers"
	// ReasonRootCARefused is on the Lease if the root CA, at a start or after a change, does not verify
	// the API server, which the published one does: that one stays.
	ReasonRootCARefused = "RootCARefused"
	// ReasonRootCAUnverified is on the Lease if neither a new root CA, which is published, nor the one
	// that was published verifies the API server.
	ReasonRootCAUnverified = "RootCAUnverified"
	// ReasonMissingRight is on the Lease, or on the Service of the webhook, if a right is missing
	// that the process has tried to use. The event names the role that has it.
	ReasonMissingRight = "MissingRight"
)

// Reasons of events about ServiceAccountTemplates.
const (
	// ReasonFailedApplyTemplate is on a ServiceAccount that the API server refuses to change as its
	// templates say, or on the namespace if it refuses to create it; and on a template whose status it
	// refuses.
	ReasonFailedApplyTemplate = "FailedApplyTemplate"
	// ReasonTemplateConflict is on a template if fields are not set, because another field manager or
	// template has set them.
	ReasonTemplateConflict = "TemplateConflict"
	// ReasonTemplateNotApplied is on a template if a selector cannot be parsed, or a ServiceAccount
	// cannot be written.
	ReasonTemplateNotApplied = "TemplateNotApplied"
	// ReasonFailedCopyPullSecret is on a copy of a pull secret that the API server refuses to change or
	// delete, or on the namespace if it refuses to create it; and on a template whose status it refuses.
	ReasonFailedCopyPullSecret = "FailedCopyPullSecret"
	// ReasonPullSecretNotCopied is on a template if a source cannot be used, or a copy cannot be
	// written.
	ReasonPullSecretNotCopied = "PullSecretNotCopied"
)
