package manifests

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

// pod is the pod of a workload, or a static pod.
type pod struct {
	where string
	spec  corev1.PodSpec
	// static pods run as root, because they read files of root.
	static bool
}

func pods(t *testing.T) []pod {
	t.Helper()
	var all []pod
	add := func(name, content string) {
		for _, object := range objects(t, name, content) {
			switch o := object.(type) {
			case *appsv1.Deployment:
				all = append(all, pod{where: name + " " + o.Name, spec: o.Spec.Template.Spec})
				expectLossOfANode(t, name, o)
				if *o.Spec.Replicas != 2 || len(o.Spec.Template.Spec.TopologySpreadConstraints) == 0 {
					t.Errorf("%s %s: %d replicas, spread by %v", name, o.Name, *o.Spec.Replicas, o.Spec.Template.Spec.TopologySpreadConstraints)
				}
			case *appsv1.DaemonSet:
				all = append(all, pod{where: name + " " + o.Name, spec: o.Spec.Template.Spec})
			case *corev1.Pod:
				all = append(all, pod{where: name, spec: o.Spec, static: true})
			}
		}
	}
	for _, dir := range overlays(t) {
		add(dir, kustomize(t, dir))
	}
	static, err := filepath.Glob("overlays/static-pod/pods/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range static {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		add(path, string(content))
	}
	if len(all) != 9 {
		t.Errorf("found %d pods", len(all))
	}
	return all
}

// expectLossOfANode: a pod leaves a lost node after 30 s, and replicas that answer requests of
// API servers are on different nodes where there are two.
func expectLossOfANode(t *testing.T, where string, d *appsv1.Deployment) {
	t.Helper()
	spec := d.Spec.Template.Spec
	for _, key := range []string{corev1.TaintNodeNotReady, corev1.TaintNodeUnreachable} {
		if !slices.ContainsFunc(spec.Tolerations, func(to corev1.Toleration) bool {
			return to.Key == key && to.Effect == corev1.TaintEffectNoExecute && to.TolerationSeconds != nil && *to.TolerationSeconds == 30
		}) {
			t.Errorf("%s %s does not leave nodes with the taint %s after 30 s: %v", where, d.Name, key, spec.Tolerations)
		}
	}
	if d.Name == "sakeeper-controllers" { // one of them works
		return
	}
	for _, c := range spec.TopologySpreadConstraints {
		// A cordoned node must count, and nodes that count must be ones where the pod can run.
		if c.WhenUnsatisfiable != corev1.DoNotSchedule || c.MaxSkew != 1 || c.TopologyKey != corev1.LabelHostname || c.NodeTaintsPolicy != nil {
			t.Errorf("%s %s: the replicas may be on one node: %v", where, d.Name, c)
		}
	}
	if !slices.ContainsFunc(spec.Tolerations, func(to corev1.Toleration) bool { return to.Key == "node-role.kubernetes.io/control-plane" }) {
		t.Errorf("%s %s: a replica waits for a node of the control plane", where, d.Name)
	}
}

func TestPodsAreHardened(t *testing.T) {
	for _, p := range pods(t) {
		for what, ok := range map[string]bool{
			"one container":                       len(p.spec.Containers) == 1,
			"seccomp":                             p.spec.SecurityContext.SeccompProfile.Type == corev1.SeccompProfileTypeRuntimeDefault,
			"not root, unless a static pod":       p.static || *p.spec.SecurityContext.RunAsNonRoot && *p.spec.SecurityContext.RunAsUser != 0,
			"a priority":                          strings.HasPrefix(p.spec.PriorityClassName, "system-"),
			"no automounted token":                !*p.spec.AutomountServiceAccountToken,
			"a token of its own, or a kubeconfig": p.static || slices.ContainsFunc(p.spec.Volumes, hasToken),
		} {
			if !ok {
				t.Errorf("%s lacks: %s", p.where, what)
			}
		}
		for _, c := range p.spec.Containers {
			s := c.SecurityContext
			for what, ok := range map[string]bool{
				"a read-only root":            *s.ReadOnlyRootFilesystem,
				"no escalation":               !*s.AllowPrivilegeEscalation,
				"no capabilities":             len(s.Capabilities.Drop) == 1 && s.Capabilities.Drop[0] == "ALL" && len(s.Capabilities.Add) == 0,
				"requests":                    !c.Resources.Requests.Cpu().IsZero() && !c.Resources.Requests.Memory().IsZero(),
				"probes":                      c.LivenessProbe != nil && c.ReadinessProbe != nil,
				"the log's end in the status": c.TerminationMessagePolicy == corev1.TerminationMessageFallbackToLogsOnError,
				"read-only mounts, but for its own directory": !slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool {
					return !m.ReadOnly && m.MountPath != "/run/sakeeper"
				}),
			} {
				if !ok {
					t.Errorf("%s lacks: %s", p.where, what)
				}
			}
		}
	}
}

func hasToken(v corev1.Volume) bool {
	return v.Projected != nil && slices.ContainsFunc(v.Projected.Sources, func(s corev1.VolumeProjection) bool { return s.ServiceAccountToken != nil })
}
