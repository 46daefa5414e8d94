package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apiversion "k8s.io/apimachinery/pkg/util/version"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/version"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"

	"github.com/sakeeper/sakeeper/pkg/api"
)

// Connection says how to reach the API server.
type Connection struct {
	// Kubeconfig is the path of a kubeconfig file. Empty: the in-cluster configuration.
	Kubeconfig string
	// QPS and Burst limit the requests per second of the client. A negative QPS means no
	// limit: the priority and fairness of the API server decides. Zero: client-go's default.
	QPS   float32
	Burst int
	// UserAgent is the user agent in audit logs. Empty: client-go's default.
	UserAgent string
}

// Config returns a client configuration that uses protobuf. It reads the kubeconfig, but
// does not connect. Its errors name the flag --kubeconfig.
func (c Connection) Config() (*rest.Config, error) {
	config, err := c.load()
	if err != nil {
		return nil, err
	}
	if tls := config.TLSClientConfig; len(tls.CAData) == 0 && tls.CAFile == "" && !tls.Insecure {
		UsePublicRoots()
	}
	config.QPS, config.Burst = c.QPS, c.Burst
	config.UserAgent = c.UserAgent
	PreferProtobuf(config)
	return config, nil
}

func (c Connection) load() (*rest.Config, error) {
	if c.Kubeconfig == "" {
		config, err := rest.InClusterConfig()
		if errors.Is(err, rest.ErrNotInCluster) {
			return nil, errors.New("--kubeconfig is required outside a cluster")
		}
		return config, err
	}
	// Not the deferred loader: inside a cluster it ignores an empty file.
	file, err := clientcmd.LoadFromFile(c.Kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("--kubeconfig: %s: %w", c.Kubeconfig, err)
	}
	if err := clientcmd.ResolveLocalPaths(file); err != nil {
		return nil, fmt.Errorf("--kubeconfig: %s: %w", c.Kubeconfig, err)
	}
	config, err := clientcmd.NewDefaultClientConfig(*file, nil).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("--kubeconfig: %s: %w", c.Kubeconfig, err)
	}
	return config, nil
}

// ErrServerTooOld is returned for an API server that is older than Kubernetes 1.30.
var ErrServerTooOld = errors.New("the API server is too old")

// minServerVersion is the first version with match conditions of webhooks and ids of bound
// tokens; older ones drop both silently.
func minServerVersion() *apiversion.Version { return apiversion.MajorMinor(1, 30) }

// WaitForServer waits until the API server answers. It returns an error that wraps
// [ErrServerTooOld] if the version is too old, and the error of ctx if ctx ends before. While
// it waits it logs the reason every 30 seconds. Host is for logs.
func WaitForServer(ctx context.Context, client rest.Interface, host string) error {
	logger := klog.FromContext(ctx)
	var logged time.Time
	return wait.PollUntilContextCancel(ctx, time.Second, true, func(ctx context.Context) (bool, error) {
		var info version.Info
		body, err := client.Get().AbsPath("/version").Timeout(10 * time.Second).Do(ctx).Raw()
		if err == nil {
			err = json.Unmarshal(body, &info)
		}
		switch {
		case err == nil:
			logger.Info("Connected to the API server", "server", host, "version", info.GitVersion)
			if v, err := apiversion.ParseGeneric(info.GitVersion); err == nil && v.LessThan(minServerVersion()) {
				return false, fmt.Errorf("%w: it is %s, and sakeeper needs %s or newer, for match conditions of webhooks", ErrServerTooOld, info.GitVersion, minServerVersion())
			}
			return true, nil
		case apierrors.IsForbidden(err), apierrors.IsUnauthorized(err):
			// The API server works. A client that lacks a right reports that itself.
			logger.Error(err, "Connected to the API server, but could not read its version", "server", host)
			return true, nil
		}
		if ctx.Err() == nil && time.Since(logged) > 30*time.Second {
			logged = time.Now()
			logger.Error(err, "Waiting for the API server, which cannot be reached", "server", host)
		}
		return false, nil
	})
}

// Namespace returns the namespace of the pod that this process runs in, or outside if it does
// not run in a pod.
func Namespace(outside string) string {
	data, err := os.ReadFile(api.ServiceAccountDir + "/namespace")
	if name := strings.TrimSpace(string(data)); err == nil && name != "" {
		return name
	}
	return outside
}
