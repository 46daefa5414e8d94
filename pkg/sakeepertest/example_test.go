package sakeepertest_test

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/sakeeper/sakeeper/pkg/sakeepertest"
)

// A pod in an envtest environment comes out as on a real cluster. (In a test, use t.Fatal and
// t.Cleanup.)
func Example() {
	env := &envtest.Environment{}
	sakeepertest.Configure(env)
	config, err := env.Start()
	if err != nil {
		panic(err)
	}
	defer func() { _ = env.Stop() }()
	stop, err := sakeepertest.Start(context.Background(), env)
	if err != nil {
		panic(err)
	}
	defer stop()

	pod, err := kubernetes.NewForConfigOrDie(config).CoreV1().Pods("default").Create(context.Background(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "web", Image: "web"}}},
	}, metav1.CreateOptions{})
	if err != nil {
		panic(err)
	}
	fmt.Println(pod.Spec.ServiceAccountName, pod.Spec.Containers[0].VolumeMounts[0].MountPath)
	// Output: default /var/run/secrets/kubernetes.io/serviceaccount
}
