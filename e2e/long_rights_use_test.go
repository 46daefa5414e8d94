package e2e

import (
	"context"
	"fmt"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/controllers/accounttemplate"
	"github.com/sakeeper/sakeeper/pkg/controllers/pullsecretcopy"
	"github.com/sakeeper/sakeeper/pkg/controllers/rootca"
	"github.com/sakeeper/sakeeper/pkg/controllers/serviceaccount"
	"github.com/sakeeper/sakeeper/pkg/controllers/tokencleaner"
	"github.com/sakeeper/sakeeper/pkg/controllers/tokengeneration"
	"github.com/sakeeper/sakeeper/pkg/controllers/tokeninventory"
	"github.com/sakeeper/sakeeper/pkg/controllers/tokenrequest"
	"github.com/sakeeper/sakeeper/pkg/controllers/tokensecret"
	"github.com/sakeeper/sakeeper/pkg/token"
)

// provocation returns a function that makes the controller of a case use the right that it lacks. It is
// called once a second, with the number of calls before.
func provocation(c missingRight) func(ctx context.Context, attempt int) error {
	switch c.controller() {
	case serviceaccount.Name:
		return c.makeNamespace
	case rootca.Name:
		return c.spoilRootCA
	case tokensecret.Name:
		return c.makeTokenSecrets
	case tokencleaner.Name:
		return c.makeUnusedTokens
	case tokengeneration.Name:
		return c.makeLabelledAccount
	case tokenrequest.Name:
		return c.makeManagedSecret
	case accounttemplate.Name:
		return c.makeTemplate
	case pullsecretcopy.Name:
		return c.makePullSecret
	case tokeninventory.Name:
		return func(context.Context, int) error { return nil } // it reads everything at the start
	}
	return func(context.Context, int) error { return fmt.Errorf("nothing makes %s use its rights", c.controller()) }
}

// generatedName is a name of a Secret of robot as token generation makes it.
const generatedName = "robot-token-bcdfg"

// ifNew returns err unless the object of a create existed.
func ifNew[T any](_ T, err error) error {
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

func (c missingRight) makeNamespace(ctx context.Context, attempt int) error {
	return ifNew(c.client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("%s-%d", c.namespace, attempt)}}, metav1.CreateOptions{}))
}

// spoilRootCA makes the publisher create, update or patch its ConfigMap: the last if that has an
// annotation too.
func (c missingRight) spoilRootCA(ctx context.Context, _ int) error {
	annotations := `null`
	if c.verb == "patch" {
		annotations = `{"mine":"yes"}`
	}
	_, err := c.client.CoreV1().ConfigMaps(c.namespace).Patch(ctx, api.RootCAConfigMap, types.MergePatchType, []byte(`{"data":{"ca.crt":"wrong"},"metadata":{"annotations":`+annotations+`}}`), metav1.PatchOptions{})
	if apierrors.IsNotFound(err) {
		return nil // it is not published yet, or cannot be
	}
	return err
}

func (c missingRight) makeAccount(ctx context.Context, account *corev1.ServiceAccount) error {
	return ifNew(c.client.CoreV1().ServiceAccounts(c.namespace).Create(ctx, account, metav1.CreateOptions{}))
}

func (c missingRight) makeSecret(ctx context.Context, secret *corev1.Secret) error {
	return ifNew(c.client.CoreV1().Secrets(c.namespace).Create(ctx, secret, metav1.CreateOptions{}))
}

// makeTokenSecrets makes all that the token controller fills, repairs, deletes or asks about.
func (c missingRight) makeTokenSecrets(ctx context.Context, _ int) error {
	err := c.makeAccount(ctx, &corev1.ServiceAccount{
		ObjectMeta: metav1.ObjectMeta{Name: "robot"}, Secrets: []corev1.ObjectReference{{Name: generatedName}}, // which does not exist
	})
	if err != nil {
		return err
	}
	former := tokenSecret("former", "robot")
	former.Annotations[corev1.ServiceAccountUIDKey] = "11111111-1111-4111-8111-111111111111"
	orphan := tokenSecret("orphan", "nobody")
	orphan.Annotations[corev1.ServiceAccountUIDKey] = "22222222-2222-4222-8222-222222222222"
	doubtful := tokenSecret("doubtful", "robot")
	doubtful.Data = map[string][]byte{corev1.ServiceAccountTokenKey: []byte("made up")}
	for _, secret := range []*corev1.Secret{tokenSecret("token", "robot"), former, orphan, doubtful} {
		if err := c.makeSecret(ctx, secret); err != nil {
			return err
		}
	}
	filled, err := c.client.CoreV1().Secrets(c.namespace).Get(ctx, "token", metav1.GetOptions{})
	if err != nil || len(filled.Data[corev1.ServiceAccountTokenKey]) == 0 {
		return err
	}
	_, err = c.client.CoreV1().Secrets(c.namespace).Patch(ctx, "token", types.MergePatchType, []byte(`{"data":{"ca.crt":"d3Jvbmc="}}`), metav1.PatchOptions{})
	return err
}

// makeUnusedTokens makes one to be marked, and one to be deleted after its account is annotated.
func (c missingRight) makeUnusedTokens(ctx context.Context, _ int) error {
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "robot"}, Secrets: []corev1.ObjectReference{{Name: "unused"}, {Name: generatedName}}}
	if err := c.makeAccount(ctx, account); err != nil {
		return err
	}
	account, err := c.client.CoreV1().ServiceAccounts(c.namespace).Get(ctx, "robot", metav1.GetOptions{})
	if err != nil {
		return err
	}
	for _, name := range []string{"unused", generatedName} {
		secret := tokenSecret(name, "robot")
		secret.Annotations[corev1.ServiceAccountUIDKey] = string(account.UID)
		secret.Data = map[string][]byte{corev1.ServiceAccountTokenKey: []byte("made up")}
		if name == generatedName {
			secret.Labels = map[string]string{token.InvalidSinceLabel: day(3)}
		}
		if err := c.makeSecret(ctx, secret); err != nil {
			return err
		}
	}
	return nil
}

// makeLabelledAccount makes an account that gets a Secret. For the right to delete, a policy refuses the
// reference to it.
func (c missingRight) makeLabelledAccount(ctx context.Context, attempt int) error {
	if c.verb == "delete" && attempt == 0 {
		if err := c.refusePatches(ctx); err != nil {
			return err
		}
	}
	return c.makeAccount(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{
		Name: fmt.Sprintf("robot-%d", attempt), Labels: map[string]string{api.AutoTokenLabel: "true"},
	}})
}

// refusePatches makes a policy against changes of ServiceAccounts by the user of the case.
func (c missingRight) refusePatches(ctx context.Context) error {
	fail := admissionv1.Fail
	policy := &admissionv1.ValidatingAdmissionPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: c.namespace},
		Spec: admissionv1.ValidatingAdmissionPolicySpec{
			FailurePolicy: &fail,
			MatchConstraints: &admissionv1.MatchResources{ResourceRules: []admissionv1.NamedRuleWithOperations{{RuleWithOperations: admissionv1.RuleWithOperations{
				Operations: []admissionv1.OperationType{admissionv1.Update},
				Rule:       admissionv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"serviceaccounts"}},
			}}}},
			Validations: []admissionv1.Validation{{Expression: fmt.Sprintf("request.userInfo.username != %q", c.namespace)}},
		},
	}
	if err := ifNew(c.client.AdmissionregistrationV1().ValidatingAdmissionPolicies().Create(ctx, policy, metav1.CreateOptions{})); err != nil {
		return err
	}
	return ifNew(c.client.AdmissionregistrationV1().ValidatingAdmissionPolicyBindings().Create(ctx, &admissionv1.ValidatingAdmissionPolicyBinding{
		ObjectMeta: policy.ObjectMeta,
		Spec:       admissionv1.ValidatingAdmissionPolicyBindingSpec{PolicyName: policy.Name, ValidationActions: []admissionv1.ValidationAction{admissionv1.Deny}},
	}, metav1.CreateOptions{}))
}

// makeManagedSecret makes one, and deletes its account when it has a token.
func (c missingRight) makeManagedSecret(ctx context.Context, attempt int) error {
	if attempt == 0 {
		if err := c.makeAccount(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "robot"}}); err != nil {
			return err
		}
		return c.makeSecret(ctx, managed("managed", nil))
	}
	secret, err := c.client.CoreV1().Secrets(c.namespace).Get(ctx, "managed", metav1.GetOptions{})
	if err != nil || len(secret.Data["token"]) == 0 {
		return err
	}
	err = c.client.CoreV1().ServiceAccounts(c.namespace).Delete(ctx, "robot", metav1.DeleteOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// makeTemplate makes a template that creates an account, and then changes it.
func (c missingRight) makeTemplate(ctx context.Context, attempt int) error {
	client := c.client.CoreV1().RESTClient()
	labels := fmt.Sprintf(`{"attempt": "%d"}`, attempt)
	err := client.Post().AbsPath(templatesPath).SetHeader("Content-Type", runtime.ContentTypeJSON).Body(fmt.Appendf(nil, `{
		"apiVersion": "sakeeper.io/v1alpha1", "kind": "ServiceAccountTemplate", "metadata": {"name": %q},
		"spec": {"namespaceSelector": {"matchLabels": {%q: %q}}, "names": ["robot"], "create": true, "labels": %s}}`,
		c.namespace, corev1.LabelMetadataName, c.namespace, labels)).Do(ctx).Error()
	if !apierrors.IsAlreadyExists(err) {
		return err
	}
	return client.Patch(types.MergePatchType).AbsPath(templatesPath + "/" + c.namespace).Body([]byte(`{"spec":{"labels":` + labels + `}}`)).Do(ctx).Error()
}

// makePullSecret makes a source and a template with a copy of it, and then changes the source and the name
// of the copy by turns, so that copies are changed, made and deleted.
func (c missingRight) makePullSecret(ctx context.Context, attempt int) error {
	source := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "source"}, Type: corev1.SecretTypeDockerConfigJson, Data: dockerConfig("password")}
	if err := c.makeSecret(ctx, source); err != nil {
		return err
	}
	if attempt%2 == 1 {
		_, err := c.client.CoreV1().Secrets(c.namespace).Patch(ctx, "source", types.MergePatchType, fmt.Appendf(nil, `{"metadata":{"annotations":{"attempt":"%d"}}}`, attempt), metav1.PatchOptions{})
		return err
	}
	client := c.client.CoreV1().RESTClient()
	secrets := fmt.Sprintf(`[{"name": "copy-%d", "copyFrom": {"namespace": %q, "name": "source"}}]`, attempt, c.namespace)
	err := client.Post().AbsPath(templatesPath).SetHeader("Content-Type", runtime.ContentTypeJSON).Body(fmt.Appendf(nil, `{
		"apiVersion": "sakeeper.io/v1alpha1", "kind": "ServiceAccountTemplate", "metadata": {"name": %q},
		"spec": {"namespaceSelector": {"matchLabels": {%q: %q}}, "imagePullSecrets": %s}}`,
		c.namespace, corev1.LabelMetadataName, c.namespace, secrets)).Do(ctx).Error()
	if !apierrors.IsAlreadyExists(err) {
		return err
	}
	return client.Patch(types.MergePatchType).AbsPath(templatesPath + "/" + c.namespace).Body([]byte(`{"spec":{"imagePullSecrets":` + secrets + `}}`)).Do(ctx).Error()
}
