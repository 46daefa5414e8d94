package podadmission

import (
	"math/rand/v2"
	"reflect"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/admission"
)

const (
	tokenPath      = "/var/run/secrets/kubernetes.io/serviceaccount"
	volumePrefix   = "kube-api-access-"
	enforceMark    = "kubernetes.io/enforce-mountable-secrets"
	defaultAccount = "default"

	// unlisted is a Secret that no ServiceAccount lists.
	unlisted = "unlisted"
)

// The values that the rules check, and values close to them.
var (
	mountPaths = []string{
		tokenPath, tokenPath, tokenPath, tokenPath + "/", tokenPath + "/token", "/var/run/secrets/kubernetes.io",
		"/Var/Run/Secrets/kubernetes.io/serviceaccount", "/var/run/secrets//kubernetes.io/serviceaccount",
		"var/run/secrets/kubernetes.io/serviceaccount", " " + tokenPath, "/data", "",
	}
	volumeNames = []string{
		"kube-api-access-abcde", "kube-api-access-", "kube-api-access-a.b", "kube-api-access-2", "kube-api-access",
		"kube-api-accessabcde", "Kube-api-access-abcde", "my-kube-api-access-abcde", "default-token-abcde", "data", "cache", "",
	}
	marks = []string{
		"1", "t", "T", "TRUE", "true", "True", "0", "f", "F", "FALSE", "false", "False",
		"tRUE", "yes", "on", "", " true", "true ", "2", "\"true\"",
	}
	accountNames = []string{defaultAccount, "builder"}
	listed       = []string{"registry", "database", ""} // what a ServiceAccount may list
)

// generator makes one request. It draws its probabilities first, so that rules with several
// conditions are reached as often as the others.
type generator struct {
	*rand.Rand

	// unlisted and blank are the probabilities that a reference names a Secret that no
	// ServiceAccount lists, or has no name.
	unlisted, blank float64
	references      float64 // how likely a container has env or envFrom
	volumes         int
	mirror          bool
	secretPlaces    []string
}

func generate(seed, number uint64) (*request, *generator) {
	g := &generator{Rand: rand.New(rand.NewPCG(seed, number))}
	r := &request{
		Operation:             admission.Create,
		LimitSecretReferences: g.chance(0.12),
		Patched:               g.chance(0.2),
	}
	switch {
	case g.chance(0.2):
		r.Operation, r.Subresource = admission.Update, "ephemeralcontainers"
	case g.chance(0.04):
		r.Operation, r.Subresource = g.otherOperation()
	}
	g.drawProbabilities(r)
	r.Pod = g.pod(r)
	r.Name = r.Pod.Name
	g.accounts(r)

	return r, g
}

func (g *generator) drawProbabilities(r *request) {
	g.unlisted = pick(g, []float64{0, 0, 0.1, 0.5, 1})
	g.blank = pick(g, []float64{0, 0, 0, 0.1})
	g.volumes = pick(g, []int{0, 0, 1, 1, 2})
	g.references = pick(g, []float64{0, 0, 0.2, 0.5, 0.9})
	switch {
	case r.Subresource == "ephemeralcontainers":
		g.mirror = g.chance(0.05)
		g.volumes = pick(g, []int{0, 0, 1})
		g.references = pick(g, []float64{0.5, 0.9})
		g.unlisted = pick(g, []float64{0, 0.3, 1})
	case g.chance(0.2):
		g.mirror = true
		g.blank = pick(g, []float64{0, 0, 0, 1})
		g.references = pick(g, []float64{0, 0.15, 0.3})
	}
}

// otherOperation is one without a rule. It excludes CREATE of ephemeralcontainers, which the
// plugin would treat as that of a pod: API servers have no such request.
func (g *generator) otherOperation() (admission.Operation, string) {
	switch g.IntN(4) {
	case 0:
		return admission.Create, pick(g, []string{"binding", "eviction"})
	case 1:
		return admission.Update, pick(g, []string{"", "status", "resize"})
	case 2:
		return admission.Delete, ""
	default:
		return admission.Connect, pick(g, []string{"exec", "attach", "proxy"})
	}
}

func pick[T any](g *generator, from []T) T { return from[g.IntN(len(from))] }

func (g *generator) chance(p float64) bool { return g.Float64() < p }

func (g *generator) maybe() *bool {
	return pick(g, []*bool{nil, nil, new(true), new(false)})
}

// accounts adds each ServiceAccount to the cache, to the live objects only, or not at all. It
// always adds one of the same name in another namespace.
func (g *generator) accounts(r *request) {
	for _, name := range accountNames {
		account := g.account(name)
		switch {
		case g.chance(0.06): // missing
		case g.chance(0.15):
			r.Live = append(r.Live, account)
		default:
			r.Cached = append(r.Cached, account)
		}
		foreign := g.account(name)
		foreign.Namespace = "other"
		r.Cached = append(r.Cached, foreign)
	}
}

func (g *generator) account(name string) corev1.ServiceAccount {
	account := corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	account.AutomountServiceAccountToken = g.maybe()
	if g.chance(0.7) {
		account.Annotations = map[string]string{enforceMark: pick(g, marks), "team": "a"}
	}
	for _, secret := range listed {
		if g.chance(0.95) {
			account.Secrets = append(account.Secrets, corev1.ObjectReference{
				Name: secret, Namespace: pick(g, []string{"", "other"}), Kind: pick(g, []string{"", "Secret", "ConfigMap"}),
			})
		}
		if g.chance(0.6) {
			account.ImagePullSecrets = append(account.ImagePullSecrets, corev1.LocalObjectReference{Name: secret})
		}
	}
	if g.chance(0.1) {
		account.Secrets = nil
	}
	if g.chance(0.3) {
		account.ImagePullSecrets = nil
	}

	return account
}

func (g *generator) pod(r *request) corev1.Pod {
	pod := corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "web"}}
	if r.Operation == admission.Create {
		pod.Name = pick(g, []string{"web", "web", "", ""})
		pod.GenerateName = pick(g, []string{"", "web-"})
	}
	pod.Annotations = pick(g, []map[string]string{nil, {"team": "a"}, {corev1.MirrorPodAnnotationKey + "s": "x"}})
	if g.mirror {
		pod.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: pick(g, []string{"", "false", "3f2a"})}
	}

	spec := &pod.Spec
	spec.AutomountServiceAccountToken = g.maybe()
	if !g.mirror || g.chance(0.2) {
		g.name(spec, r)
	}
	for range g.volumes {
		volume := corev1.Volume{Name: pick(g, volumeNames)}
		g.fill(reflect.ValueOf(&volume.VolumeSource).Elem(), "volumes")
		spec.Volumes = append(spec.Volumes, volume)
	}
	for i := range pick(g, []int{0, 0, 1, 2}) {
		spec.InitContainers = append(spec.InitContainers, g.container("init", i, "initContainers"))
	}
	for i := range pick(g, []int{0, 1, 1, 1, 1, 2, 2, 3}) {
		spec.Containers = append(spec.Containers, g.container("main", i, "containers"))
	}
	for i := range pick(g, []int{0, 1, 1, 2}) {
		common := corev1.EphemeralContainerCommon(g.container("debug", i, "ephemeralContainers"))
		spec.EphemeralContainers = append(spec.EphemeralContainers, corev1.EphemeralContainer{EphemeralContainerCommon: common})
	}
	if g.chance(0.4) {
		g.fill(reflect.ValueOf(&spec.ImagePullSecrets).Elem(), "imagePullSecrets")
	}

	return pod
}

// name gives the pod a ServiceAccount in either field, in both, or in none.
func (g *generator) name(spec *corev1.PodSpec, r *request) {
	names := []string{"", "", defaultAccount, "builder", "builder", "builder", "missing"}
	if r.Operation == admission.Update {
		names = []string{defaultAccount, "builder", "builder", "builder"}
		if g.chance(0.15) {
			names = []string{"", "missing"}
		}
	}
	spec.ServiceAccountName = pick(g, names)
	spec.DeprecatedServiceAccount = pick(g, []string{"", spec.ServiceAccountName, spec.ServiceAccountName, pick(g, names)})
}

func (g *generator) container(name string, i int, path string) corev1.Container {
	container := corev1.Container{Name: name + strconv.Itoa(i), Image: "example.com/" + name}
	for range pick(g, []int{0, 0, 1, 2}) {
		container.VolumeMounts = append(container.VolumeMounts, corev1.VolumeMount{
			Name: pick(g, volumeNames), MountPath: pick(g, mountPaths), ReadOnly: g.chance(0.5), SubPath: pick(g, []string{"", "", "sub"}),
		})
	}
	if g.chance(g.references) {
		g.fill(reflect.ValueOf(&container.Env).Elem(), path+".env")
	}
	if g.chance(g.references) {
		g.fill(reflect.ValueOf(&container.EnvFrom).Elem(), path+".envFrom")
	}

	return container
}
