// Command manager is a controller-runtime manager that runs sakeeper with its own controllers,
// under the leader election of the manager.
package main

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"os"

	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/sakeeper/sakeeper/pkg/controllers"
	"github.com/sakeeper/sakeeper/pkg/keys"
)

func main() {
	keyFile := flag.String("service-account-private-key-file", "", "PEM file with the key that signs tokens.")
	caFile := flag.String("root-ca-file", "", "PEM file with the certificates that verify the API server.")
	flag.Parse() // controller-runtime adds --kubeconfig
	err := run(ctrl.SetupSignalHandler(), ctrl.GetConfigOrDie(), *keyFile, *caFile, ctrl.Options{
		LeaderElection: true, LeaderElectionID: "my-manager", LeaderElectionNamespace: "kube-system", HealthProbeBindAddress: ":8081",
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, config *rest.Config, keyFile, caFile string, options ctrl.Options) error {
	mgr, err := ctrl.NewManager(config, options)
	if err != nil {
		return err
	}
	suite, err := controllers.New(controllers.Options{
		Config:     config,
		Keys:       controllers.KeyFiles(keys.Files{PrivateKeyFile: keyFile}),
		RootCA:     controllers.CAFile(caFile),
		Registerer: metrics.Registry,
	})
	if err != nil {
		return err
	}
	if err := mgr.Add(suite); err != nil {
		return err
	}
	if err := mgr.AddReadyzCheck("controllers", func(*http.Request) error { return suite.Ready() }); err != nil {
		return err
	}
	return mgr.Start(ctx)
}
