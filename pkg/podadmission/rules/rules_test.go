package rules_test

import (
	"errors"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/sakeeper/sakeeper/pkg/podadmission/rules"
	"github.com/sakeeper/sakeeper/pkg/testkit"
	"github.com/sakeeper/sakeeper/pkg/token"
)

func TestSecretsAreLimitedOnRequest(t *testing.T) {
	annotated := func(value string) *corev1.ServiceAccount {
		return robot(testkit.WithAnnotation(rules.EnforceAnnotation, value))
	}
	cases := map[string]struct {
		in          *corev1.ServiceAccount
		inSettings  rules.Settings
		wantRefused bool
	}{
		"neither":                          {in: robot()},
		"the setting":                      {in: robot(), inSettings: rules.Settings{LimitSecretReferences: true}, wantRefused: true},
		"the account":                      {in: annotated("true"), wantRefused: true},
		"the account, in another spelling": {in: annotated("T"), wantRefused: true},
		"the account, with a number":       {in: annotated("1"), wantRefused: true},
		"the account, with false":          {in: annotated("false")},
		"not a boolean":                    {in: annotated("yes")},
		"a boolean that Go does not parse": {in: annotated("tRUE")},
		"an empty annotation":              {in: annotated("")},
		"the setting beats the account":    {in: annotated("false"), inSettings: rules.Settings{LimitSecretReferences: true}, wantRefused: true},
		"the scope alone limits nothing":   {in: robot(), inSettings: rules.Settings{SecretReferenceScope: rules.AllScope}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if err := rules.Validate(newPod(secretVolume("x")), tc.in, tc.inSettings); (err != nil) != tc.wantRefused {
				t.Errorf("create: got %v", err)
			}
			if err := rules.ValidateEphemeralContainers(newPod(ephemeral(withEnv("debug", "x"))), tc.in, tc.inSettings); (err != nil) != tc.wantRefused {
				t.Errorf("ephemeral containers: got %v", err)
			}
		})
	}
}

func TestTheNameOfThePodInARefusal(t *testing.T) {
	cases := map[string]struct {
		in   podOption
		want string
	}{
		"a name":           {in: func(p *corev1.Pod) { p.GenerateName = "gen-" }, want: `pods "web" is forbidden: no service account specified for pod team/web`},
		"a generated name": {in: func(p *corev1.Pod) { p.Name, p.GenerateName = "", "web-" }, want: `pods "web-" is forbidden: no service account specified for pod team/`},
		"neither":          {in: func(p *corev1.Pod) { p.Name = "" }, want: `pods "Unknown" is forbidden: no service account specified for pod team/`},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			pod := newPod(unnamed, tc.in)
			if rules.NeedsAccount(pod) {
				t.Error("it needs an account")
			}
			expectRefusal(t, rules.Validate(pod, nil, rules.Settings{}), 403, tc.want)
		})
	}
}

func TestLookupsThatFail(t *testing.T) {
	expectRefusal(t, rules.LookupFailed(newPod(), rules.AccountNotFound("robot")), 403,
		`pods "web" is forbidden: error looking up service account team/robot: serviceaccount "robot" not found`)
	expectRefusal(t, rules.LookupFailed(newPod(), errors.New("boom")), 403,
		`pods "web" is forbidden: error looking up service account team/robot: boom`)
	expectRefusal(t, rules.TokenLookupFailed(newPod(), errors.New("boom")), 403,
		`pods "web" is forbidden: error looking up service account token for team/robot: boom`)
	old := newPod(unnamed, func(p *corev1.Pod) { p.Spec.DeprecatedServiceAccount = "old" })
	expectRefusal(t, rules.LookupFailed(old, errors.New("boom")), 403,
		`pods "web" is forbidden: error looking up service account team/old: boom`)
}

func TestARefusedPodIsNotChanged(t *testing.T) {
	pod := newPod()
	changes, err := rules.Mutate(pod, robot(), "", rules.Settings{TokenVolumeSource: rules.SecretTokens})
	if err == nil || len(pod.Spec.ImagePullSecrets) > 0 || changes.PullSecrets != nil {
		t.Errorf("error %v, pod %v, changes %v", err, pod.Spec, changes)
	}
}

func TestGeneratedNamesAreRandom(t *testing.T) {
	seen := map[string]bool{}
	for range 20 {
		changes, err := rules.Mutate(newPod(), robot(), "", rules.Settings{})
		if err != nil || !regexp.MustCompile(`^kube-api-access-[bcdfghjklmnpqrstvwxz2456789]{5}$`).MatchString(changes.Volume.Name) {
			t.Fatalf("name %v, error %v", changes.Volume, err)
		}
		seen[changes.Volume.Name] = true
	}
	if len(seen) < 2 {
		t.Errorf("generated only %v", seen)
	}
}

// TestAContainerOfAnotherWebhook was added after the first invocation, as before a reinvocation.
func TestAContainerOfAnotherWebhook(t *testing.T) {
	for name, tokenSecret := range map[string]string{"projected": "", "secret": "robot-token"} {
		t.Run(name, func(t *testing.T) {
			s := rules.Settings{TokenVolumeSource: rules.TokenVolumeSource(name)}
			pod := newPod()
			first, err := rules.Mutate(pod, robot(), tokenSecret, s)
			if err != nil || first.Volume == nil {
				t.Fatalf("changes %v, error %v", first, err)
			}
			pod.Spec.InitContainers = append(pod.Spec.InitContainers, corev1.Container{Name: "sidecar"})
			second, err := rules.Mutate(pod, robot(), tokenSecret, s)
			if err != nil || second.Volume != nil || len(second.Mounted) != 1 || second.Mount.Name != first.Mount.Name || len(pod.Spec.Volumes) != 1 {
				t.Errorf("changes %v, error %v, volumes %v", second, err, pod.Spec.Volumes)
			}
		})
	}
}

func TestTokenSecrets(t *testing.T) {
	of := func(opts ...testkit.Option) *corev1.Secret {
		return testkit.Secret("team/robot-token", append([]testkit.Option{
			testkit.WithAccount("robot"), testkit.WithData(corev1.ServiceAccountTokenKey, "token"),
		}, opts...)...)
	}
	opaque := of()
	opaque.Type = corev1.SecretTypeOpaque
	cases := map[string]struct {
		in   *corev1.Secret
		want bool
	}{
		"a token Secret":      {in: of(), want: true},
		"with the UID":        {in: of(testkit.WithAccountUID(testkit.AccountUID)), want: true},
		"of a former account": {in: of(testkit.WithAccountUID(testkit.OtherUID))},
		"of another account":  {in: of(testkit.WithAccount("other"))},
		"of no account":       {in: testkit.Secret("team/x", testkit.WithData(corev1.ServiceAccountTokenKey, "token"))},
		"of another type":     {in: opaque},
		"without a token":     {in: testkit.Secret("team/x", testkit.WithAccount("robot"))},
		"with an empty token": {in: of(testkit.WithData(corev1.ServiceAccountTokenKey, ""))},
		"marked invalid":      {in: of(testkit.WithLabel(token.InvalidSinceLabel, "2026-01-02"))},
		"being deleted":       {in: of(testkit.Deleting())},
		"with an empty mark":  {in: of(testkit.WithLabel(token.InvalidSinceLabel, "")), want: true},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if got := rules.IsToken(tc.in, robot()); got != tc.want {
				t.Errorf("got %v", got)
			}
		})
	}
}

func TestTheLifetimeOfMountedTokens(t *testing.T) {
	for setting, want := range map[int64]int64{0: 3607, 3607: 3607, 1200: 1200} {
		pod := newPod()
		if _, err := rules.Mutate(pod, robot(), "", rules.Settings{TokenExpirationSeconds: setting}); err != nil {
			t.Fatal(err)
		}
		if got := *pod.Spec.Volumes[0].Projected.Sources[0].ServiceAccountToken.ExpirationSeconds; got != want {
			t.Errorf("setting %d: got %d", setting, got)
		}
	}
}

func TestSettings(t *testing.T) {
	cases := map[string]struct {
		in   rules.Settings
		want string
	}{
		"nothing":           {},
		"all":               {in: rules.Settings{TokenVolumeSource: rules.SecretTokens, SecretReferenceScope: rules.AllScope}},
		"the defaults":      {in: rules.Settings{TokenVolumeSource: rules.ProjectedTokens, SecretReferenceScope: rules.InTreeScope}},
		"an unknown source": {in: rules.Settings{TokenVolumeSource: "x"}, want: `token volume source "x" is neither "projected" nor "secret"`},
		"a lifetime":        {in: rules.Settings{TokenExpirationSeconds: 600}},
		"too short":         {in: rules.Settings{TokenExpirationSeconds: 599}, want: "token expiration seconds: 599 is not between 600 and 4294967296"},
		"too long":          {in: rules.Settings{TokenExpirationSeconds: 1<<32 + 1}, want: "token expiration seconds: 4294967297 is not between 600 and 4294967296"},
		"an unknown scope":  {in: rules.Settings{SecretReferenceScope: "x"}, want: `secret reference scope "x" is neither "in-tree" nor "all"`},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got := ""
			if err := tc.in.Check(); err != nil {
				got = err.Error()
			}
			if got != tc.want {
				t.Errorf("got %q", got)
			}
		})
	}
}

// TestEnforceValues compares the values with strconv.ParseBool, with which in-tree reads them.
func TestEnforceValues(t *testing.T) {
	candidates := []string{"", " true", "0", "2", "y", "Y", "yes", "on", "f", "F", "false", "tRUE", "truE", "enabled"}
	for _, word := range []string{"1", "t", "true"} { // with every choice of capital letters
		for mask := range 1 << len(word) {
			spelled := []byte(word)
			for i := range spelled {
				if mask>>i&1 == 1 {
					spelled[i] = strings.ToUpper(word[i : i+1])[0]
				}
			}
			candidates = append(candidates, string(spelled))
		}
	}
	for _, value := range append(candidates, rules.EnforceValues()...) {
		want, err := strconv.ParseBool(value)
		if got := slices.Contains(rules.EnforceValues(), value); got != (err == nil && want) {
			t.Errorf("%q limits: %v", value, got)
		}
	}
}
