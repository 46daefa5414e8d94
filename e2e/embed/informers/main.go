// Command informers is a program with client-go alone. It shares its informers with sakeeper, and
// has the signing key in memory.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/sakeeper/sakeeper/pkg/controllers"
	"github.com/sakeeper/sakeeper/pkg/keys"
)

func main() {
	kubeconfig := flag.String("kubeconfig", "", "File with the address of and the credentials for the API server.")
	keyFile := flag.String("key", "", "PEM file with the key that signs tokens. It is read once.")
	flag.Parse()
	if err := start(*kubeconfig, *keyFile); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func start(kubeconfig, keyFile string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	pem, err := os.ReadFile(keyFile)
	if err != nil {
		return err
	}
	return run(ctx, config, pem)
}

func run(ctx context.Context, config *rest.Config, keyPEM []byte) error {
	key, err := keys.ParsePrivate(keyPEM)
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	factory := informers.NewSharedInformerFactory(client, 0)
	suite, err := controllers.New(controllers.Options{
		Config:          config,
		Keys:            controllers.KeySet(keys.NewSet(key)),
		RootCA:          controllers.CABytes(config.CAData),
		Namespaces:      factory.Core().V1().Namespaces().Informer(),
		ServiceAccounts: factory.Core().V1().ServiceAccounts().Informer(),
	})
	if err != nil {
		return err
	}
	factory.StartWithContext(ctx)
	defer factory.Shutdown()
	return suite.Run(ctx)
}
