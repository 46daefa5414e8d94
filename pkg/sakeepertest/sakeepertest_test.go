package sakeepertest_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/sakeepertest"
	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
	"github.com/sakeeper/sakeeper/pkg/testkit/leaks"
)

func TestMain(m *testing.M) {
	for _, variable := range []string{"KUBEBUILDER_CONTROLPLANE_START_TIMEOUT", "KUBEBUILDER_CONTROLPLANE_STOP_TIMEOUT"} {
		if err := os.Setenv(variable, "2m"); err != nil { // 20 s are too few on a busy machine
			panic(err)
		}
	}
	for variable, name := range map[string]string{"TEST_ASSET_ETCD": "etcd", "TEST_ASSET_KUBE_APISERVER": "kube-apiserver"} {
		path, err := controlplane.Binary(name)
		if err != nil {
			panic(err)
		}
		if err := os.Setenv(variable, path); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}

// start starts an environment with sakeepertest.
func start(t *testing.T) (*envtest.Environment, kubernetes.Interface) {
	t.Helper()
	env := &envtest.Environment{}
	sakeepertest.Configure(env)
	config, err := env.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := env.Stop(); err != nil {
			t.Error(err)
		}
	})
	stop, err := sakeepertest.Start(t.Context(), env)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return env, client
}

func eventually(t *testing.T, what string, condition func(context.Context) (bool, error)) {
	t.Helper()
	if err := wait.PollUntilContextTimeout(t.Context(), 10*time.Millisecond, 2*time.Minute, true, condition); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

func TestAnEnvironmentHasWhatAClusterHas(t *testing.T) {
	_, client := start(t)
	core := client.CoreV1()

	if _, err := core.ServiceAccounts("default").Get(t.Context(), "default", metav1.GetOptions{}); err != nil {
		t.Errorf("right after Start: %v", err)
	}
	_, err := core.Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "team"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "default and kube-root-ca.crt of a new namespace", func(ctx context.Context) (bool, error) {
		_, errAccount := core.ServiceAccounts("team").Get(ctx, "default", metav1.GetOptions{})
		_, errCA := core.ConfigMaps("team").Get(ctx, api.RootCAConfigMap, metav1.GetOptions{})
		return errAccount == nil && errCA == nil, nil
	})

	pod, err := core.Pods("team").Create(t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "web", Image: "web"}}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	mounts := pod.Spec.Containers[0].VolumeMounts
	if pod.Spec.ServiceAccountName != "default" || len(mounts) != 1 || mounts[0].MountPath != api.ServiceAccountDir {
		t.Errorf("the pod has the account %q and the mounts %v", pod.Spec.ServiceAccountName, mounts)
	}

	_, err = core.Secrets("team").Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "token", Annotations: map[string]string{corev1.ServiceAccountNameKey: "default"}},
		Type:       corev1.SecretTypeServiceAccountToken,
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var token string
	eventually(t, "a token in a Secret", func(ctx context.Context) (bool, error) {
		secret, err := core.Secrets("team").Get(ctx, "token", metav1.GetOptions{})
		if err != nil {
			return false, err
		}
		token = string(secret.Data[corev1.ServiceAccountTokenKey])
		return token != "", nil
	})
	// The API server's own cache may have the Secret without its token still.
	eventually(t, "the API server takes the token for that of the account", func(ctx context.Context) (bool, error) {
		review, err := client.AuthenticationV1().TokenReviews().Create(ctx,
			&authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token}}, metav1.CreateOptions{})
		return err == nil && review.Status.User.Username == "system:serviceaccount:team:default", err
	})
}

func TestSeveralEnvironmentsOfAProcessDoNotMeet(t *testing.T) {
	first, _ := start(t)
	second, client := start(t)
	if first.Config.Host == second.Config.Host {
		t.Fatal("it is one environment")
	}
	_, err := client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "second"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "default", func(ctx context.Context) (bool, error) {
		_, err := client.CoreV1().ServiceAccounts("second").Get(ctx, "default", metav1.GetOptions{})
		return err == nil, nil
	})
}

func TestNothingIsLeftAfterStop(t *testing.T) {
	env := &envtest.Environment{}
	sakeepertest.Configure(env)
	if _, err := env.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = env.Stop() })
	before := goleak.IgnoreCurrent()
	for range 2 { // after stop, it can be started again
		stop, err := sakeepertest.Start(t.Context(), env)
		if err != nil {
			t.Fatal(err)
		}
		stop()
		stop()
		// Idle connections are shared by all clients of one configuration, and stay open.
		leaks.None(t, before,
			goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"), goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop"),
			goleak.IgnoreAnyFunction("golang.org/x/net/http2.(*clientConnReadLoop).run"), goleak.IgnoreAnyFunction("net/http.(*http2ClientConn).readLoop"))
	}
}

func TestStartRefusesWhatItCannotServe(t *testing.T) {
	started := &envtest.Environment{}
	if _, err := started.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = started.Stop() })
	stop, err := sakeepertest.Start(t.Context(), started)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	elsewhere := *started
	server := *started.ControlPlane.APIServer
	server.CertDir = t.TempDir()
	elsewhere.ControlPlane.APIServer = &server

	cases := map[string]struct {
		in   *envtest.Environment
		want string
	}{
		"an environment that is not started": {in: &envtest.Environment{}, want: "not started"},
		"one that uses an existing cluster":  {in: &envtest.Environment{UseExistingCluster: new(true)}, want: "existing cluster"},
		"one whose signing key is missing":   {in: &elsewhere, want: filepath.Join(server.CertDir, "sa-signer.key")},
		"one that is served already":         {in: started, want: "before"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			stop, err := sakeepertest.Start(t.Context(), tc.in)
			if stop != nil {
				stop()
			}
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want an error with %q", err, tc.want)
			}
		})
	}
}

func TestConfigureKeepsWhatTheCallerDisables(t *testing.T) {
	env := &envtest.Environment{}
	env.ControlPlane.GetAPIServer().Configure().Append("disable-admission-plugins", "NamespaceLifecycle,Priority")
	sakeepertest.Configure(env)
	sakeepertest.Configure(env)
	got := env.ControlPlane.GetAPIServer().Configure().Get("disable-admission-plugins").Get([]string{"ServiceAccount"})
	if strings.Join(got, ",") != "NamespaceLifecycle,Priority" {
		t.Errorf("disabled plugins: %q", got)
	}
}

func TestACanceledContextIsAnError(t *testing.T) {
	env := &envtest.Environment{}
	if _, err := env.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = env.Stop() })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if stop, err := sakeepertest.Start(ctx, env); err == nil {
		stop()
		t.Error("no error")
	} else if apierrors.IsInternalError(err) {
		t.Error(err)
	}
}
