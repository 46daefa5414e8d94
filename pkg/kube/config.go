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
	"k8s.io/apimachinery/pkg/runtime"
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
	// Kubeconfig is a file; empty: the configuration that a pod finds.
	Kubeconfig string
	// QPS and Burst limit the client's requests per second; a negative QPS: the
	// API server's priority and fairness alone decides.
	QPS   float32
	Burst int
	// UserAgent names the process in audit logs.
	UserAgent string
}

// Config makes a client configuration that speaks protobuf.
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
	config.ContentType = runtime.ContentTypeProtobuf
	config.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
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
	// Not the deferred loader: inside a cluster it takes an empty file for none.
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

// ErrTooOld is about an API server without what sakeeper needs.
var ErrServerTooOld = errors.New("the API server is too old")

// oldest has the match conditions of webhooks and the ids of bound tokens, which older
// ones leave out without a word.
func minServerVersion() *apiversion.Version { return apiversion.MajorMinor(1, 30) }

// WaitForServer returns nil when the API server has answered, [ErrTooOld] when it is, and
// ctx's error when ctx ended before. Until then it says every now and then what is wrong.
func WaitForServer(ctx context.Context, client rest.Interface, host string) error {
	logger := klog.FromContext(ctx)
	var said time.Time
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
			// It is there. What is not allowed will be named by whoever needs it.
			logger.Error(err, "Connected to the API server, which does not tell its version", "server", host)
			return true, nil
		}
		if ctx.Err() == nil && time.Since(said) > 30*time.Second {
			said = time.Now()
			logger.Error(err, "Waiting for the API server, which cannot be reached", "server", host)
		}
		return false, nil
	})
}

// Namespace is the namespace of the pod that this process runs in, or outside where
// it runs in none.
func Namespace(outside string) string {
	data, err := os.ReadFile(api.ServiceAccountDir + "/namespace")
	if name := strings.TrimSpace(string(data)); err == nil && name != "" {
		return name
	}
	return outside
}
