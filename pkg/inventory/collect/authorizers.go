package collect

import (
	"context"

	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// OtherAuthorizers returns what the API server says about authorizers that cannot list their rules,
// such as Node or a webhook; empty if it has none, or does not say. It asks for the rules of the user
// itself, which is not stored.
func OtherAuthorizers(ctx context.Context, client kubernetes.Interface) string {
	review := &authorizationv1.SelfSubjectRulesReview{Spec: authorizationv1.SelfSubjectRulesReviewSpec{Namespace: metav1.NamespaceDefault}}
	answer, err := client.AuthorizationV1().SelfSubjectRulesReviews().Create(ctx, review, metav1.CreateOptions{})
	if err != nil || !answer.Status.Incomplete {
		return ""
	}
	return answer.Status.EvaluationError
}
