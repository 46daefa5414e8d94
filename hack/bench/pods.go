package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	certutil "k8s.io/client-go/util/cert"

	"github.com/sakeeper/sakeeper/hack/bench/load"
	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
)

// The ways to admit pods.
const (
	podsNone    = "no admission"
	podsPlugin  = "in-tree plugin"
	podsWebhook = "sakeeper webhook"
	podsNothing = "two webhooks without logic"
	podsAllow   = "one webhook that allows"
)

// The workloads of pods.
const (
	podsSequential     = "pods: one after the other"
	podsParallel       = "pods: 8 at once"
	podsAfterNamespace = "pods: right after their namespace"
)

// turns is the number of turns of each way in a run. Turns are short, and those of webhooks
// alternate, because other load on the machine changes within minutes.
const turns = 3

// cannedPatch is the whole patch for a pod with default settings.
var cannedPatch = []byte(`[
{"op":"add","path":"/spec/serviceAccountName","value":"default"},
{"op":"add","path":"/spec/serviceAccount","value":"default"},
{"op":"add","path":"/spec/volumes","value":[{"name":"kube-api-access-aaaaa","projected":{"defaultMode":420,"sources":[
 {"serviceAccountToken":{"expirationSeconds":3607,"path":"token"}},
 {"configMap":{"name":"kube-root-ca.crt","items":[{"key":"ca.crt","path":"ca.crt"}]}},
 {"downwardAPI":{"items":[{"path":"namespace","fieldRef":{"apiVersion":"v1","fieldPath":"metadata.namespace"}}]}}]}}]},
{"op":"add","path":"/spec/containers/0/volumeMounts","value":[{"name":"kube-api-access-aaaaa","readOnly":true,"mountPath":"/var/run/secrets/kubernetes.io/serviceaccount"}]}
]`)

// admission is a testbed on which webhooks are registered in turns.
type admission struct {
	*testbed
	*session

	client     kubernetes.Interface
	webhook    controlplane.Webhook
	mutating   *admissionregistrationv1.MutatingWebhookConfiguration
	validating *admissionregistrationv1.ValidatingWebhookConfiguration
	// certificate is that of the webhook without logic.
	certificate []byte
}

// pods measures the creation of pods with different ways to admit them. The in-tree plugin has
// an API server and kube-controller-manager of its own, which run beside the others.
func (s *session) pods(ctx context.Context) error {
	return s.onControlPlane(ctx, es256, true, func(plugin *testbed) error {
		if err := plugin.start(ctx, inTree, options{}); err != nil {
			return err
		}
		return s.on(ctx, es256, func(b *testbed) error {
			a := &admission{testbed: b, session: s}
			if err := a.prepareWebhooks(ctx); err != nil {
				return err
			}
			if err := b.start(ctx, sakeeper, options{}); err != nil {
				return err
			}
			return a.inTurns(ctx, plugin)
		})
	})
}

// inTurns creates pods in all ways, in an order that rotates.
func (a *admission) inTurns(ctx context.Context, plugin *testbed) error {
	none := func(context.Context) error { return nil }
	ways := []struct {
		name     string
		on       *testbed
		register func(ctx context.Context) error
	}{
		{podsNone, a.testbed, none},
		{podsPlugin, plugin, none},
		{podsWebhook, a.testbed, a.ours},
		{podsNothing, a.testbed, func(ctx context.Context) error { return a.nothing(ctx, true) }},
		{podsAllow, a.testbed, func(ctx context.Context) error { return a.nothing(ctx, false) }},
	}
	for turn := range turns * a.size.runs {
		for i := range ways {
			way := ways[(i+turn)%len(ways)]
			err := way.register(ctx)
			if err == nil {
				err = a.createPods(ctx, way.on, way.name, turn)
			}
			if err := errors.Join(err, a.leave(ctx)); err != nil {
				return fmt.Errorf("%s: %w", way.name, err)
			}
		}
	}
	return nil
}

// createPods runs one turn. The controllers, which create the ServiceAccount, run all the
// time. Only the pods right after their namespace wait for them; these are created in the
// first turn of each run.
func (s *session) createPods(ctx context.Context, b *testbed, way string, turn int) error {
	time.Sleep(2 * time.Second) // until the API server has seen the registration
	volume := way != podsNone && way != podsAllow
	prefix := fmt.Sprintf("t%d-%s-", turn, strings.ReplaceAll(way, " ", "-"))
	for _, job := range []struct {
		workload string
		load.Job
		once bool
	}{
		{podsSequential, load.Job{Kind: load.Pods, Prefix: prefix + "seq", Namespace: "pods", N: s.size.pods, Parallel: 1}, false},
		{podsParallel, load.Job{Kind: load.Pods, Prefix: prefix + "par", Namespace: "pods", N: 2 * s.size.pods, Parallel: 8}, false},
		{singlePod, load.Job{Kind: load.Pods, Prefix: prefix + "one", Namespace: "pods", N: s.size.single, Parallel: 1, Paced: true}, true},
		{podsAfterNamespace, load.Job{Kind: load.PodsAfterNamespace, Prefix: prefix + "new", N: 20, Parallel: 1}, true},
	} {
		if job.once && turn%turns != 0 {
			continue
		}
		job.Volume = volume
		out, err := b.measure(ctx, job.Job, job.N, nil)
		if err != nil {
			return fmt.Errorf("%s: %w", job.workload, err)
		}
		out = out.only(p50, p99, rate, serverCPU, reviewerCPU) // not those of the controllers
		s.record(job.workload, way, out)
	}
	return nil
}

// prepareWebhooks reads the webhook configurations of our manifests, and removes them again.
func (a *admission) prepareWebhooks(ctx context.Context) (err error) {
	if a.client, err = kubernetes.NewForConfig(a.controlPlane.Admin); err != nil {
		return err
	}
	if a.webhook, err = controlplane.NewWebhook(); err != nil {
		return err
	}
	if err := a.controlPlane.InstallWebhook(ctx, a.webhook); err != nil {
		return err
	}
	registration := a.client.AdmissionregistrationV1()
	if a.mutating, err = registration.MutatingWebhookConfigurations().Get(ctx, "sakeeper-webhook", metav1.GetOptions{}); err != nil {
		return err
	}
	if a.validating, err = registration.ValidatingWebhookConfigurations().Get(ctx, "sakeeper-webhook", metav1.GetOptions{}); err != nil {
		return err
	}
	a.mutating.ObjectMeta = metav1.ObjectMeta{Name: a.mutating.Name, Labels: a.mutating.Labels}
	a.validating.ObjectMeta = metav1.ObjectMeta{Name: a.validating.Name, Labels: a.validating.Labels}
	certificate, private, err := certutil.GenerateSelfSignedCertKey("127.0.0.1", nil, nil)
	a.certificate = certificate
	return errors.Join(err, a.leave(ctx),
		os.WriteFile(filepath.Join(a.testbed.dir, "nothing.crt"), certificate, 0o600), os.WriteFile(filepath.Join(a.testbed.dir, "nothing.key"), private, 0o600))
}

// ours registers and starts sakeeper webhook as users do.
func (a *admission) ours(ctx context.Context) error {
	args, err := a.controlPlane.WebhookArgs(a.webhook)
	if err != nil {
		return err
	}
	args = append(args, "--metrics-bind-address=127.0.0.1:0", "--health-probe-bind-address=127.0.0.1:0")
	return errors.Join(a.register(ctx, a.mutating.DeepCopy(), a.validating.DeepCopy()), a.run(exec.Command(a.testbed.sakeeper, args...)))
}

// nothing starts the webhook without logic and registers it as ours is; unless both is set, as
// a validating webhook only.
func (a *admission) nothing(ctx context.Context, both bool) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(self, "nothing", a.webhook.Address, filepath.Join(a.testbed.dir, "nothing.crt"), filepath.Join(a.testbed.dir, "nothing.key"))
	if err := a.run(cmd); err != nil {
		return err
	}
	mutating, validating := a.mutating.DeepCopy(), a.validating.DeepCopy()
	mutating.Webhooks[0].ClientConfig.CABundle = a.certificate
	validating.Webhooks[0].ClientConfig.CABundle = a.certificate
	if !both {
		mutating = nil
	}
	return a.register(ctx, mutating, validating)
}

func (a *admission) run(cmd *exec.Cmd) (err error) {
	a.reviewer, err = startProcess(cmd, a.logFile())
	return err
}

func (a *admission) register(ctx context.Context, mutating *admissionregistrationv1.MutatingWebhookConfiguration, validating *admissionregistrationv1.ValidatingWebhookConfiguration) error {
	registration := a.client.AdmissionregistrationV1()
	if mutating != nil {
		if _, err := registration.MutatingWebhookConfigurations().Create(ctx, mutating, metav1.CreateOptions{}); err != nil {
			return err
		}
	}
	_, err := registration.ValidatingWebhookConfigurations().Create(ctx, validating, metav1.CreateOptions{})
	return err
}

// leave removes the registrations, and then stops the webhook.
func (a *admission) leave(ctx context.Context) error {
	registration := a.client.AdmissionregistrationV1()
	err := errors.Join(
		registration.MutatingWebhookConfigurations().DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{}),
		registration.ValidatingWebhookConfigurations().DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{}),
	)
	if a.reviewer != nil {
		a.reviewer.stop()
		a.reviewer = nil
	}
	return err
}
