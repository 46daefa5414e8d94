package podadmission

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"regexp"

	gocmp "github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
)

// comparison has both sides. It is used from one goroutine.
type comparison struct {
	inTree   *inTree
	sakeeper *sakeeper
}

// observed has the results of both sides for one request.
type observed struct {
	request   *request
	given     *corev1.Pod // as shown to a webhook
	admitted  outcome     // by both phases of the plugin
	validated outcome     // by its second phase alone
	ours      outcome     // by both phases of sakeeper

	mirror       bool
	account      *corev1.ServiceAccount // nil when there is none
	cached       bool
	secretPlaces []string // where the generator named a Secret
}

func observe(r *request, given *corev1.Pod) observed {
	o := observed{request: r, given: given}
	_, o.mirror = given.Annotations[corev1.MirrorPodAnnotationKey]
	name := cmp.Or(given.Spec.ServiceAccountName, given.Spec.DeprecatedServiceAccount, defaultAccount)
	o.account, o.cached = r.account(name)

	return o
}

// compare runs r on both sides and returns their difference; "" if there is none.
func (c *comparison) compare(ctx context.Context, r *request) (o observed, difference string, err error) {
	given, err := r.shown()
	if err != nil {
		return o, "", err
	}
	o = observe(r, given)

	done, err := c.inTree.load(r)
	if err != nil {
		return o, "", err
	}
	defer func() {
		if e := done(); err == nil {
			err = e
		}
	}()

	steps := []func(context.Context, *observed) (string, error){c.admission, c.validation, c.oursAfterInTree, c.inTreeAfterOurs}
	for _, step := range steps {
		if difference, err = step(ctx, &o); err != nil || difference != "" {
			return o, difference, err
		}
	}

	return o, "", nil
}

func (c *comparison) admission(ctx context.Context, o *observed) (string, error) {
	internal, err := decoded(&o.request.Pod)
	if err != nil {
		return "", err
	}
	if o.admitted, err = c.inTree.admit(ctx, o.request, internal); err != nil {
		return "", err
	}
	o.ours, err = c.admitOurs(o.request, o.given)

	return differ("admission", o.given, o.admitted, o.ours), err
}

// validation compares the validation of a pod that another webhook changed after ours.
func (c *comparison) validation(ctx context.Context, o *observed) (string, error) {
	internal, err := decoded(&o.request.Pod)
	if err != nil {
		return "", err
	}
	if o.validated, err = c.inTree.validate(ctx, o.request, internal); err != nil {
		return "", err
	}
	shown := o.given
	if o.request.Patched { // between the phases, an API server converts
		if shown, err = stored(o.given); err != nil {
			return "", err
		}
	}
	refused, err := c.sakeeper.validate(o.request, shown)

	return differ("validation alone", o.given, o.validated, orAllowed(refused, shown)), err
}

func (c *comparison) oursAfterInTree(_ context.Context, o *observed) (string, error) {
	if !o.admitted.Allowed {
		return "", nil
	}
	got, refused, err := c.sakeeper.mutate(o.request, o.admitted.Pod)
	if err != nil || refused != nil {
		return differ("sakeeper after the plugin", o.given, o.admitted, orAllowed(refused, got)), err
	}

	return unchanged("sakeeper after the plugin", o.admitted.Pod, got), nil
}

func (c *comparison) inTreeAfterOurs(ctx context.Context, o *observed) (string, error) {
	if !o.ours.Allowed {
		return "", nil
	}
	internal, err := decoded(o.ours.Pod)
	if err != nil {
		return "", err
	}
	got, err := c.inTree.admit(ctx, o.request, internal)
	if err != nil || !got.Allowed {
		return differ("the plugin after sakeeper", o.given, o.ours, got), err
	}

	return unchanged("the plugin after sakeeper", o.ours.Pod, got.Pod), nil
}

// admitOurs does what an API server with our webhooks instead of the plugin does.
func (c *comparison) admitOurs(r *request, given *corev1.Pod) (outcome, error) {
	mutated, refused, err := c.sakeeper.mutate(r, given)
	if err != nil || refused != nil {
		return orAllowed(refused, nil), err
	}
	shown, err := stored(mutated)
	if err != nil {
		return outcome{}, err
	}
	refused, err = c.sakeeper.validate(r, shown)

	return orAllowed(refused, shown), err
}

func orAllowed(refused *outcome, pod *corev1.Pod) outcome {
	if refused != nil {
		return *refused
	}

	return outcome{Allowed: true, Pod: pod}
}

// stored returns the pod as an API server has it after a webhook changed it.
func stored(pod *corev1.Pod) (*corev1.Pod, error) {
	internal, err := decoded(pod)
	if err != nil {
		return nil, err
	}

	return versioned(internal)
}

// differ returns the difference of two outcomes for one pod, with fixed names instead of the
// random ones.
func differ(what string, given *corev1.Pod, want, got outcome) string {
	want.Pod, got.Pod = renamed(given, want.Pod), renamed(given, got.Pod)
	if equal(want, got) {
		return ""
	}

	return fmt.Sprintf("%s (-in-tree +sakeeper):\n%s", what, gocmp.Diff(want, got))
}

func unchanged(what string, before, after *corev1.Pod) string {
	if equal(before, after) {
		return ""
	}

	return fmt.Sprintf("%s changed the pod (-before +after):\n%s", what, gocmp.Diff(before, after))
}

// equal compares the JSON of a and b.
func equal(a, b any) bool {
	textA, errA := json.Marshal(a)
	textB, errB := json.Marshal(b)

	return errA == nil && errB == nil && string(textA) == string(textB)
}

// generated is a volume name as an API server generates it.
var generated = regexp.MustCompile(`^` + volumePrefix + `[bcdfghjklmnpqrstvwxz2456789]{5}$`)

// renamed returns pod with a fixed name for the volume that was added to given, if its name
// is generated.
func renamed(given, pod *corev1.Pod) *corev1.Pod {
	if pod == nil || len(pod.Spec.Volumes) == len(given.Spec.Volumes) {
		return pod
	}
	last := pod.Spec.Volumes[len(pod.Spec.Volumes)-1].Name
	if !generated.MatchString(last) {
		return pod
	}
	pod = pod.DeepCopy()
	pod.Spec.Volumes[len(pod.Spec.Volumes)-1].Name = volumePrefix + "RANDOM"
	for _, containers := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range containers {
			mounts := containers[i].VolumeMounts
			for j := range mounts {
				if mounts[j].Name == last {
					mounts[j].Name = volumePrefix + "RANDOM"
				}
			}
		}
	}

	return pod
}
