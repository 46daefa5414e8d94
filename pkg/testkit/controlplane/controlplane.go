// Package controlplane runs a real kube-apiserver with etcd on loopback, for
// tests, the demo and benchmarks. There is no kubelet and no scheduler, and a
// kube-controller-manager only after [ControlPlane.StartControllerManager].
//
// The binaries are those that [Binary] finds. The API server authorizes by
// RBAC, writes an audit log ([Audit]), and by default runs without the in-tree
// ServiceAccount admission plugin.
package controlplane

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	utilrand "k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"
)

// Options configure a control plane.
type Options struct {
	// Dir holds keys and logs. Required; the caller removes it. It is also removed
	// when this process ends without [ControlPlane.Stop].
	Dir string
	// MoreKeyFiles are verification keys of the API server besides the signing key.
	MoreKeyFiles []string
	// PodAdmission enables the in-tree admission plugin ServiceAccount.
	PodAdmission bool
	// MaxTokenLifetime is --service-account-max-token-expiration; zero is no limit.
	MaxTokenLifetime time.Duration
	// SigningEndpoint is the unix socket of an external signer, which must be running. The
	// API server then has no keys of its own.
	SigningEndpoint string
	// AdmissionConfigFile is an AdmissionConfiguration, for example with the credentials for
	// webhooks.
	AdmissionConfigFile string
	// AuditAnswersOnly keeps writes that are not answered yet out of the audit log, so that
	// [Audit] does not wait for them. A benchmark sets it.
	AuditAnswersOnly bool
	// EtcdQuota is how large etcd's data may become, in bytes. Default: etcd's own, 2 GiB.
	EtcdQuota int64
}

// ControlPlane is a running control plane.
type ControlPlane struct {
	dir     string
	env     *envtest.Environment
	server  *server
	etcd    *etcd
	cleanup cleanup
	users   sync.Mutex // envtest makes the certificate of one user at a time
	// Admin has the credentials of a member of system:masters.
	Admin *rest.Config
	// Audit reads the audit log.
	Audit *Audit
	// SigningKeyFile is for --service-account-private-key-file.
	SigningKeyFile string
	// CAFile is for --root-ca-file.
	CAFile string
}

const (
	auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
rules:
- {level: Metadata, verbs: [get, list, watch], omitStages: [RequestReceived]}
- {level: Request, verbs: [delete]}
- {level: Metadata}
`
	auditAnswersOnlyPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules: [{level: Metadata}]
`
)

// Start starts a control plane and returns when its API server is ready.
func Start(opts Options) (*ControlPlane, error) {
	ctrllog.SetLogger(logr.Discard()) // envtest returns its errors too
	etcd, err1 := Binary("etcd")
	kubeAPIServer, err2 := Binary("kube-apiserver")
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	cp := &ControlPlane{
		dir:            opts.Dir,
		SigningKeyFile: filepath.Join(opts.Dir, "sa.key"),
		CAFile:         filepath.Join(opts.Dir, "ca.crt"),
		// Not beside the keys: who watches their directory would be told of every line.
		Audit: &Audit{path: filepath.Join(opts.Dir, "audit", "audit.log")},
	}
	if err := os.MkdirAll(filepath.Dir(cp.Audit.path), 0o700); err != nil {
		return nil, err
	}
	if err := writeSigningKey(cp.SigningKeyFile); err != nil {
		return nil, err
	}
	policy, content := filepath.Join(opts.Dir, "audit-policy.yaml"), auditPolicy
	if opts.AuditAnswersOnly {
		content = auditAnswersOnlyPolicy
	}
	if err := os.WriteFile(policy, []byte(content), 0o600); err != nil {
		return nil, err
	}
	if err := os.WriteFile(cp.Audit.path, nil, 0o600); err != nil {
		return nil, err
	}

	address, err := FreeAddress()
	if err != nil {
		return nil, err
	}
	apiserver := &envtest.APIServer{Path: kubeAPIServer}
	if apiserver.Address, apiserver.Port, err = net.SplitHostPort(address); err != nil {
		return nil, err
	}
	apiserver.Configure().
		Set("service-account-key-file", append([]string{cp.SigningKeyFile}, opts.MoreKeyFiles...)...).
		Set("service-account-signing-key-file", cp.SigningKeyFile).
		Set("service-account-issuer", "https://kubernetes.default.svc").
		Set("audit-policy-file", policy).
		Set("audit-log-path", cp.Audit.path).
		Set("audit-log-mode", "blocking").
		Set("audit-log-maxsize", "100000")
	if opts.SigningEndpoint != "" {
		apiserver.Configure().
			Set("service-account-signing-endpoint", opts.SigningEndpoint).
			Disable("service-account-key-file").Disable("service-account-signing-key-file")
	}
	if opts.MaxTokenLifetime > 0 {
		apiserver.Configure().Set("service-account-max-token-expiration", opts.MaxTokenLifetime.String())
	}
	if opts.AdmissionConfigFile != "" {
		apiserver.Configure().Set("admission-control-config-file", opts.AdmissionConfigFile)
	}
	if opts.PodAdmission { // envtest disables the plugin
		apiserver.Configure().Disable("disable-admission-plugins")
	}
	cp.env = &envtest.Environment{
		ControlPlaneStartTimeout: 2 * time.Minute,
		ControlPlaneStopTimeout:  time.Minute,
	}
	cp.env.ControlPlane.APIServer = apiserver
	cp.env.ControlPlane.Etcd = &envtest.Etcd{Path: etcd}
	if opts.EtcdQuota > 0 {
		cp.env.ControlPlane.Etcd.Configure().Set("quota-backend-bytes", strconv.FormatInt(opts.EtcdQuota, 10))
	}
	if cp.Admin, err = cp.env.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start control plane: %w", err), cp.env.Stop())
	}
	if cp.server, err = findServer(apiserver.Port); err != nil {
		return nil, errors.Join(err, cp.env.Stop())
	}
	if err := cp.findEtcd(); err != nil {
		return nil, errors.Join(err, cp.env.Stop())
	}
	if err := cp.startCleanup(); err != nil {
		return nil, errors.Join(err, cp.Stop())
	}
	cp.Audit.admin, err = kubernetes.NewForConfig(cp.Admin)
	if err != nil {
		return nil, errors.Join(err, cp.Stop())
	}
	if err := os.WriteFile(cp.CAFile, cp.Admin.CAData, 0o600); err != nil {
		return nil, errors.Join(err, cp.Stop())
	}
	return cp, nil
}

// Stop stops the API server and etcd.
func (cp *ControlPlane) Stop() error {
	cp.cleanup.cancel()
	var errs []error
	if cp.server != nil && cp.server.exited != nil {
		errs = append(errs, cp.KillServer())
	}
	if cp.etcd != nil && cp.etcd.exited != nil {
		errs = append(errs, cp.KillEtcd())
	}
	return errors.Join(append(errs, cp.env.Stop())...)
}

// User returns credentials of a user, who has the rights that RBAC grants. It is safe for concurrent use.
func (cp *ControlPlane) User(name string, groups ...string) (*rest.Config, error) {
	cp.users.Lock()
	defer cp.users.Unlock()
	user, err := cp.env.AddUser(envtest.User{Name: name, Groups: groups}, &rest.Config{QPS: -1})
	if err != nil {
		return nil, err
	}
	return user.Config(), nil
}

// ServiceAccount returns credentials of a user with the name and groups of a
// ServiceAccount, so that role bindings to the ServiceAccount apply.
func (cp *ControlPlane) ServiceAccount(namespace, name string) (*rest.Config, error) {
	return cp.User("system:serviceaccount:"+namespace+":"+name, "system:serviceaccounts", "system:serviceaccounts:"+namespace)
}

// Kubeconfig writes config as a kubeconfig file of that name and returns its path.
func (cp *ControlPlane) Kubeconfig(name string, config *rest.Config) (string, error) {
	path := filepath.Join(cp.dir, name)
	return path, clientcmd.WriteToFile(clientcmdapi.Config{
		CurrentContext: "local",
		Contexts:       map[string]*clientcmdapi.Context{"local": {Cluster: "local", AuthInfo: "local"}},
		Clusters: map[string]*clientcmdapi.Cluster{"local": {
			Server: "https://" + strings.TrimPrefix(config.Host, "https://"), CertificateAuthorityData: config.CAData,
		}},
		AuthInfos: map[string]*clientcmdapi.AuthInfo{"local": {
			ClientCertificateData: config.CertData, ClientKeyData: config.KeyData, Token: config.BearerToken,
		}},
	}, path)
}

// ServerPID is the process id of the API server.
func (cp *ControlPlane) ServerPID() int { return cp.server.pid }

// RunKubectl runs kubectl as the admin.
func (cp *ControlPlane) RunKubectl(ctx context.Context, args ...string) error {
	kubeconfig, err := cp.Kubeconfig("admin-"+utilrand.String(5)+".kubeconfig", cp.Admin) // others may be reading theirs
	if err != nil {
		return err
	}
	kubectl, err := Binary("kubectl")
	if err != nil {
		return err
	}
	out, err := exec.CommandContext(ctx, kubectl, append([]string{"--kubeconfig", kubeconfig}, args...)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

// ControllerManager configures a kube-controller-manager.
type ControllerManager struct {
	// Controllers are the only ones to run.
	Controllers []string
	// SigningKey passes the signing key. The token controller runs if and only if it is
	// set, regardless of Controllers.
	SigningKey bool
	// RootCAFile is the CA that it publishes and writes to token Secrets; empty: that of
	// the control plane.
	RootCAFile string
	// Flags come after the default flags, which set high client rate limits.
	Flags []string
	// Output gets its log; nil: the log is discarded.
	Output io.Writer
}

// StartControllerManager runs kube-controller-manager as the admin until stop is called.
func (cp *ControlPlane) StartControllerManager(m ControllerManager) (stop func() error, err error) {
	cmd, err := cp.ControllerManager(m)
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start kube-controller-manager: %w", err)
	}
	return func() error {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // killed: the exit code has no meaning
		return nil
	}, nil
}

// ControllerManager returns the command of a kube-controller-manager, not started.
func (cp *ControlPlane) ControllerManager(m ControllerManager) (*exec.Cmd, error) {
	kubeconfig, err := cp.Kubeconfig("kube-controller-manager.kubeconfig", cp.Admin)
	if err != nil {
		return nil, err
	}
	args := []string{
		"--kubeconfig", kubeconfig, "--controllers", strings.Join(m.Controllers, ","),
		"--leader-elect=false", "--secure-port=0", "--kube-api-qps=500", "--kube-api-burst=1000",
		"--root-ca-file", cmp.Or(m.RootCAFile, cp.CAFile),
	}
	if m.SigningKey {
		args = append(args, "--service-account-private-key-file", cp.SigningKeyFile)
	}
	binary, err := Binary("kube-controller-manager")
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(binary, append(args, m.Flags...)...)
	cmd.Stdout, cmd.Stderr = m.Output, m.Output
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	return cmd, nil
}

func writeSigningKey(path string) error {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	block := &pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}
	return os.WriteFile(path, pem.EncodeToMemory(block), 0o600)
}

// RepositoryRoot returns the nearest directory with a go.mod, from the working directory up.
func RepositoryRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("not in a Go module")
		}
		dir = parent
	}
}
