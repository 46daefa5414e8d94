// Package sakeepertest gives an envtest environment of controller-runtime what a real cluster has
// and kube-controller-manager makes: in every namespace the ServiceAccount default and the ConfigMap
// kube-root-ca.crt, a token in every token Secret, and pods with their ServiceAccount and token
// volume.
//
//	env := &envtest.Environment{}
//	sakeepertest.Configure(env)
//	config, err := env.Start()
//	...
//	stop, err := sakeepertest.Start(ctx, env)
//	...
//	t.Cleanup(stop)
//
// Without it, envtest has no ServiceAccounts, and turns off the admission plugin that would refuse
// pods for want of them.
//
// Environments of one process do not share anything.
package sakeepertest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	toolscache "k8s.io/client-go/tools/cache"
	watchtools "k8s.io/client-go/tools/watch"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/controllers"
	"github.com/sakeeper/sakeeper/pkg/keys"
)

const (
	disableAdmissionPlugins = "disable-admission-plugins"
	admissionPlugin         = "ServiceAccount"
	// signingKeyFile is where envtest keeps the key that its API server signs tokens with.
	signingKeyFile = "sa-signer.key"
	// startTimeout bounds how long Start waits. It takes well under a second on a machine that is
	// not busy.
	startTimeout = time.Minute
)

// Configure makes the API server of env admit pods as a real cluster does: with their
// ServiceAccount, its token volume and its pull secrets. Call it before env.Start. Other settings
// of env stay as they are.
func Configure(env *envtest.Environment) {
	arguments := env.ControlPlane.GetAPIServer().Configure()
	// The default of envtest; what the caller has added to it stays.
	disabled := []string{admissionPlugin}
	if argument := arguments.Get(disableAdmissionPlugins); argument != nil {
		disabled = argument.Get(disabled)
	}
	var left []string
	for _, value := range disabled {
		plugins := slices.DeleteFunc(strings.Split(value, ","), func(name string) bool { return name == admissionPlugin })
		left = append(left, plugins...)
	}
	if len(left) == 0 {
		arguments.Disable(disableAdmissionPlugins)
		return
	}
	arguments.Set(disableAdmissionPlugins, strings.Join(left, ","))
}

// Start runs the controllers for ServiceAccounts, the root CA and token Secrets against env until
// ctx ends or stop is called. It returns when the namespace default has its ServiceAccount default.
// Call it after env.Start, once for each environment. stop returns when no goroutine of Start is
// left, may be called more than once, and must be called before env.Stop; use it with t.Cleanup, or
// after m.Run in TestMain.
//
// An error of the controllers after the start ends them, and shows as ServiceAccounts and tokens that
// do not appear.
func Start(ctx context.Context, env *envtest.Environment) (stop func(), err error) {
	keyFile, err := check(env)
	if err != nil {
		return nil, fmt.Errorf("sakeepertest: %w", err)
	}
	if _, twice := running.LoadOrStore(env, struct{}{}); twice {
		return nil, errors.New("sakeepertest: Start was called for this environment before, and was not stopped")
	}
	suite, err := controllers.New(controllers.Options{
		Config: env.Config,
		Keys:   controllers.KeyFiles(keys.Files{PrivateKeyFile: keyFile}),
		RootCA: controllers.CABytes(env.Config.CAData),
	})
	if err != nil {
		running.Delete(env)
		return nil, fmt.Errorf("sakeepertest: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- suite.Run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-ended; err != nil {
				klog.FromContext(ctx).Error(err, "The controllers of the test environment ended")
			}
			running.Delete(env)
		})
	}
	first := make(chan error, 1)
	go func() { first <- waitForDefault(ctx, env) }()
	select {
	case err = <-first:
	case err = <-ended:
		cancel()
		ended <- err // for stop
		err = fmt.Errorf("the controllers ended: %w", err)
	}
	if err != nil {
		stop()
		return nil, fmt.Errorf("sakeepertest: %w", err)
	}
	return stop, nil
}

// running holds the environments that Start serves at this moment, so that it can refuse to serve
// one twice. An environment has no other place to note that.
var running sync.Map //nolint:gochecknoglobals // see above

// check returns the signing key of an environment that can be served.
func check(env *envtest.Environment) (keyFile string, err error) {
	existing := env.UseExistingCluster != nil && *env.UseExistingCluster ||
		env.UseExistingCluster == nil && strings.EqualFold(os.Getenv("USE_EXISTING_CLUSTER"), "true")
	switch {
	case existing:
		return "", errors.New("the environment uses an existing cluster, which has controllers of its own and keeps its signing key to itself")
	case env.Config == nil || env.ControlPlane.APIServer == nil:
		return "", errors.New("the environment is not started: call env.Start first")
	}
	keyFile = filepath.Join(env.ControlPlane.APIServer.CertDir, signingKeyFile)
	if _, err := os.Stat(keyFile); err != nil {
		return "", fmt.Errorf("the environment has no signing key of its own: %w", err)
	}
	return keyFile, nil
}

// waitForDefault returns when there is a ServiceAccount default in the namespace default.
func waitForDefault(ctx context.Context, env *envtest.Environment) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	client, err := kubernetes.NewForConfig(env.Config)
	if err != nil {
		return err
	}
	accounts := client.CoreV1().ServiceAccounts(metav1.NamespaceDefault)
	named := fields.OneTermEqualSelector("metadata.name", api.DefaultServiceAccount).String()
	_, err = watchtools.UntilWithSync(ctx, &toolscache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			options.FieldSelector = named
			return accounts.List(ctx, options)
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			options.FieldSelector = named
			return accounts.Watch(ctx, options)
		},
	}, &corev1.ServiceAccount{}, nil, func(event watch.Event) (bool, error) { return event.Type == watch.Added, nil })
	if err != nil {
		return fmt.Errorf("wait for the ServiceAccount default in the namespace default: %w", err)
	}
	return nil
}
