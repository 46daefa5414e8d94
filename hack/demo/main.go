// Command demo shows sakeeper with a real kube-apiserver. It starts a control plane without
// kube-controller-manager, runs sakeeper controllers with their own identity and rights, and
// shows their main features step by step. With -up it keeps both running instead, until it is
// interrupted.
//
// It uses a temporary directory, which it removes, and listens on loopback only.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
)

func main() {
	up := flag.Bool("up", false, "keep everything running until interrupted")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	if err := run(ctx, *up); err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		stop()
		os.Exit(1) //nolint:gocritic // run has cleaned up
	}
	if ctx.Err() != nil {
		fmt.Println("\nStopped, and nothing was left behind.")
	}
}

func run(ctx context.Context, up bool) (err error) {
	root, err := controlplane.RepositoryRoot()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "sakeeper-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	steps := &steps{out: os.Stdout}
	steps.title("Control plane: etcd and kube-apiserver, without kube-controller-manager")
	cp, err := controlplane.Start(controlplane.Options{Dir: dir})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cp.Stop()) }()
	steps.done("kube-apiserver answers on %s", cp.Admin.Host)

	steps.title("sakeeper controllers start, with their own identity and rights")
	if err := cp.Install(ctx, "token-requests", "account-templates"); err != nil {
		return err
	}
	args, err := cp.ControllersArgs()
	if err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(dir, "sakeeper.log"))
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	binary := filepath.Join(root, "bin/sakeeper")
	sakeeper, err := controlplane.StartSakeeper(binary, append(args, "-v=2", "--controllers=*,token-request-controller,service-account-template-controller"), log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, sakeeper.Stop()) }()
	if err := sakeeper.WaitReady(ctx); err != nil {
		return errors.Join(err, fmt.Errorf("its log:\n%s", sakeeper.Logs()))
	}
	steps.done("ready as %s", controlplane.Username)

	if up {
		return keepUp(ctx, cp, sakeeper, log.Name())
	}
	admin := rest.CopyConfig(cp.Admin)
	admin.WarningHandler = rest.NoWarnings{} // of the annotation that limits pods, which Kubernetes calls deprecated
	client, err := kubernetes.NewForConfig(admin)
	if err != nil {
		return err
	}
	if err := (&tour{steps: steps, cp: cp, client: client, binary: binary}).walk(ctx); err != nil {
		return errors.Join(err, fmt.Errorf("log of sakeeper:\n%s", sakeeper.Logs()))
	}
	return nil
}

func keepUp(ctx context.Context, cp *controlplane.ControlPlane, sakeeper *controlplane.Sakeeper, log string) error {
	kubeconfig, err := cp.Kubeconfig("admin.kubeconfig", cp.Admin)
	if err != nil {
		return err
	}
	fmt.Printf(`
In another terminal:

  export KUBECONFIG=%s
%s
  kubectl create namespace team-a
  kubectl -n team-a get serviceaccounts,configmaps
  kubectl -n team-a create serviceaccount builder
  kubectl -n team-a create -f - <<EOF
  {"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/service-account-token",
   "metadata": {"name": "builder-token", "annotations": {"kubernetes.io/service-account.name": "builder"}}}
  EOF
  kubectl -n team-a describe secret builder-token
  kubectl -n team-a delete serviceaccount builder

There is no namespace controller here: a namespace that is deleted stays Terminating.

  log of sakeeper   %s
  metrics           http://%s/metrics
  readiness         http://%s/readyz
  signing key       %s
  root CA           %s

Ctrl-C stops everything and leaves nothing behind.
`, kubeconfig, kubectlLine(), log, sakeeper.MetricsAddress, sakeeper.ProbesAddress, cp.SigningKeyFile, cp.CAFile)
	exited := make(chan error, 1)
	go func() { exited <- sakeeper.Wait() }()
	select {
	case <-ctx.Done():
		return nil
	case err := <-exited:
		return fmt.Errorf("sakeeper exited: %w; its log:\n%s", err, sakeeper.Logs())
	}
}

// kubectlLine is a shell line that makes kubectl available. `make up` does not build kubectl.
func kubectlLine() string {
	if kubectl, err := controlplane.Binary("kubectl"); err == nil {
		return "  alias kubectl=" + kubectl + "\n"
	}
	if _, err := exec.LookPath("kubectl"); err == nil {
		return ""
	}
	return "  make kubectl && alias kubectl=$(echo $PWD/bin/k8s/v*/kubectl)\n"
}
