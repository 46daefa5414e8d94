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

// Account is a ServiceAccount reduced to the fields that the rules read; it must not be written
// back. It is a type of its own, so that a cache which keeps fewer fields cannot be used by
// mistake: a field that is missing is a check that is not made.
type Account struct {
	corev1.ServiceAccount
}

// Accounts returns an informer for all ServiceAccounts, which keeps only what the rules read. The
// caller runs it.
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
