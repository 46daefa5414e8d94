package policy_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"

	"github.com/sakeeper/sakeeper/pkg/podadmission/rules"
	"github.com/sakeeper/sakeeper/pkg/podadmission/secretrefs"
	"github.com/sakeeper/sakeeper/pkg/policy"
	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
)

func newPod(account string, edit func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "pod"},
		Spec:       corev1.PodSpec{ServiceAccountName: account, Containers: []corev1.Container{{Name: "main", Image: "i"}}},
	}
	if edit != nil {
		edit(p)
	}
	return p
}

func volume(kind secretrefs.Kind, secret string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: fmt.Sprint("volume-", len(p.Spec.Volumes)), VolumeSource: volumeOf[kind](secret)})
	}
}

// installSecretReferences installs the policy in a namespace, with an account "robot" that has the annotation, and lists
// no Secret but "listed".
func installSecretReferences(t *testing.T, namespace string, s policy.Settings) {
	t.Helper()
	_, err := server.client.CoreV1().ServiceAccounts(namespace).Create(t.Context(), robot(), metav1.CreateOptions{})
	must(t, err)
	install(t, namespace, policy.SecretReferencesName, s, func(ctx context.Context) error {
		var warned warnings
		_, err := warned.client(t).CoreV1().Pods(namespace).Create(ctx, newPod("robot", volume(secretrefs.SecretVolume, "unlisted")), dryRun)
		if code, message := refusal(err); s.SecretReferences.Mode == policy.Deny && code != 403 {
			return fmt.Errorf("a pod with an unlisted Secret got %d, %s", code, message)
		}
		if s.SecretReferences.Mode == policy.Warn && len(warned.texts) == 0 {
			return errors.New("a pod with an unlisted Secret got no warning")
		}
		return nil
	})
}

func robot() *corev1.ServiceAccount {
	return &corev1.ServiceAccount{
		ObjectMeta:       metav1.ObjectMeta{Name: "robot", Annotations: map[string]string{rules.EnforceAnnotation: "true"}},
		Secrets:          []corev1.ObjectReference{{Name: "listed"}},
		ImagePullSecrets: []corev1.LocalObjectReference{{Name: "registry"}},
	}
}

// warnings are those that the API server sends to a client. It is used from one goroutine.
type warnings struct{ texts []string }

func (w *warnings) HandleWarningHeader(_ int, _ string, text string) { w.texts = append(w.texts, text) }

func (w *warnings) client(t *testing.T) kubernetes.Interface {
	t.Helper()
	config := rest.CopyConfig(server.Admin)
	config.WarningHandler = w
	client, err := kubernetes.NewForConfig(config)
	must(t, err)
	return client
}

// reference returns a pod with one reference to a Secret.
func reference(kind secretrefs.Kind, container secretrefs.ContainerKind, secret string) *corev1.Pod {
	return newPod("robot", func(p *corev1.Pod) {
		c := corev1.Container{Name: "holder", Image: "i"}
		switch kind {
		case secretrefs.ImagePullSecret:
			p.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "registry"}, {Name: secret}}
			return
		case secretrefs.Env:
			c.Env = []corev1.EnvVar{{Name: "PLAIN", Value: secret}, variable("KEY", secret)}
		case secretrefs.EnvFrom:
			c.EnvFrom = []corev1.EnvFromSource{envFrom("listed"), envFrom(secret)}
		default:
			volume(secretrefs.SecretVolume, "listed")(p)
			volume(kind, secret)(p)
			return
		}
		switch container {
		case secretrefs.Init:
			p.Spec.InitContainers = append(p.Spec.InitContainers, c)
		case secretrefs.Ephemeral:
			p.Spec.EphemeralContainers = append(p.Spec.EphemeralContainers, corev1.EphemeralContainer{EphemeralContainerCommon: corev1.EphemeralContainerCommon(c)})
		default:
			p.Spec.Containers = append(p.Spec.Containers, c)
		}
	})
}

// submit creates the pod, or adds its ephemeral containers to one, without effect.
func submit(ctx context.Context, namespace string, pod *corev1.Pod) error {
	pods := server.client.CoreV1().Pods(namespace)
	if len(pod.Spec.EphemeralContainers) == 0 {
		_, err := pods.Create(ctx, pod, dryRun)
		return err
	}
	running, err := pods.Get(ctx, "running-"+pod.Spec.ServiceAccountName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		running = newPod(pod.Spec.ServiceAccountName, func(p *corev1.Pod) {
			p.Name = "running-" + pod.Spec.ServiceAccountName
		})
		running, err = pods.Create(ctx, running, metav1.CreateOptions{})
	}
	if err != nil {
		return err
	}
	running.Spec.EphemeralContainers = pod.Spec.EphemeralContainers
	_, err = pods.UpdateEphemeralContainers(ctx, running.Name, running, metav1.UpdateOptions{DryRun: []string{metav1.DryRunAll}})
	return err
}

// judge returns what the webhook's rules say of that pod.
func judge(pod *corev1.Pod, s rules.Settings) (code int32, message string) {
	err := rules.Validate(pod, robot(), s)
	if len(pod.Spec.EphemeralContainers) > 0 {
		err = rules.ValidateEphemeralContainers(pod, robot(), s)
	}
	if code, message = refusal(err); code == 500 { // the API server lets a policy refuse with 403 only
		code = 403
	}
	return code, strings.TrimPrefix(message, `pods "pod" is forbidden: `)
}

// TestEveryKindOfReferenceIsRefused has a pod for every kind that package secretrefs knows, whose own test shows by
// reflection that it knows every field of a PodSpec.
func TestEveryKindOfReferenceIsRefused(t *testing.T) {
	for _, scope := range []rules.Scope{rules.InTreeScope, rules.AllScope} {
		namespace := "kinds-" + string(scope)
		newNamespace(t, namespace, nil)
		s := policy.Defaults()
		s.SecretReferences.Scope = scope
		installSecretReferences(t, namespace, s)
		for kind := range secretrefs.Kinds() {
			places := []secretrefs.ContainerKind{secretrefs.NoContainer}
			if kind == secretrefs.Env || kind == secretrefs.EnvFrom {
				places = []secretrefs.ContainerKind{secretrefs.Init, secretrefs.Regular, secretrefs.Ephemeral}
			}
			for _, place := range places {
				t.Run(fmt.Sprint(scope, " ", place.Field(), " ", kind.Field()), func(t *testing.T) {
					pod := reference(kind, place, "x")
					wantCode, want := judge(pod, rules.Settings{SecretReferenceScope: scope})
					if code, message := refusal(submit(t.Context(), namespace, pod)); code != wantCode || message != want {
						t.Errorf("got %d, %s\nwant %d, %s", code, message, wantCode, want)
					}
					if limited := place == secretrefs.Ephemeral || scope.Limits(kind, place); limited != (wantCode == 403) {
						t.Errorf("the rules say %d", wantCode)
					}
					listed := "listed"
					if kind == secretrefs.ImagePullSecret {
						listed = "registry"
					}
					if err := submit(t.Context(), namespace, reference(kind, place, listed)); err != nil {
						t.Errorf("listed: %v", err)
					}
				})
			}
		}
	}
}

// TestDifferencesBetweenPolicyAndWebhook has a case for each row of the table in the documentation.
func TestDifferencesBetweenPolicyAndWebhook(t *testing.T) {
	const namespace = "differences"
	newNamespace(t, namespace, nil)
	installSecretReferences(t, namespace, policy.Defaults())
	long := strings.Repeat("LONG_", 1200)
	mirror := func(p *corev1.Pod) {
		p.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "x"}
		p.Spec.NodeName = "node"
	}
	cases := map[string]struct {
		in           *corev1.Pod
		wantWebhook  int32 // what the rules say
		wantCode     int32
		wantContains string
	}{
		"ephemeral containers are refused with 403 instead of 500": {
			in: reference(secretrefs.Env, secretrefs.Ephemeral, "x"), wantWebhook: 500, wantCode: 403, wantContains: "ephemeral container holder with envVar KEY",
		},
		"mirror pods are not checked": {
			in: newPod("robot", func(p *corev1.Pod) { volume(secretrefs.SecretVolume, "x")(p); mirror(p) }), wantWebhook: 403,
		},
		"a message of more than 5 KiB is replaced": {
			in: newPod("robot", func(p *corev1.Pod) { p.Spec.Containers[0].Env = []corev1.EnvVar{variable(long, "x")} }), wantWebhook: 403,
			wantCode: 403, wantContains: "the pod names a Secret that its service account does not reference",
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			err := rules.Validate(tc.in, robot(), rules.Settings{})
			if len(tc.in.Spec.EphemeralContainers) > 0 {
				err = rules.ValidateEphemeralContainers(tc.in, robot(), rules.Settings{})
			}
			if code, message := refusal(err); code != tc.wantWebhook {
				t.Errorf("the webhook says %d, %s", code, message)
			}
			if code, message := refusal(submit(t.Context(), namespace, tc.in)); code != tc.wantCode || !strings.HasPrefix(message, tc.wantContains) {
				t.Errorf("the policy says %d, %s", code, message)
			}
		})
	}
	t.Run("an account that the API server does not have in its cache is not checked", func(t *testing.T) {
		if err := submit(t.Context(), namespace, newPod("missing", volume(secretrefs.SecretVolume, "x"))); err != nil {
			t.Error(err)
		}
	})
	t.Run("a policy has its name in the message", func(t *testing.T) {
		err := submit(t.Context(), namespace, reference(secretrefs.SecretVolume, secretrefs.NoContainer, "x"))
		const want = `pods "pod" is forbidden: ValidatingAdmissionPolicy 'sakeeper-secret-references.differences' with binding ` +
			`'sakeeper-secret-references.differences' denied request: volume with secret.secretName="x" is not allowed because ` +
			`service account robot does not reference that secret`
		if err == nil || err.Error() != want {
			t.Errorf("got %v\nwant %s", err, want)
		}
	})
	t.Run("a namespace without an account", func(t *testing.T) {
		for _, name := range []string{"robot", "default"} {
			must(t, server.client.CoreV1().ServiceAccounts(namespace).Delete(t.Context(), name, metav1.DeleteOptions{}))
		}
		eventually(t, "a refusal", func(ctx context.Context) error {
			err := submit(ctx, namespace, newPod("missing", nil))
			if code, message := refusal(err); code != 422 || !strings.Contains(message, "no params found") {
				return fmt.Errorf("got %d, %s", code, message)
			}
			return nil
		})
	})
}

// TestPodsOfNewAccounts: an API server does not check the pods of an account that is not in its cache yet, and
// checks them once it is.
func TestPodsOfNewAccounts(t *testing.T) {
	const namespace, accounts = "new-accounts", 50
	newNamespace(t, namespace, nil)
	installSecretReferences(t, namespace, policy.Defaults())
	unchecked, longest := 0, time.Duration(0)
	for i := range accounts {
		account := robot()
		account.Name = fmt.Sprint("new-", i)
		_, err := server.client.CoreV1().ServiceAccounts(namespace).Create(t.Context(), account, metav1.CreateOptions{})
		must(t, err)
		created := time.Now()
		for attempt := 0; ; attempt++ {
			code, message := refusal(submit(t.Context(), namespace, newPod(account.Name, volume(secretrefs.CSI, "x"))))
			if code == 403 {
				break
			}
			age := time.Since(created)
			if code != 0 || age > time.Minute {
				t.Fatalf("after %v: %d, %s", age, code, message)
			}
			if longest = max(longest, age); attempt == 0 {
				unchecked++
			}
		}
	}
	t.Logf("of %d accounts, the first pods of %d were not checked; none of an account older than %v", accounts, unchecked, longest.Round(100*time.Microsecond))
}

func TestPodsThatAreNotAsUsual(t *testing.T) {
	const namespace = "unusual"
	newNamespace(t, namespace, nil)
	installSecretReferences(t, namespace, policy.Defaults())
	dotted := robot()
	dotted.Name = "ro.bot.1"
	_, err := server.client.CoreV1().ServiceAccounts(namespace).Create(t.Context(), dotted, metav1.CreateOptions{})
	must(t, err)
	eventually(t, "the account with dots", func(ctx context.Context) error {
		if err := submit(ctx, namespace, newPod("ro.bot.1", volume(secretrefs.SecretVolume, "x"))); err == nil {
			return errors.New("its pod is not refused")
		}
		return nil
	})
	cases := map[string]struct {
		in   *corev1.Pod
		code int32
		want string // the beginning of the message
	}{
		"an account with dots": {
			in: newPod("ro.bot.1", volume(secretrefs.RBD, "x")), code: 403,
			want: `spec.volumes[0].rbd.secretRef.name="x" is not allowed because service account ro.bot.1 does`,
		},
		"the deprecated field": {
			in: newPod("", func(p *corev1.Pod) {
				p.Spec.DeprecatedServiceAccount = "robot"
				volume(secretrefs.SecretVolume, "x")(p)
			}), code: 403,
			want: `volume with secret.secretName="x" is not allowed because service account robot does`,
		},
		"no account is the account default, which has no annotation": {in: newPod("", volume(secretrefs.SecretVolume, "x"))},
		"no containers": {
			in: newPod("robot", func(p *corev1.Pod) { p.Spec.Containers = nil }), code: 422, want: `Pod "pod" is invalid: spec.containers: Required value`,
		},
		"no name": {in: newPod("robot", func(p *corev1.Pod) { p.Name = "" }), code: 422, want: `Pod "" is invalid: metadata.name: Required value`},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if code, message := refusal(submit(t.Context(), namespace, tc.in)); code != tc.code || !strings.HasPrefix(message, tc.want) {
				t.Errorf("got %d, %s", code, message)
			}
		})
	}
}

func TestModesThatRefuseNothing(t *testing.T) {
	const text = `volume with secret.secretName="x" is not allowed because service account robot does not reference that secret`
	pod := newPod("robot", volume(secretrefs.SecretVolume, "x"))
	t.Run("warn", func(t *testing.T) {
		newNamespace(t, "warned", nil)
		s := policy.Defaults()
		s.SecretReferences.Mode = policy.Warn
		installSecretReferences(t, "warned", s)
		var warned warnings
		_, err := warned.client(t).CoreV1().Pods("warned").Create(t.Context(), pod, dryRun)
		if err != nil || len(warned.texts) != 1 || !strings.HasSuffix(warned.texts[0], text) {
			t.Errorf("got %v, %q", err, warned.texts)
		}
		expectNothingRefusedWithoutAccounts(t, "warned")
	})
	t.Run("audit", func(t *testing.T) {
		newNamespace(t, "audited", nil)
		s := policy.Defaults()
		s.SecretReferences.Mode = policy.Audit
		installSecretReferences(t, "audited", s)
		eventually(t, "an annotation in the audit log", func(ctx context.Context) error {
			mark, err := server.Audit.Mark(ctx)
			if err != nil {
				return err
			}
			if _, err := server.client.CoreV1().Pods("audited").Create(ctx, pod, dryRun); err != nil {
				return err
			}
			found, err := server.Audit.Since(ctx, mark, func(r controlplane.Request) bool {
				return strings.Contains(r.Annotations["validation.policy.admission.k8s.io/validation_failure"], strings.ReplaceAll(text, `"`, `\"`))
			})
			if err == nil && len(found) != 1 {
				err = fmt.Errorf("found %v", found)
			}
			return err
		})
		expectNothingRefusedWithoutAccounts(t, "audited")
	})
}

// expectNothingRefusedWithoutAccounts removes all accounts, so that the API server cannot evaluate the policy.
func expectNothingRefusedWithoutAccounts(t *testing.T, namespace string) {
	t.Helper()
	must(t, server.client.CoreV1().ServiceAccounts(namespace).DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{}))
	for range 5 {
		must(t, submit(t.Context(), namespace, newPod("robot", nil)))
	}
}

// TestBindingOfLabelledAccounts: a selector in the binding, as the documentation has it for namespaces with many
// accounts, leaves out the accounts without the label.
func TestBindingOfLabelledAccounts(t *testing.T) {
	const namespace = "labelled"
	newNamespace(t, namespace, nil)
	newAccount(t, namespace, "unlabelled", robot().Annotations)
	labelled := robot()
	labelled.Labels = map[string]string{"example.com/limits-its-pods": "true"}
	accounts := server.client.CoreV1().ServiceAccounts(namespace)
	_, err := accounts.Create(t.Context(), labelled, metav1.CreateOptions{})
	must(t, err)
	objects, err := policy.Generate([]string{policy.SecretReferencesName}, policy.Newest(), policy.Defaults())
	must(t, err)
	for _, object := range objects {
		if b, ok := object.(*admissionregistrationv1.ValidatingAdmissionPolicyBinding); ok {
			b.Spec.ParamRef.Selector.MatchLabels = labelled.Labels
			b.Spec.ParamRef.ParameterNotFoundAction = ptr.To(admissionregistrationv1.AllowAction)
		}
		create(t, namespace, object)
	}
	expect := func(account string, want int32) {
		t.Helper()
		eventually(t, fmt.Sprintf("code %d for a pod of %s", want, account), func(ctx context.Context) error {
			err := submit(ctx, namespace, newPod(account, volume(secretrefs.SecretVolume, "x")))
			if code, message := refusal(err); code != want {
				return fmt.Errorf("got %d, %s", code, message)
			}
			return nil
		})
	}
	expect("robot", 403)
	expect("unlabelled", 0)
	must(t, accounts.Delete(t.Context(), "robot", metav1.DeleteOptions{}))
	expect("robot", 0)
	expect("unlabelled", 0) // not 422, although no account has the label
}

// TestCostOfLargePods: the API server gives each expression 1,000,000 units, and an `in` costs as many as the list has
// entries.
func TestCostOfLargePods(t *testing.T) {
	const namespace = "large"
	newNamespace(t, namespace, nil)
	installSecretReferences(t, namespace, policy.Defaults())
	for _, n := range []int{1000, 2500} {
		account := robot()
		account.Name = fmt.Sprint("lists-", n)
		for i := range n {
			account.Secrets = append(account.Secrets, corev1.ObjectReference{Name: fmt.Sprint("secret-", i)})
		}
		_, err := server.client.CoreV1().ServiceAccounts(namespace).Create(t.Context(), account, metav1.CreateOptions{})
		must(t, err)
	}
	large := func(account string) *corev1.Pod {
		return newPod(account, func(p *corev1.Pod) {
			for range 100 {
				volume(secretrefs.ProjectedSecret, "listed")(p)
			}
			p.Spec.Containers = nil
			for i := range 50 {
				c := corev1.Container{Name: fmt.Sprint("c", i), Image: "i"}
				for j := range 10 {
					c.Env = append(c.Env, variable(fmt.Sprint("V", j), "listed"))
				}
				p.Spec.Containers = append(p.Spec.Containers, c)
			}
		})
	}
	eventually(t, "a refusal that names the limit", func(ctx context.Context) error {
		err := submit(ctx, namespace, large("lists-2500"))
		const want = "operation cancelled: actual cost limit exceeded"
		if code, message := refusal(err); code != 422 || !strings.Contains(message, want) || !strings.Contains(err.Error(), "sakeeper-secret-references") {
			return fmt.Errorf("got %d, %s", code, message)
		}
		return nil
	})
	must(t, submit(t.Context(), namespace, large("robot")))
	// The accounts were created in this order, so that the API server has this one too.
	must(t, submit(t.Context(), namespace, large("lists-1000")))
	unlisted := large("lists-1000")
	volume(secretrefs.SecretVolume, "x")(unlisted)
	if code, message := refusal(submit(t.Context(), namespace, unlisted)); code != 403 {
		t.Errorf("got %d, %s", code, message)
	}
}
