package e2e

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/kube"
	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
	"github.com/sakeeper/sakeeper/pkg/token"
)

func TestManagedTokens(t *testing.T) {
	p := newControlPlane(t)
	must(t, p.Install(t.Context(), "token-requests"))
	args := p.sakeeperArgs(t, onTokenRequests, "-v=10", "--public-server=https://"+strings.TrimPrefix(p.Admin.Host, "https://"))
	s := startReadySakeeper(t, args)
	for name, test := range map[string]func(*testing.T, controlPlane){
		"a token lives, rotates, and dies with its secret": testManagedLife,
		"its account goes, and comes again":                testManagedAccount,
		"formats":                                          testManagedFormats,
		"lifetimes":                                        testManagedLifetimes,
		"bad input":                                        testManagedBadInput,
		"namespaces":                                       testManagedNamespaces,
	} {
		t.Run(name, func(t *testing.T) { t.Parallel(); test(t, p) })
	}
	t.Cleanup(func() {
		_, metrics, err := s.Get(context.Background(), "/metrics")
		if err := errors.Join(err, checkSecrecy("metrics", metrics)); err != nil {
			t.Error(err)
		}
		events, err := p.client.CoreV1().Events("").List(context.Background(), metav1.ListOptions{})
		if err := errors.Join(err, checkSecrecy("events", fmt.Sprint(events))); err != nil {
			t.Error(err)
		}
	})
}

func testManagedLife(t *testing.T, p controlPlane) {
	namespace, robot := newServedNamespace(t, p)
	mark := mustMark(t, p.ControlPlane)
	mustCreateSecret(t, p.client, namespace, managed("s", map[string]string{"lifetime": "1h"}))
	first := expectManaged(t, p, namespace, "s", "", "ca.crt", "namespace", "token")
	expectRobot(t, p, namespace, string(first.Data["token"]), robot.UID, first.Annotations[api.CredentialIDAnnotation])
	if string(first.Data["ca.crt"]) != string(p.Admin.CAData) || string(first.Data["namespace"]) != namespace {
		t.Error("another CA or namespace")
	}
	issued, err1 := time.Parse(time.RFC3339, first.Annotations[api.IssuedAtAnnotation])
	expires, err2 := time.Parse(time.RFC3339, first.Annotations[api.ExpiresAtAnnotation])
	if err1 != nil || err2 != nil || expires.Sub(issued) != time.Hour {
		t.Errorf("issued at %v (%v), expires at %v (%v)", issued, err1, expires, err2)
	}
	want := map[string]int{"create serviceaccounts/token": 1, "patch secrets": 1}
	if diff := cmp.Diff(want, tokenCounts(t, p, mark, namespace)); diff != "" {
		t.Errorf("requests of the first token (-want +got):\n%s", diff)
	}

	mark = mustMark(t, p.ControlPlane)
	annotate(t, p, namespace, api.RotateAnnotation, "now")
	second := expectManaged(t, p, namespace, "s", first.Annotations[api.CredentialIDAnnotation], "ca.crt", "namespace", "token")
	expectRobot(t, p, namespace, string(second.Data["token"]), robot.UID, second.Annotations[api.CredentialIDAnnotation])
	expectRobot(t, p, namespace, string(first.Data["token"]), robot.UID, first.Annotations[api.CredentialIDAnnotation]) // it is valid until it expires
	if diff := cmp.Diff(want, tokenCounts(t, p, mark, namespace)); diff != "" {
		t.Errorf("requests of a rotation (-want +got):\n%s", diff)
	}

	must(t, p.client.CoreV1().Secrets(namespace).Delete(t.Context(), "s", metav1.DeleteOptions{}))
	expectRefused(t, p, "the token of a deleted secret", string(second.Data["token"]))
	expectRefused(t, p, "the one before", string(first.Data["token"]))
}

// testManagedLifetimes includes an hour and seven seconds, the lifetime that API servers extend
// to a year for pods.
func testManagedLifetimes(t *testing.T, p controlPlane) {
	namespace, _ := newServedNamespace(t, p)
	for name, want := range map[string]time.Duration{"shortest": 10 * time.Minute, "extended": 3607 * time.Second, "longest": (1 << 32) * time.Second} {
		mustCreateSecret(t, p.client, namespace, managed(name, map[string]string{"lifetime": want.String()}))
		secret := expectManaged(t, p, namespace, name, "", "ca.crt", "namespace", "token")
		claims, err := token.UnverifiedBoundClaims(string(secret.Data["token"]))
		must(t, err)
		noted := claims.Validity.Expires.UTC().Format(time.RFC3339)
		if got := secret.Annotations[api.ExpiresAtAnnotation]; claims.Validity.Lifetime() != want || got != noted {
			t.Errorf("%s: the token lives for %v, until %s, and noted is %s", name, claims.Validity.Lifetime(), noted, got)
		}
	}
}

func testManagedAccount(t *testing.T, p controlPlane) {
	namespace, _ := newServedNamespace(t, p)
	mustCreateSecret(t, p.client, namespace, managed("s", nil))
	first := expectManaged(t, p, namespace, "s", "", "ca.crt", "namespace", "token")
	accounts := p.client.CoreV1().ServiceAccounts(namespace)
	must(t, accounts.Delete(t.Context(), "robot", metav1.DeleteOptions{}))
	eventually(t, "the token is removed", func(ctx context.Context) error {
		secret, err := p.client.CoreV1().Secrets(namespace).Get(ctx, "s", metav1.GetOptions{})
		if err != nil {
			return err
		}
		if diff := cmp.Diff(map[string][]byte{"mine": []byte("yes")}, secret.Data); diff != "" {
			return errors.New("data differs") // not printed: it may be a token
		}
		want := map[string]string{api.ServiceAccountAnnotation: "robot", "mine": "yes", api.ProblemAnnotation: secret.Annotations[api.ProblemAnnotation]}
		if !strings.Contains(want[api.ProblemAnnotation], "there is no ServiceAccount robot") {
			return fmt.Errorf("problem %q", want[api.ProblemAnnotation])
		}
		if diff := cmp.Diff(want, secret.Annotations); diff != "" {
			return fmt.Errorf("annotations (-want +got):\n%s", diff)
		}
		return nil
	})
	expectTold(t, p.client, namespace, "s", api.ReasonRemovedToken, "robot")
	expectRefused(t, p, "the token of a deleted account", string(first.Data["token"]))
	robot := mustCreateAccount(t, p.client, namespace, "robot")
	second := expectManaged(t, p, namespace, "s", "", "ca.crt", "namespace", "token")
	expectRobot(t, p, namespace, string(second.Data["token"]), robot.UID, second.Annotations[api.CredentialIDAnnotation])

	// And at once, so that the controller may miss that it did not exist.
	must(t, accounts.Delete(t.Context(), "robot", metav1.DeleteOptions{}))
	robot = mustCreateAccount(t, p.client, namespace, "robot")
	third := second
	eventually(t, "a token of the new account", func(ctx context.Context) (err error) {
		third, err = p.client.CoreV1().Secrets(namespace).Get(ctx, "s", metav1.GetOptions{})
		if id := third.Annotations[api.CredentialIDAnnotation]; err == nil && (id == "" || id == second.Annotations[api.CredentialIDAnnotation]) {
			err = fmt.Errorf("credential id %q", id)
		}
		return err
	})
	expectRobot(t, p, namespace, string(third.Data["token"]), robot.UID, third.Annotations[api.CredentialIDAnnotation])
}

func testManagedFormats(t *testing.T, p controlPlane) {
	namespace, robot := newServedNamespace(t, p)
	mustCreateSecret(t, p.client, namespace, managed("s", map[string]string{"format": "kubeconfig"}))
	secret := expectManaged(t, p, namespace, "s", "", "kubeconfig")
	path := filepath.Join(t.TempDir(), "kubeconfig")
	must(t, os.WriteFile(path, secret.Data["kubeconfig"], 0o600))
	kubectl, err := controlplane.Binary("kubectl")
	must(t, err)
	out, err := exec.CommandContext(t.Context(), kubectl, "--kubeconfig", path, "auth", "whoami", "-o", "jsonpath={.status.userInfo.username}").CombinedOutput()
	if want := "system:serviceaccount:" + namespace + ":robot"; err != nil || string(out) != want {
		t.Errorf("kubectl says %q, want %q (%v)", out, want, err)
	}

	annotate(t, p, namespace, api.ServerAnnotation, "https://cluster.example.com:6443")
	annotate(t, p, namespace, api.FormatAnnotation, "argocd-cluster")
	eventually(t, "the other format", func(ctx context.Context) (err error) {
		secret, err = p.client.CoreV1().Secrets(namespace).Get(ctx, "s", metav1.GetOptions{})
		if err == nil && secret.Annotations[api.FilledKeysAnnotation] != "config,name,server" {
			err = errors.New("not yet")
		}
		return err
	})
	if diff := cmp.Diff([]string{"config", "mine", "name", "server"}, slices.Sorted(maps.Keys(secret.Data))); diff != "" {
		t.Errorf("keys (-want +got):\n%s", diff)
	}
	if got := string(secret.Data["name"]) + " " + string(secret.Data["server"]); got != "s https://cluster.example.com:6443" {
		t.Errorf("name and server are %s", got)
	}
	// The fields that Argo CD documents.
	var config struct {
		BearerToken     string `json:"bearerToken"`
		TLSClientConfig struct {
			Insecure *bool  `json:"insecure"`
			CAData   string `json:"caData"`
		} `json:"tlsClientConfig"`
	}
	decoder := json.NewDecoder(strings.NewReader(string(secret.Data["config"])))
	decoder.DisallowUnknownFields()
	must(t, decoder.Decode(&config))
	ca, err := base64.StdEncoding.DecodeString(config.TLSClientConfig.CAData)
	if err != nil || string(ca) != string(p.Admin.CAData) || config.TLSClientConfig.Insecure == nil || *config.TLSClientConfig.Insecure {
		t.Errorf("the TLS configuration is not that of the API server (%v)", err)
	}
	expectRobot(t, p, namespace, config.BearerToken, robot.UID, secret.Annotations[api.CredentialIDAnnotation])

	mustCreateSecret(t, p.client, namespace, managed("c", map[string]string{"format": "custom", "token-key": "password", "audiences": "vault,other"}))
	secret = expectManaged(t, p, namespace, "c", "", "ca.crt", "namespace", "password")
	answer, err := p.client.AuthenticationV1().TokenReviews().Create(t.Context(), &authenticationv1.TokenReview{
		Spec: authenticationv1.TokenReviewSpec{Token: string(secret.Data["password"]), Audiences: []string{"vault"}},
	}, metav1.CreateOptions{})
	must(t, err)
	if diff := cmp.Diff([]string{"vault"}, answer.Status.Audiences); diff != "" {
		t.Errorf("audiences (-want +got):\n%s", diff)
	}
}

func testManagedBadInput(t *testing.T, p controlPlane) {
	namespace, _ := newServedNamespace(t, p)
	immutable := managed("immutable", nil)
	immutable.Immutable = new(true)
	own := managed("own-keys", nil)
	own.Data["token"] = []byte("the user's own")
	inTree := managed("in-tree", nil)
	inTree.Type, inTree.Annotations[corev1.ServiceAccountNameKey] = corev1.SecretTypeServiceAccountToken, "default"
	labelled := managed("labelled", nil)
	labelled.Labels[api.TokenLabel] = "true"
	cases := map[string]struct {
		in         *corev1.Secret
		wantReason string
		want       []string
		// wantUntouched: nothing is written to it, nor its problem.
		wantUntouched bool
	}{
		"a short lifetime":      {in: managed("short", map[string]string{"lifetime": "9m59s"}), wantReason: api.ReasonInvalidTokenSetting, want: []string{"sakeeper.io/lifetime", "10m"}},
		"a long lifetime":       {in: managed("long", map[string]string{"lifetime": "1193047h"}), wantReason: api.ReasonInvalidTokenSetting, want: []string{"sakeeper.io/lifetime", "1193046h"}},
		"a negative lifetime":   {in: managed("negative", map[string]string{"lifetime": "-1h"}), wantReason: api.ReasonInvalidTokenSetting, want: []string{"sakeeper.io/lifetime", "10m"}},
		"an unknown format":     {in: managed("format", map[string]string{"format": "jks"}), wantReason: api.ReasonInvalidTokenSetting, want: []string{"sakeeper.io/format", "kubeconfig"}},
		"audiences with blanks": {in: managed("blanks", map[string]string{"audiences": "a, b"}), wantReason: api.ReasonInvalidTokenSetting, want: []string{"sakeeper.io/audiences"}},
		"no account":            {in: managed("empty", map[string]string{"service-account": ""}), wantReason: api.ReasonInvalidTokenSetting, want: []string{"sakeeper.io/service-account"}},
		"an unknown account":    {in: managed("unknown", map[string]string{"service-account": "missing"}), wantReason: api.ReasonNoServiceAccount, want: []string{"missing", "create it"}},
		"its own keys":          {in: own, wantReason: api.ReasonUnusableTokenSecret, want: []string{"token", "remove it"}},
		"immutable":             {in: immutable, wantReason: api.ReasonUnusableTokenSecret, want: []string{"immutable"}},
		"of an in-tree type":    {in: inTree, wantReason: api.ReasonUnusableTokenSecret, want: []string{"kubernetes.io/service-account-token", "Opaque"}, wantUntouched: true},
		"another label":         {in: labelled, wantReason: api.ReasonInvalidTokenSetting, want: []string{api.TokenLabel, `"true"`, "did you mean managed?"}, wantUntouched: true},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			before := mustCreateSecret(t, p.client, namespace, tc.in)
			expectTold(t, p.client, namespace, tc.in.Name, tc.wantReason, tc.want...)
			if tc.wantUntouched {
				after, err := p.client.CoreV1().Secrets(namespace).Get(t.Context(), tc.in.Name, metav1.GetOptions{})
				must(t, err)
				// Secrets of the in-tree type are filled by the token controller.
				_, annotated := after.Annotations[api.ProblemAnnotation]
				if annotated || after.Annotations[api.FilledHashAnnotation] != "" || after.ResourceVersion != before.ResourceVersion && tc.in != inTree {
					t.Errorf("it was changed, its problem written: %t", annotated)
				}
				return
			}
			after := expectProblem(t, p, namespace, tc.in.Name, tc.want...)
			delete(after.Annotations, api.ProblemAnnotation)
			before.ResourceVersion, before.ManagedFields, after.ResourceVersion, after.ManagedFields = "", nil, "", nil
			if diff := cmp.Diff(before, after); diff != "" {
				t.Errorf("more was changed (-before +after):\n%s", diff)
			}
		})
	}
	mustCreateSecret(t, p.client, namespace, managed("good", nil))
	expectManaged(t, p, namespace, "good", "", "ca.crt", "namespace", "token")
}

func testManagedNamespaces(t *testing.T, p controlPlane) {
	namespace := newNamespace(t, p.client)
	robot := mustCreateAccount(t, p.client, namespace, "robot")
	mustCreateSecret(t, p.client, namespace, managed("s", nil))
	expectTold(t, p.client, namespace, "s", api.ReasonTokenNotServed, "sakeeper.io/token-requests=allowed")
	unserved := expectProblem(t, p, namespace, "s", "sakeeper.io/token-requests=allowed")
	if diff := cmp.Diff(map[string][]byte{"mine": []byte("yes")}, unserved.Data); diff != "" {
		t.Errorf("data of a secret of a namespace without the label (-want +got):\n%s", diff)
	}
	serve(t, p, namespace, `"allowed"`)
	first := expectManaged(t, p, namespace, "s", "", "ca.crt", "namespace", "token")
	if problem, ok := first.Annotations[api.ProblemAnnotation]; ok {
		t.Errorf("it has a token, and the problem %q", problem)
	}
	serve(t, p, namespace, "null")
	expectNotServed(t, p, namespace)
	annotate(t, p, namespace, api.RotateAnnotation, "now")
	expectTold(t, p.client, namespace, "s", api.ReasonTokenNotServed, "not renewed", first.Annotations[api.ExpiresAtAnnotation])
	after := expectManaged(t, p, namespace, "s", "", "ca.crt", "namespace", "token")
	expectRobot(t, p, namespace, string(after.Data["token"]), robot.UID, first.Annotations[api.CredentialIDAnnotation])
}

// expectNotServed waits until the controller knows that the namespace is not served: it watches
// namespaces and Secrets apart.
func expectNotServed(t *testing.T, p controlPlane, namespace string) {
	t.Helper()
	probes := 0
	eventually(t, "a Secret that gets no token", func(ctx context.Context) error {
		probes++
		name := fmt.Sprint("probe-", probes)
		mustCreateSecret(t, p.client, namespace, managed(name, nil))
		for ctx.Err() == nil {
			secret, err := p.client.CoreV1().Secrets(namespace).Get(ctx, name, metav1.GetOptions{})
			switch {
			case err != nil:
				return err
			case secret.Annotations[api.CredentialIDAnnotation] != "":
				return errors.New("it got one")
			case secret.Annotations[api.ProblemAnnotation] != "":
				return nil
			}
			sleep(ctx, 20*time.Millisecond)
		}
		return ctx.Err()
	})
}

func TestARestartRenewsNoToken(t *testing.T) {
	p := newControlPlane(t)
	must(t, p.Install(t.Context(), "token-requests"))
	args := p.sakeeperArgs(t, onTokenRequests, "--token-request-namespaces=*", "--public-server=https://api.example.com")
	s := startReadySakeeper(t, args)
	namespace := newNamespace(t, p.client) // without the label
	mustCreateAccount(t, p.client, namespace, "robot")
	formats := []map[string]string{{}, {"format": "kubeconfig"}, {"format": "argocd-cluster"}, {"format": "custom", "token-key": "k"}, {"rotate": "1"}, {"audiences": "a,b"}}
	for i, settings := range formats {
		mustCreateSecret(t, p.client, namespace, managed(fmt.Sprint("s", i), settings))
	}
	for i := range formats {
		name := fmt.Sprint("s", i)
		eventually(t, "token in "+name, func(ctx context.Context) error {
			secret, err := p.client.CoreV1().Secrets(namespace).Get(ctx, name, metav1.GetOptions{})
			if err == nil && secret.Annotations[api.FilledHashAnnotation] == "" {
				err = errors.New("not yet")
			}
			return err
		})
	}
	must(t, s.Stop())
	mark := mustMark(t, p.ControlPlane)
	s = startReadySakeeper(t, args)
	expectMetric(t, s, fmt.Sprintf(`sakeeper_managed_tokens{state="valid"} %d`, len(formats)))
	if counts := tokenCounts(t, p, mark, namespace); len(counts) > 0 {
		t.Errorf("after a restart: %v", counts)
	}
}

// TestRightsThatAreMissingInOneNamespace binds the role for served namespaces in only one of
// them.
func TestRightsThatAreMissingInOneNamespace(t *testing.T) {
	p := newControlPlane(t)
	must(t, p.Install(t.Context(), "token-requests"))
	const served = "sakeeper:token-request-controller:served"
	must(t, p.client.RbacV1().ClusterRoleBindings().Delete(t.Context(), served, metav1.DeleteOptions{}))
	s := startSakeeper(t, p.sakeeperArgs(t, onTokenRequests+",-serviceaccount-token-controller"))
	with, _ := newServedNamespace(t, p)
	must(t, p.RunKubectl(t.Context(), "create", "rolebinding", "-n", with, "served", "--clusterrole="+served, "--serviceaccount="+controlplane.Namespace+":"+controlplane.Account))
	must(t, s.WaitReady(t.Context()))
	without, _ := newServedNamespace(t, p)
	mustCreateSecret(t, p.client, without, managed("s", nil))
	mustCreateSecret(t, p.client, with, managed("s", nil))
	expectManaged(t, p, with, "s", "", "ca.crt", "namespace", "token")
	expectTold(t, p.client, without, "s", api.ReasonFailedTokenRenewal, "serviceaccounts/token", "forbidden")
	expectMetric(t, s, `sakeeper_managed_tokens{state="failing"} 1`)
	expectMetric(t, s, `sakeeper_failing_keys{controller="token-request-controller"} 1`)
	expectReadyz(t, s, http.StatusServiceUnavailable, "no right to create serviceaccounts/token", "in the namespace "+without)
}

// TestTheClockOfTheServerIsHeard: a real API server sends a Date header.
func TestTheClockOfTheServerIsHeard(t *testing.T) {
	t.Parallel()
	heard := kube.NewServerClock(clocktesting.NewFakePassiveClock(time.Now().Add(-1000 * time.Hour)))
	config := rest.CopyConfig(shared.cp.Admin)
	config.Wrap(heard.Wrap)
	_, err := mustClient(t, config).CoreV1().Namespaces().List(t.Context(), metav1.ListOptions{})
	must(t, err)
	if off := time.Since(heard.Now()); off.Abs() > patience {
		t.Errorf("off by %v", off)
	}
}

// TestAServerThatShortensLifetimes: the granted lifetime is used, not the requested one.
func TestAServerThatShortensLifetimes(t *testing.T) {
	t.Parallel()
	p := newControlPlaneWith(t, controlplane.Options{MaxTokenLifetime: time.Hour})
	must(t, p.Install(t.Context(), "token-requests"))
	startReadySakeeper(t, p.sakeeperArgs(t, onTokenRequests))
	const namespace = metav1.NamespaceDefault
	serve(t, p, namespace, `"`+api.TokenRequestsAllowed+`"`)
	mustCreateAccount(t, p.client, namespace, "robot")
	mustCreateSecret(t, p.client, namespace, managed("s", map[string]string{"lifetime": "24h"}))
	secret := expectManaged(t, p, namespace, "s", "", "token", "ca.crt", "namespace")
	claims, err := token.UnverifiedBoundClaims(string(secret.Data["token"]))
	must(t, err)
	noted := claims.Validity.Expires.UTC().Format(time.RFC3339)
	if got := secret.Annotations[api.ExpiresAtAnnotation]; claims.Validity.Lifetime() != time.Hour || got != noted {
		t.Errorf("the token lives for %v, until %s, and noted is %s", claims.Validity.Lifetime(), noted, got)
	}
}

// TestLongManyManagedTokens starts sakeeper with 5,000 managed Secrets.
func TestLongManyManagedTokens(t *testing.T) {
	const secrets = 5000
	p := newControlPlane(t)
	must(t, p.Install(t.Context(), "token-requests"))
	must(t, p.RunKubectl(t.Context(), "create", "namespace", "many"))
	mustCreateAccount(t, p.client, "many", "robot")
	forEach(t, secrets, func(ctx context.Context, i int) error {
		_, err := p.client.CoreV1().Secrets("many").Create(ctx, managed(fmt.Sprint("s", i), nil), metav1.CreateOptions{})
		return err
	})
	args := p.sakeeperArgs(t, "--controllers=token-request-controller", "--token-request-namespaces=*")
	all := fmt.Sprintf(`sakeeper_managed_tokens{state="valid"} %d`, secrets)

	mark := mustMark(t, p.ControlPlane)
	began := time.Now()
	s := startSakeeper(t, args)
	eventuallyIn(t, 5*time.Minute, "all are filled", func(ctx context.Context) error {
		_, metrics, err := s.Get(ctx, "/metrics")
		if err == nil && !strings.Contains(metrics, all) {
			err = errors.New("not yet")
		}
		return err
	})
	t.Logf("%d tokens were written in %v", secrets, time.Since(began))
	want := map[string]int{"create serviceaccounts/token": secrets, "patch secrets": secrets}
	if diff := cmp.Diff(want, tokenCounts(t, p, mark, "many")); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}

	must(t, s.Stop())
	mark = mustMark(t, p.ControlPlane)
	s = startReadySakeeper(t, args)
	expectMetric(t, s, all)
	if counts := tokenCounts(t, p, mark, "many"); len(counts) > 0 {
		t.Errorf("after a restart: %v", counts)
	}
	_, metrics, err := s.Get(t.Context(), "/metrics")
	must(t, err)
	for line := range strings.Lines(metrics) {
		if strings.HasPrefix(line, "process_resident_memory_bytes") || strings.HasPrefix(line, "sakeeper_managed_token_next") {
			t.Log(strings.TrimSpace(line))
		}
	}
}
