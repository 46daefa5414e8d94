package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
	"github.com/sakeeper/sakeeper/pkg/testkit/faults"
)

// processNames are the processes of sakeeper. Each but the signer talks to the API server through a
// wire, and the API server sees it under an IP address of its own.
var processNames = []string{"controllers-0", "controllers-1", "webhook-0", "webhook-1", "signer"}

// world is a control plane with sakeeper, and what users have made in it.
type world struct {
	dir, binary string
	cp          *controlplane.ControlPlane
	client      kubernetes.Interface
	processes   map[string]*process
	wires       []*faults.Wire
	stopManager func() error
	keys        string // directory
	ca          ca
	model       *model
	saved       *saved // by save-etcd
	secrets     *secrecy
	// filled is the UID of the account for which each token Secret was filled, by the UID of the Secret.
	filled map[string]string
	// unleased is until when a write may be of a process that does not hold the Lease.
	unleased time.Time
	log      func(format string, args ...any)
}

// keyWaits let a key sign soon after it was published.
func keyWaits() []string {
	return []string{"--publish-for=3s", "--refresh-hint=1s", "--discovery-max-age=1s", "--max-token-expiration=1h"}
}

func newWorld(ctx context.Context, binary string, log func(string, ...any)) (w *world, err error) {
	w = &world{binary: binary, processes: map[string]*process{}, model: &model{}, filled: map[string]string{}, secrets: newSecrecy(), log: log}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.close())
		}
	}()
	if w.dir, err = os.MkdirTemp("", "soak-"); err != nil { // the paths of sockets must be short
		return w, err
	}
	w.keys = filepath.Join(w.dir, "keys")
	if out, err := w.rotateKey(ctx); err != nil {
		return w, fmt.Errorf("first key: %w: %s", err, out)
	}
	socket := filepath.Join(w.dir, "s")
	w.add("signer", "signer", "--key-dir", w.keys, "--socket", socket, "--refresh-hint=1s", "--max-token-expiration=1h")
	plane := filepath.Join(w.dir, "plane")
	if err := os.Mkdir(plane, 0o700); err != nil {
		return w, err
	}
	if err := w.processes["signer"].waitReady(ctx); err != nil {
		return w, err
	}
	if w.cp, err = controlplane.Start(controlplane.Options{Dir: plane, SigningEndpoint: socket}); err != nil {
		return w, err
	}
	if w.client, err = kubernetes.NewForConfig(rest.CopyConfig(w.cp.Admin)); err != nil {
		return w, err
	}
	if err := w.cp.Install(ctx, "token-requests"); err != nil {
		return w, err
	}
	if err := w.startManager(); err != nil {
		return w, err
	}
	if err := w.addControllers(); err != nil {
		return w, err
	}
	return w, w.addWebhooks(ctx)
}

// add starts a process of sakeeper.
func (w *world) add(name string, args ...string) *process {
	p := &process{name: name, binary: w.binary, args: append(args, "-v=4"), secrets: w.secrets}
	w.processes[name] = p
	p.start()
	return p
}

func (w *world) startManager() (err error) {
	w.stopManager, err = w.cp.StartControllerManager(controlplane.ControllerManager{
		Controllers: []string{"namespace-controller", "garbage-collector-controller"},
	})
	return err
}

// wired returns a kubeconfig with the credentials of an account of sakeeper, through a new wire.
func (w *world) wired(name, account string, source net.IP) (kubeconfig string, wire *faults.Wire, err error) {
	wire, err = faults.NewWire("127.0.0.1:0", source, strings.Trim(strings.TrimPrefix(w.cp.Admin.Host, "https:"), "/"))
	if err != nil {
		return "", nil, err
	}
	w.wires = append(w.wires, wire)
	identity, err := w.cp.ServiceAccount(controlplane.Namespace, account)
	if err != nil {
		return "", nil, err
	}
	identity.Host = wire.Address()
	kubeconfig, err = w.cp.Kubeconfig(name+".kubeconfig", identity)
	return kubeconfig, wire, err
}

func (w *world) addControllers() error {
	w.ca = ca{path: filepath.Join(w.dir, "ca.crt"), server: w.cp.Admin.CAData}
	if err := w.ca.write(w.cp.Admin.CAData); err != nil {
		return err
	}
	for i, name := range []string{"controllers-0", "controllers-1"} {
		source := net.IPv4(127, 0, 1, byte(i+1))
		kubeconfig, wire, err := w.wired(name, controlplane.Account, source)
		if err != nil {
			return err
		}
		p := w.add(name, "controllers", "--kubeconfig", kubeconfig, "--key-dir", w.keys, "--root-ca-file", w.ca.path,
			"--leader-elect-resource-namespace", controlplane.Namespace, "--leader-elect-lease-duration=6s",
			"--leader-elect-renew-deadline=4s", "--leader-elect-retry-period=1s",
			"--controllers=*,token-request-controller", "--resign-tokens=all", "--resign-qps=50")
		p.wire, p.source = wire, source.String()
	}
	return nil
}

// addWebhooks starts both replicas behind one address.
func (w *world) addWebhooks(ctx context.Context) error {
	var targets []string
	for i, name := range []string{"webhook-0", "webhook-1"} {
		kubeconfig, wire, err := w.wired(name, controlplane.WebhookAccount, net.IPv4(127, 0, 1, byte(i+3)))
		if err != nil {
			return err
		}
		address, err := controlplane.FreeAddress()
		if err != nil {
			return err
		}
		targets = append(targets, address)
		_, port, _ := net.SplitHostPort(address)
		w.add(name, "webhook", "--kubeconfig", kubeconfig, "--bind-address=127.0.0.1", "--secure-port", port,
			"--certificate-hosts=127.0.0.1", "--shutdown-delay-duration=0s").wire = wire
	}
	front, err := faults.NewWire("127.0.0.1:0", nil, targets...)
	if err != nil {
		return err
	}
	w.wires = append(w.wires, front)
	return w.cp.InstallWebhook(ctx, controlplane.Webhook{Address: front.Address()})
}

// rotateKey does the next step of a rotation.
func (w *world) rotateKey(ctx context.Context) (output string, err error) {
	out, err := exec.CommandContext(ctx, w.binary, append([]string{"keys", "rotate", "--key-dir", w.keys}, keyWaits()...)...).CombinedOutput()
	w.secrets.scan("output of sakeeper keys", out)
	return string(out), err
}

// mend ends every disturbance, and finds the processes that are not ready after it.
func (w *world) mend(ctx context.Context) (f findings, err error) {
	for _, p := range w.processes {
		p.mend()
	}
	if err := errors.Join(w.ca.write(w.ca.good()), w.mendManager(ctx)); err != nil {
		return nil, err
	}
	w.forAll(func(p *process) {
		if err := p.waitReady(ctx); err != nil {
			f.add("ready", "%v", err)
		}
	})
	return f, nil
}

// mendManager starts kube-controller-manager again if a namespace has been on its way for long: it may
// have ended, or be waiting after a failure.
func (w *world) mendManager(ctx context.Context) error {
	list, err := w.client.CoreV1().Namespaces().List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(list.Items, func(n corev1.Namespace) bool {
		return n.DeletionTimestamp != nil && time.Since(n.DeletionTimestamp.Time) > 30*time.Second
	}) {
		return nil
	}
	return errors.Join(w.stopManager(), w.startManager())
}

func (w *world) forAll(each func(*process)) {
	for _, name := range processNames {
		each(w.processes[name])
	}
}

func (w *world) close() error {
	var errs []error
	for _, p := range w.processes {
		p.mend()
		p.stop()
	}
	for _, wire := range w.wires {
		wire.Close()
	}
	if w.stopManager != nil {
		errs = append(errs, w.stopManager())
	}
	if w.cp != nil {
		errs = append(errs, w.cp.Stop())
	}
	return errors.Join(append(errs, os.RemoveAll(w.dir))...)
}

// newName returns a text that is new each time.
func newName() string { return strings.ToLower(rand.Text()[:10]) }
