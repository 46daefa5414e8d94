package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"github.com/sakeeper/sakeeper/pkg/cabundle"
	"github.com/sakeeper/sakeeper/pkg/controllers/rootca"
	"github.com/sakeeper/sakeeper/pkg/controllers/serviceaccount"
	"github.com/sakeeper/sakeeper/pkg/controllers/tokensecret"
	"github.com/sakeeper/sakeeper/pkg/informers"
	"github.com/sakeeper/sakeeper/pkg/keys"
	"github.com/sakeeper/sakeeper/pkg/loop"
	"github.com/sakeeper/sakeeper/pkg/reload"
	"github.com/sakeeper/sakeeper/pkg/token"
)

func newControllersCommand(start func(context.Context, *controllersConfig) error) *cobra.Command {
	opts := newControllersOptions()
	cmd := &cobra.Command{
		Use:   "controllers",
		Short: "Run the controllers for ServiceAccounts, token Secrets and the root CA",
		Long: `Runs the controllers for ServiceAccounts, token Secrets and the root CA. Of
several replicas one works at a time, the one that holds the Lease.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := opts.complete()
			if err != nil {
				return err
			}
			return start(cmd.Context(), cfg)
		},
	}
	withSections(cmd, opts.sections())
	return cmd
}

// controllersConfig is what the flags and the files that they name amount to.
type controllersConfig struct {
	options *controllersOptions
	enabled map[string]bool
	rest    *rest.Config
	keys    *reload.Value[*keys.Set]       // nil while the token controller is off
	ca      *reload.Value[cabundle.Bundle] // nil while nobody needs it
}

// controller is what all controllers have in common.
type controller interface {
	Run(ctx context.Context) error
	Ready() bool
}

// descriptor is one controller: its name, the name that kube-controller-manager
// gave it before, and how it is made.
type descriptor struct {
	name, alias string
	make        func(*assembly) (controller, error)
}

func descriptors() []descriptor {
	return []descriptor{
		{serviceaccount.Name, "serviceaccount", (*assembly).serviceAccount},
		{tokensecret.Name, "serviceaccount-token", (*assembly).tokenSecret},
		{rootca.Name, "root-ca-cert-publisher", (*assembly).rootCA},
	}
}

// assembly is what the controllers are made from, and what comes of it.
type assembly struct {
	*controllersConfig

	recorder record.EventRecorder

	metrics         *loop.Metrics
	namespaces      cache.TypedSharedIndexInformer[*corev1.Namespace]
	serviceAccounts cache.TypedSharedIndexInformer[*corev1.ServiceAccount]
	tokenSecrets    cache.TypedSharedIndexInformer[*informers.TokenSecret]
	rootCAs         cache.TypedSharedIndexInformer[*informers.RootCA]

	controllers map[string]controller
}

// assemble makes the enabled controllers and the informers that they watch.
// Nothing is started, and the API server is not asked.
func assemble(cfg *controllersConfig, recorder record.EventRecorder, registry prometheus.Registerer) (*assembly, error) {
	a := &assembly{
		controllersConfig: cfg, recorder: recorder,
		metrics: loop.NewMetrics(registry), controllers: map[string]controller{},
	}
	client, err := kubernetes.NewForConfig(cfg.rest)
	if err != nil {
		return nil, err
	}
	if a.namespaces, err = informers.Namespaces(client); err != nil {
		return nil, err
	}
	if a.serviceAccounts, err = informers.ServiceAccounts(client); err != nil {
		return nil, err
	}
	if a.tokenSecrets, err = informers.TokenSecrets(client, a.inspect()); err != nil {
		return nil, err
	}
	if a.rootCAs, err = informers.RootCAs(client); err != nil {
		return nil, err
	}
	for _, d := range descriptors() {
		if !cfg.enabled[d.name] {
			continue
		}
		if a.controllers[d.name], err = d.make(a); err != nil {
			return nil, err
		}
	}
	return a, nil
}

// inspect reads tokens with the keys of the moment. Without keys nobody asks whose
// tokens are.
func (a *assembly) inspect() informers.Inspect {
	if a.keys == nil {
		return nil
	}
	return token.NewVerifier(a.keys.Get).Inspect
}

// restFor is the client configuration of one controller, which audit logs name.
func (a *assembly) restFor(name string) *rest.Config {
	config := rest.CopyConfig(a.rest)
	config.UserAgent += "/" + name
	return config
}

func (a *assembly) serviceAccount() (controller, error) {
	client, err := kubernetes.NewForConfig(a.restFor(serviceaccount.Name))
	if err != nil {
		return nil, err
	}
	return serviceaccount.New(serviceaccount.Config{
		Client:          client.CoreV1(),
		Namespaces:      a.namespaces,
		ServiceAccounts: a.serviceAccounts,
		Names:           a.options.serviceAccounts,
		Recorder:        a.recorder,
		Metrics:         a.metrics,
	})
}

func (a *assembly) tokenSecret() (controller, error) {
	client, err := kubernetes.NewForConfig(a.restFor(tokensecret.Name))
	if err != nil {
		return nil, err
	}
	meta, err := metadata.NewForConfig(a.restFor(tokensecret.Name))
	if err != nil {
		return nil, err
	}
	c, err := tokensecret.New(tokensecret.Config{
		Client:          client.CoreV1(),
		Metadata:        meta,
		Secrets:         a.tokenSecrets,
		ServiceAccounts: a.serviceAccounts,
		Signer:          token.NewSigner(a.keys.Get),
		CA:              a.ca.Get,
		Recorder:        a.recorder,
		Clock:           clock.RealClock{},
		Workers:         a.options.tokenSyncs,
		Metrics:         a.metrics,
	})
	if err != nil {
		return nil, err
	}
	a.ca.OnChange(c.EnqueueAll)
	return c, nil
}

func (a *assembly) rootCA() (controller, error) {
	client, err := kubernetes.NewForConfig(a.restFor(rootca.Name))
	if err != nil {
		return nil, err
	}
	c, err := rootca.New(rootca.Config{
		Client:     client.CoreV1(),
		Namespaces: a.namespaces,
		RootCAs:    a.rootCAs,
		CA:         a.ca.Get,
		Recorder:   a.recorder,
		Metrics:    a.metrics,
	})
	if err != nil {
		return nil, err
	}
	a.ca.OnChange(c.EnqueueAll)
	return c, nil
}

// watched are the informers that the enabled controllers need.
func (a *assembly) watched() []cache.SharedIndexInformer {
	var list []cache.SharedIndexInformer
	if a.enabled[serviceaccount.Name] || a.enabled[rootca.Name] {
		list = append(list, a.namespaces)
	}
	if a.enabled[serviceaccount.Name] || a.enabled[tokensecret.Name] {
		list = append(list, a.serviceAccounts)
	}
	if a.enabled[tokensecret.Name] {
		list = append(list, a.tokenSecrets)
	}
	if a.enabled[rootca.Name] {
		list = append(list, a.rootCAs)
	}
	return list
}

// reasonCADiffers is the event on the published CA when the file has another.
const reasonCADiffers = "RootCADiffers"

// announceCA compares the CA file with what is published in kube-system, for
// people: a wrong --root-ca-file breaks every pod, and the first minute is when
// that can be seen.
func announceCA(ctx context.Context, client kubernetes.Interface, recorder record.EventRecorder, ca cabundle.Bundle) {
	logger := klog.FromContext(ctx)
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second) // the work does not wait for it
	defer cancel()
	published, err := client.CoreV1().ConfigMaps(metav1.NamespaceSystem).Get(ctx, informers.RootCAName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		logger.Info("No root CA is published yet", "fileSHA256", ca.Fingerprint())
		return
	}
	if err != nil {
		logger.Error(err, "Could not compare the root CA with the published one", "fileSHA256", ca.Fingerprint())
		return
	}
	sum := sha256.Sum256([]byte(published.Data[corev1.ServiceAccountRootCAKey]))
	if sum == ca.Sum() {
		logger.Info("The published root CA is that of the file", "fileSHA256", ca.Fingerprint())
		return
	}
	logger.Info("The published root CA differs from that of the file", "fileSHA256", ca.Fingerprint(), "publishedSHA256", hex.EncodeToString(sum[:]))
	published.Kind, published.APIVersion = "ConfigMap", "v1"
	recorder.Eventf(published, corev1.EventTypeWarning, reasonCADiffers,
		"The published CA (SHA-256 of ca.crt: %x) is not that of --root-ca-file (%s), which is what ConfigMaps and token Secrets get", sum, ca.Fingerprint())
}
