package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/sakeeper/sakeeper/hack/bench/load"
	"github.com/sakeeper/sakeeper/pkg/podadmission/rules"
	"github.com/sakeeper/sakeeper/pkg/policy"
)

// podsPolicy is a way to admit pods.
const podsPolicy = "policy secret-references"

// accountNumbers are the numbers of ServiceAccounts in the namespaces of the pods: the API
// server evaluates the policy for each.
var accountNumbers = []int{1, 10, 100, 1000}

// podsBeside is the workload of pods in a namespace with n ServiceAccounts.
func podsBeside(n int) string { return fmt.Sprintf("pods beside %d ServiceAccounts", n) }

// admissionLabel is the label of a namespace that says how its pods are admitted.
const admissionLabel = "bench.example.com/admission"

// policy measures the creation of pods with the policy secret-references and with the other
// ways that check the same references. The control planes run side by side, and all ways are
// registered all the time, each for namespaces of its own, so that single pods can take turns.
func (s *session) policy(ctx context.Context) error {
	s.progress("    %d pods, some 10 ms each, after half a minute of preparation", 4*len(accountNumbers)*turns*s.size.runs*s.size.pods)
	return s.onControlPlane(ctx, es256, true, func(plugin *testbed) error {
		return s.on(ctx, es256, func(b *testbed) (err error) {
			a := &admission{testbed: b, session: s}
			defer func() { err = errors.Join(err, a.leave(context.WithoutCancel(ctx))) }()
			if err := errors.Join(a.prepareWebhooks(ctx), a.oursForLabelled(ctx), a.registerPolicy(ctx)); err != nil {
				return err
			}
			jobs := map[int]load.Job{}
			for _, n := range accountNumbers {
				if jobs[n], err = alternate(ctx, n, s.size.pods, plugin, b); err != nil {
					return err
				}
			}
			for turn := range turns * s.size.runs {
				for _, n := range accountNumbers {
					if err := s.createInTurns(ctx, b, jobs[n], n, turn); err != nil {
						return fmt.Errorf("%s: %w", podsBeside(n), err)
					}
				}
			}
			return nil
		})
	})
}

// alternate returns the job that creates pods in a namespace for each way to admit them, and
// creates these namespaces, with n ServiceAccounts each.
func alternate(ctx context.Context, n, pods int, plugin, b *testbed) (load.Job, error) {
	job := load.Job{Kind: load.PodsInTurns, N: pods, Parallel: 1}
	for _, way := range []struct {
		on *testbed
		load.Way
	}{
		{b, load.Way{Name: podsNone}},
		{plugin, load.Way{Name: podsPlugin, Volume: true, Limited: true}},
		{b, load.Way{Name: podsWebhook, Volume: true, Limited: true}},
		{b, load.Way{Name: podsPolicy, Limited: true}},
	} {
		way.Kubeconfig = way.on.kubeconfig
		way.Namespace = fmt.Sprintf("%s-%d", labelOf(way.Name), n)
		if err := way.on.createAccounts(ctx, way.Way, n); err != nil {
			return job, fmt.Errorf("namespace %s: %w", way.Namespace, err)
		}
		job.Ways = append(job.Ways, way.Way)
	}
	return job, nil
}

func labelOf(way string) string { return strings.ReplaceAll(way, " ", "-") }

// createAccounts creates the namespace of way, with n ServiceAccounts. Only default limits its
// pods.
func (b *testbed) createAccounts(ctx context.Context, way load.Way, n int) error {
	client, err := kubernetes.NewForConfig(b.controlPlane.Admin)
	if err != nil {
		return err
	}
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: way.Namespace, Labels: map[string]string{admissionLabel: labelOf(way.Name)}}}
	if _, err := client.CoreV1().Namespaces().Create(ctx, namespace, metav1.CreateOptions{}); err != nil {
		return err
	}
	account := load.LimitedAccount()
	account.Annotations = map[string]string{rules.EnforceAnnotation: "true"}
	if _, err := client.CoreV1().ServiceAccounts(way.Namespace).Create(ctx, account, metav1.CreateOptions{}); err != nil {
		return err
	}
	return b.do(ctx, load.Job{Kind: load.Accounts, Prefix: "other", Own: true, Namespace: way.Namespace, N: n - 1})
}

// createInTurns runs one turn.
func (s *session) createInTurns(ctx context.Context, b *testbed, job load.Job, accounts, turn int) error {
	job.Prefix = fmt.Sprintf("t%d", turn)
	result, err := b.result(ctx, job)
	if err != nil {
		return err
	}
	nothing := result.Ways[podsNone].P50
	for _, way := range job.Ways {
		r := result.Ways[way.Name]
		out := sample{p50: ms(r.P50), p99: ms(r.P99)}
		if way.Name != podsNone {
			out[more], out[ofNothing] = ms(r.P50-nothing), float64(r.P50)/float64(nothing)
		}
		s.record(podsBeside(accounts), way.Name, out)
	}
	return nil
}

// oursForLabelled is ours for the namespaces with the label of the webhook.
func (a *admission) oursForLabelled(ctx context.Context) error {
	labelled := metav1.LabelSelectorRequirement{Key: admissionLabel, Operator: metav1.LabelSelectorOpIn, Values: []string{labelOf(podsWebhook)}}
	for _, selector := range []*metav1.LabelSelector{a.mutating.Webhooks[0].NamespaceSelector, a.validating.Webhooks[0].NamespaceSelector} {
		selector.MatchExpressions = append(selector.MatchExpressions, labelled)
	}
	return a.ours(ctx)
}

// registerPolicy registers the policy as our manifests do, for the namespaces with its label.
func (a *admission) registerPolicy(ctx context.Context) error {
	objects, err := policy.Generate([]string{policy.SecretReferencesName}, policy.Newest(), policy.Defaults())
	if err != nil {
		return err
	}
	registration := a.client.AdmissionregistrationV1()
	for _, object := range objects {
		switch o := object.(type) {
		case *admissionregistrationv1.ValidatingAdmissionPolicy:
			_, err = registration.ValidatingAdmissionPolicies().Create(ctx, o, metav1.CreateOptions{})
		case *admissionregistrationv1.ValidatingAdmissionPolicyBinding:
			o.Spec.MatchResources = &admissionregistrationv1.MatchResources{
				NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{admissionLabel: labelOf(podsPolicy)}},
			}
			_, err = registration.ValidatingAdmissionPolicyBindings().Create(ctx, o, metav1.CreateOptions{})
		}
		if err != nil {
			return err
		}
	}
	return nil
}
