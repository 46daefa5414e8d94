package rights

import (
	"context"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// reviewer asks the API server about the user of the process.
type reviewer interface {
	allowed(ctx context.Context, right Right, target Target) (bool, error)
	username(ctx context.Context) (string, error)
}

type selfReviewer struct{ client kubernetes.Interface }

func (r selfReviewer) allowed(ctx context.Context, right Right, target Target) (bool, error) {
	review, err := r.client.AuthorizationV1().SelfSubjectAccessReviews().Create(ctx, &authorizationv1.SelfSubjectAccessReview{
		Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &authorizationv1.ResourceAttributes{
			Verb: right.Verb, Group: right.Group, Resource: right.Resource, Subresource: right.Subresource,
			Namespace: target.Namespace, Name: target.Name,
		}},
	}, metav1.CreateOptions{})
	if err != nil {
		return false, err
	}
	return review.Status.Allowed, nil
}

func (r selfReviewer) username(ctx context.Context) (string, error) {
	review, err := r.client.AuthenticationV1().SelfSubjectReviews().Create(ctx, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err != nil {
		return "", err
	}
	return review.Status.UserInfo.Username, nil
}
