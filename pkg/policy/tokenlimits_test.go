package policy_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/policy"
)

// request asks for a token as that user, a member of system:masters; as the admin if it is empty.
type request struct {
	user, account string
	seconds       int64
	audiences     []string
	boundToPod    bool
}

func (r request) send(t *testing.T, ctx context.Context, namespace string) error {
	t.Helper()
	client := server.client
	if r.user != "" {
		groups := []string{"system:masters"}
		if strings.HasPrefix(r.user, "system:node:") {
			groups = append(groups, "system:nodes")
		}
		config, err := server.User(r.user, groups...)
		must(t, err)
		client, err = kubernetes.NewForConfig(config)
		must(t, err)
	}
	asked := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{Audiences: r.audiences, ExpirationSeconds: &r.seconds}}
	if r.boundToPod {
		asked.Spec.BoundObjectRef = &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: "running-" + r.account}
	}
	_, err := client.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, r.account, asked, metav1.CreateOptions{})
	return err
}

// tokenPod is a pod with a volume of another kind, and one with the tokens.
func tokenPod(account string, tokens ...corev1.ServiceAccountTokenProjection) *corev1.Pod {
	return newPod(account, func(p *corev1.Pod) {
		sources := []corev1.VolumeProjection{{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: *local("a")}}}
		for i, token := range tokens {
			token.Path = fmt.Sprint("token-", i)
			sources = append(sources, corev1.VolumeProjection{ServiceAccountToken: &token})
		}
		p.Spec.Volumes = []corev1.Volume{
			{Name: "scratch", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
			{Name: "tokens", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: sources}}},
		}
	})
}

func token(seconds int64, audience string) corev1.ServiceAccountTokenProjection {
	return corev1.ServiceAccountTokenProjection{ExpirationSeconds: &seconds, Audience: audience}
}

// installTokenLimits installs the policies in a namespace with these accounts: plain, lowered, raised and broken.
func installTokenLimits(t *testing.T, namespace string, annotations map[string]string, s policy.Settings) {
	t.Helper()
	newNamespace(t, namespace, annotations)
	for name, annotations := range map[string]map[string]string{
		"plain":   nil,
		"lowered": {api.MaxTokenLifetimeAnnotation: "1h30m", api.AllowedAudiencesAnnotation: "vault"},
		"raised":  {api.MaxTokenLifetimeAnnotation: "48h", api.AllowedAudiencesAnnotation: "vault,elsewhere"},
		"broken":  {api.MaxTokenLifetimeAnnotation: "soon"},
		"empty":   {api.MaxTokenLifetimeAnnotation: ""},
	} {
		newAccount(t, namespace, name, annotations)
		running := newPod(name, nil)
		running.Name = "running-" + name
		_, err := server.client.CoreV1().Pods(namespace).Create(t.Context(), running, metav1.CreateOptions{})
		must(t, err)
	}
	newAccount(t, namespace, "last", map[string]string{api.MaxTokenLifetimeAnnotation: "soon"})
	install(t, namespace, policy.TokenLimitsName, s, func(ctx context.Context) error {
		_, errSecret := server.client.CoreV1().Secrets(namespace).Create(ctx, tokenSecret(), dryRun)
		for what, err := range map[string]error{
			"a request by account": request{account: "last", seconds: 600}.send(t, ctx, namespace), "a pod by account": submit(ctx, namespace, newPod("last", nil)),
			"a request": request{account: "plain", seconds: 48 * 3600}.send(t, ctx, namespace), "a pod": submit(ctx, namespace, tokenPod("plain", token(48*3600, ""))),
			"a Secret": errSecret,
		} {
			if err == nil {
				return errors.New(what + " is allowed")
			}
		}
		return nil
	})
}

func tokenSecret() *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "token", Annotations: map[string]string{corev1.ServiceAccountNameKey: "plain"}},
		Type:       corev1.SecretTypeServiceAccountToken,
	}
}

func TestTokenLimits(t *testing.T) {
	const namespace = "tokens"
	s := policy.Defaults()
	s.TokenLimits.SecretsMode = policy.Deny
	installTokenLimits(t, namespace, map[string]string{api.MaxTokenLifetimeAnnotation: "24h", api.AllowedAudiencesAnnotation: "vault, other"}, s)
	const (
		tooLong = " s is not allowed in namespace tokens, where 24h is the longest lifetime"
		kubeAPI = "https://kubernetes.default.svc"
		day     = 24 * 3600
	)
	for name, tc := range map[string]struct {
		in   request
		want string
	}{
		"the longest":                             {in: request{account: "plain", seconds: day}},
		"a second more":                           {in: request{account: "plain", seconds: day + 1}, want: "a token of 86401" + tooLong},
		"3607 s bound to a pod is a year":         {in: request{account: "plain", seconds: 3607, boundToPod: true}, want: "a token of 31536000" + tooLong},
		"the same, with the audience":             {in: request{account: "plain", seconds: 3607, boundToPod: true, audiences: []string{kubeAPI}}, want: "a token of 31536000" + tooLong},
		"3607 s for others is not":                {in: request{account: "plain", seconds: 3607, boundToPod: true, audiences: []string{"vault"}}},
		"3607 s unbound is not":                   {in: request{account: "plain", seconds: 3607}},
		"3608 s is not":                           {in: request{account: "plain", seconds: 3608, boundToPod: true}},
		"3607 s for a kubelet":                    {in: request{user: "system:node:a", account: "plain", seconds: 3607, boundToPod: true}},
		"a kubelet, for no pod":                   {in: request{user: "system:node:a", account: "plain", seconds: day + 1}, want: "a token of 86401" + tooLong},
		"kube-apiserver":                          {in: request{user: "system:apiserver", account: "plain", seconds: 2 * day}},
		"sakeeper controllers":                    {in: request{user: "system:serviceaccount:sakeeper-system:sakeeper-controllers", account: "plain", seconds: 2 * day}},
		"kube-controller-manager, elsewhere":      {in: request{user: "system:kube-controller-manager", account: "plain", seconds: 2 * day}, want: "a token of 172800" + tooLong},
		"another user":                            {in: request{user: "alice", account: "plain", seconds: 2 * day}, want: "a token of 172800" + tooLong},
		"allowed audiences":                       {in: request{account: "plain", seconds: 600, audiences: []string{"vault", "other", kubeAPI}}},
		"another audience":                        {in: request{account: "plain", seconds: 600, audiences: []string{"vault", "elsewhere"}}, want: `a token with audience "elsewhere" is not allowed in namespace tokens`},
		"an account lowers the lifetime":          {in: request{account: "lowered", seconds: 5401}, want: "a token of 5401 s is not allowed for service account lowered, where 1h30m is the longest lifetime"},
		"within it":                               {in: request{account: "lowered", seconds: 5400, audiences: []string{"vault"}}},
		"an account lowers the audiences":         {in: request{account: "lowered", seconds: 600, audiences: []string{"other"}}, want: `a token with audience "other" is not allowed for service account lowered`},
		"an account does not raise the lifetime":  {in: request{account: "raised", seconds: day + 1}, want: "a token of 86401" + tooLong},
		"an account does not raise the audiences": {in: request{account: "raised", seconds: 600, audiences: []string{"elsewhere"}}, want: `a token with audience "elsewhere" is not allowed in namespace tokens`},
		"an impossible annotation":                {in: request{account: "broken", seconds: 600}, want: `sakeeper.io/max-token-lifetime for service account broken is "soon", which is not a duration such as 24h`},
		"an empty annotation":                     {in: request{account: "empty", seconds: 600}, want: `sakeeper.io/max-token-lifetime for service account empty is "", which is not a duration such as 24h`},
	} {
		t.Run("request: "+name, func(t *testing.T) { expectDenied(t, tc.in.send(t, t.Context(), namespace), tc.want) })
	}
	for name, tc := range map[string]struct {
		in   *corev1.Pod
		want string
	}{
		"no token":                 {in: newPod("plain", nil)},
		"the volume of the plugin": {in: tokenPod("plain", token(3607, ""))},
		"the longest":              {in: tokenPod("plain", token(day, "vault"))},
		"the second is too long":   {in: tokenPod("plain", token(600, ""), token(day+1, "")), want: "a token of 86401" + tooLong},
		"another audience":         {in: tokenPod("plain", token(600, "elsewhere")), want: `a token with audience "elsewhere" is not allowed in namespace tokens`},
		"an account lowers both":   {in: tokenPod("lowered", token(5401, "other")), want: "a token of 5401 s is not allowed for service account lowered, where 1h30m is the longest lifetime"},
		"an account raises none":   {in: tokenPod("raised", token(day+1, "")), want: "a token of 86401" + tooLong},
		"an impossible annotation": {in: newPod("broken", nil), want: `sakeeper.io/max-token-lifetime for service account broken is "soon", which is not a duration such as 24h`},
	} {
		t.Run("pod: "+name, func(t *testing.T) { expectDenied(t, submit(t.Context(), namespace, tc.in), tc.want) })
	}
	_, err := server.client.CoreV1().Secrets(namespace).Create(t.Context(), tokenSecret(), dryRun)
	expectDenied(t, err, "the token of a Secret of type kubernetes.io/service-account-token never expires, and such Secrets are not allowed in this namespace: it has no label sakeeper.io/token-secrets=allowed")
	plain := tokenSecret()
	plain.Type = corev1.SecretTypeOpaque
	_, err = server.client.CoreV1().Secrets(namespace).Create(t.Context(), plain, dryRun)
	expectDenied(t, err, "")
}

func expectDenied(t *testing.T, err error, want string) {
	t.Helper()
	code, message := refusal(err)
	if want == "" && err != nil || want != "" && (code != 403 || message != want) {
		t.Errorf("got %d, %s\nwant %s", code, message, want)
	}
}

// TestTokenLimitsOfTheFlags: the settings are for namespaces without annotations.
func TestTokenLimitsOfTheFlags(t *testing.T) {
	s := policy.Defaults()
	s.TokenLimits.MaxLifetime, s.TokenLimits.AllowedAudiences, s.TokenLimits.SecretsMode = 24*3600*1e9, []string{"vault"}, policy.Deny
	installTokenLimits(t, "flagged", nil, s)
	expectDenied(t, request{account: "plain", seconds: 86400, audiences: []string{"vault"}}.send(t, t.Context(), "flagged"), "")
	expectDenied(t, request{account: "plain", seconds: 86401}.send(t, t.Context(), "flagged"), "a token of 86401 s is not allowed in namespace flagged, where 24h0m0s is the longest lifetime")
	expectDenied(t, submit(t.Context(), "flagged", tokenPod("plain", token(600, "other"))), `a token with audience "other" is not allowed in namespace flagged`)
}
