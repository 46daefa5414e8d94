package podadmission

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	coreinformers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	toolscache "k8s.io/client-go/tools/cache"

	"github.com/sakeeper/sakeeper/pkg/cache"
	"github.com/sakeeper/sakeeper/pkg/podadmission/rules"
)

// Account is what is kept of a ServiceAccount: what the rules read, and nothing
// else. It is a type of its own, so that no cache that keeps less can be mistaken for
// one of these: what is missing from an account is a check that is not made. It is
// never written back.
type Account struct {
	corev1.ServiceAccount
}

// Accounts caches all ServiceAccounts of the cluster. The informer is not started.
func Accounts(client kubernetes.Interface) (toolscache.TypedSharedIndexInformer[*Account], error) {
	informer := coreinformers.NewServiceAccountInformer(client, "", 0, toolscache.Indexers{})
	return cache.Transformed(informer, reduce)
}

func reduce(account *corev1.ServiceAccount) *Account {
	reduced := &Account{corev1.ServiceAccount{
		ObjectMeta: metav1.ObjectMeta{
			Namespace:       account.Namespace,
			Name:            account.Name,
			UID:             account.UID,
			ResourceVersion: account.ResourceVersion,
		},
		ImagePullSecrets:             account.ImagePullSecrets,
		AutomountServiceAccountToken: account.AutomountServiceAccountToken,
	}}
	if value, ok := account.Annotations[rules.EnforceAnnotation]; ok {
		reduced.Annotations = map[string]string{rules.EnforceAnnotation: value}
	}
	for _, secret := range account.Secrets {
		reduced.Secrets = append(reduced.Secrets, corev1.ObjectReference{Name: secret.Name})
	}
	return reduced
}
