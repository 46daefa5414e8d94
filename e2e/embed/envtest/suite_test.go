// Package envtest is an envtest suite in which namespaces and pods get what they get in a real
// cluster.
package envtest

import (
	"context"
	"log"
	"os"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/sakeeper/sakeeper/pkg/sakeepertest"
)

var cluster client.Client

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	env := &envtest.Environment{}
	sakeepertest.Configure(env)
	config, err := env.Start()
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = env.Stop() }()
	stop, err := sakeepertest.Start(context.Background(), env)
	if err != nil {
		log.Print(err)
		return 1
	}
	defer stop()
	if cluster, err = client.New(config, client.Options{}); err != nil {
		log.Print(err)
		return 1
	}
	return m.Run()
}

func TestAPodHasATokenVolume(t *testing.T) {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "web", Image: "web"}}},
	}
	if err := cluster.Create(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	if pod.Spec.ServiceAccountName != "default" {
		t.Errorf("the pod runs as %q", pod.Spec.ServiceAccountName)
	}
	for _, volume := range pod.Spec.Volumes {
		for _, source := range volume.Projected.Sources {
			if source.ServiceAccountToken != nil {
				return
			}
		}
	}
	t.Errorf("none of the pod's volumes holds a token: %v", pod.Spec.Volumes)
}
