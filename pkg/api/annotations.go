package api

// AnnotationPrefix begins the names of all annotations and labels of sakeeper.
const AnnotationPrefix = "sakeeper.io/"

// The annotations and labels by which people tell the controllers what to do with
// an object. Of the annotations of any object, these are the ones that are cached.
const (
	// KeepAnnotation set to "true" on a token Secret or its namespace keeps the
	// Secret from being cleaned up.
	KeepAnnotation = "sakeeper.io/keep"
	// CleanUpUnusedAnnotation on a token Secret or its namespace is a duration: a
	// token that was not used for that long is cleaned up, also when no
	// ServiceAccount refers to it.
	CleanUpUnusedAnnotation = "sakeeper.io/clean-up-unused"
	// ResignAnnotation set to "never" on a token Secret or its namespace keeps the
	// token from being signed anew, dead or alive.
	ResignAnnotation = "sakeeper.io/resign"
	// AutoTokenLabel set to "true" on a ServiceAccount or its namespace asks for a
	// token Secret.
	AutoTokenLabel = "sakeeper.io/auto-token"
	// CleanedUpAnnotation on a ServiceAccount is the date on which its generated
	// token was cleaned up for lack of use. It gets no new one unasked.
	CleanedUpAnnotation = "sakeeper.io/token-cleaned-up"
	// ReviewedAnnotation on a token Secret says that the API server accepts its token, so
	// that it is not asked again by the next process. Controllers write it.
	ReviewedAnnotation = "sakeeper.io/token-review"
)

// What admission policies read.
//
//nolint:gosec // names of labels and annotations, no credentials
const (
	// MaxTokenLifetimeAnnotation on a namespace or a ServiceAccount is the longest lifetime of
	// its tokens, a duration such as 24h.
	MaxTokenLifetimeAnnotation = "sakeeper.io/max-token-lifetime"
	// AllowedAudiencesAnnotation on a namespace or a ServiceAccount are the audiences that its
	// tokens may have besides those of the API server, with commas between them.
	AllowedAudiencesAnnotation = "sakeeper.io/allowed-audiences"
	// TokenSecretsLabel set to [TokenSecretsAllowed] on a namespace allows new Secrets of type
	// kubernetes.io/service-account-token.
	TokenSecretsLabel   = "sakeeper.io/token-secrets"
	TokenSecretsAllowed = "allowed"
)

// TemplatesAtCreationAnnotation on a ServiceAccount is what the admission policy account-templates
// notes between templates, which it evaluates one after the other, in four parts with semicolons:
// <priority>/<template>/<value> of the template that decides about automountServiceAccountToken so
// far, with the value that the creator of the account had set; the pull secrets of all templates so
// far; "force" if one of these says so; the pull secrets that the creator had set. It is owned by
// [TemplateFieldManager]: what others write there does not count, and is overwritten. The
// service-account-template-controller removes it.
const TemplatesAtCreationAnnotation = "sakeeper.io/templates-at-creation"

// What a Secret says about a token that is renewed, and what is noted on it.
//
//nolint:gosec // names of labels and annotations, no credentials
const (
	// TokenLabel set to [TokenManaged] on a Secret asks for a token that expires and
	// is renewed.
	TokenLabel   = "sakeeper.io/token"
	TokenManaged = "managed"
	// TokenRequestsLabel set to [TokenRequestsAllowed] on a namespace lets its Secrets
	// ask for tokens of its ServiceAccounts.
	TokenRequestsLabel   = "sakeeper.io/token-requests"
	TokenRequestsAllowed = "allowed"

	// ServiceAccountAnnotation is the ServiceAccount, in the namespace of the Secret.
	ServiceAccountAnnotation = "sakeeper.io/service-account"
	// AudiencesAnnotation are the token's audiences, with commas between them.
	AudiencesAnnotation = "sakeeper.io/audiences"
	// LifetimeAnnotation is how long a token should live, a duration.
	LifetimeAnnotation = "sakeeper.io/lifetime"
	// FormatAnnotation is the form in which the Secret holds the token.
	FormatAnnotation = "sakeeper.io/format"
	// ServerAnnotation is the URL of the API server in the formats that have one.
	ServerAnnotation = "sakeeper.io/server"
	// TokenKeyAnnotation is the key of the token in the custom format.
	TokenKeyAnnotation = "sakeeper.io/token-key"
	// RotateAnnotation renews the token at once when it gets another value.
	RotateAnnotation = "sakeeper.io/rotate"

	// IssuedAtAnnotation and ExpiresAtAnnotation are the times in the token's claims,
	// as RFC 3339.
	IssuedAtAnnotation  = "sakeeper.io/issued-at"
	ExpiresAtAnnotation = "sakeeper.io/expires-at"
	// CredentialIDAnnotation is what audit logs call the token.
	CredentialIDAnnotation = "sakeeper.io/credential-id"
	// RotatedAnnotation is the value of [RotateAnnotation] that was answered.
	RotatedAnnotation = "sakeeper.io/rotated"
	// FilledForAnnotation is the ServiceAccount whose token it is.
	FilledForAnnotation = "sakeeper.io/filled-for"
	// FilledKeysAnnotation are the keys of the data that were filled, with commas
	// between them.
	FilledKeysAnnotation = "sakeeper.io/filled-keys"
	// FilledHashAnnotation is a hash of all that the token was asked for with, and of
	// what was filled in.
	FilledHashAnnotation = "sakeeper.io/filled-hash"
	// ProblemAnnotation says what keeps the token from being filled or renewed, or which
	// setting does not exist. Nothing is wrong with a Secret without it.
	ProblemAnnotation = "sakeeper.io/problem"
)

// What is noted on copies of pull secrets.
const (
	// PullSecretLabel set to [PullSecretCopy] on a Secret says that it is a copy, which its
	// ServiceAccountTemplate keeps and deletes. Without this label, the Secret is the user's.
	PullSecretLabel = "sakeeper.io/pull-secret"
	PullSecretCopy  = "copy"
	// CopiedFromAnnotation is the source, as namespace/name.
	CopiedFromAnnotation = "sakeeper.io/copied-from"
	// CopiedVersionAnnotation is the UID and the resourceVersion of the source, with a slash between
	// them.
	CopiedVersionAnnotation = "sakeeper.io/copied-version"
)

// What a webhook configuration says about its list of webhooks.
const (
	// WebhooksAnnotation on a webhook configuration of sakeeper webhook is a list of webhooks
	// (YAML), which a replica fills in when it is ready, if the configuration has none.
	WebhooksAnnotation = "sakeeper.io/webhooks"
	// FilledWebhooksAnnotation identifies the list that was filled in.
	FilledWebhooksAnnotation = "sakeeper.io/filled-webhooks"
)
