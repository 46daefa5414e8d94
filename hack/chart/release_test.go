package main

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane/controlplanetest"
)

// cluster is a control plane that the chart is installed in. It has no nodes.
type cluster struct {
	*controlplanetest.Cluster

	kubeconfig string
	objects    client.Client
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{Cluster: controlplanetest.Start(t)}
	var err error
	c.kubeconfig, err = c.Kubeconfig("helm.kubeconfig", c.Admin)
	must(t, err)
	c.objects, err = client.New(c.Admin, client.Options{})
	must(t, err)
	return c
}

// try runs a command of Helm about the release sakeeper.
func (c *cluster) try(t *testing.T, command string, args ...string) (string, error) {
	t.Helper()
	return helm(t, slices.Concat(strings.Fields(command), []string{"sakeeper"}, args, []string{"--kubeconfig=" + c.kubeconfig, "--namespace=" + namespace})...)
}

func (c *cluster) helm(t *testing.T, command string, args ...string) string {
	t.Helper()
	out, err := c.try(t, command, args...)
	if err != nil {
		t.Fatalf("helm %s %q: %v", command, args, err)
	}
	return out
}

// manifest returns the objects of the release.
func (c *cluster) manifest(t *testing.T) []*unstructured.Unstructured {
	t.Helper()
	objects, err := parse([]byte(c.helm(t, "get manifest")))
	must(t, err)
	if len(objects) < 10 {
		t.Fatalf("the release has only %d objects", len(objects))
	}
	return objects
}

// versions returns the resource versions of those of the objects that exist, by kind and name.
func (c *cluster) versions(t *testing.T, objects []*unstructured.Unstructured) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, o := range objects {
		found := &unstructured.Unstructured{}
		found.SetGroupVersionKind(o.GroupVersionKind())
		err := c.objects.Get(t.Context(), client.ObjectKeyFromObject(o), found)
		must(t, client.IgnoreNotFound(err))
		if err == nil {
			all[o.GetKind()+" "+o.GetName()] = found.GetResourceVersion()
		}
	}
	return all
}

// expectAll expects that each of the objects exists.
func (c *cluster) expectAll(t *testing.T, objects []*unstructured.Unstructured) {
	t.Helper()
	found := c.versions(t, objects)
	for _, o := range objects {
		if name := o.GetKind() + " " + o.GetName(); found[name] == "" {
			t.Errorf("there is no %s", name)
		}
	}
}

// controllersArgs returns the arguments of the controllers, of a Deployment or DaemonSet.
func (c *cluster) controllersArgs(t *testing.T, kind string) string {
	t.Helper()
	o := &unstructured.Unstructured{}
	o.SetAPIVersion("apps/v1")
	o.SetKind(kind)
	must(t, c.objects.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: "sakeeper-controllers"}, o))
	containers, _, err := unstructured.NestedSlice(o.Object, "spec", "template", "spec", "containers")
	must(t, err)
	args, _, err := unstructured.NestedStringSlice(containers[0].(map[string]any), "args")
	must(t, err)
	return strings.Join(args, " ")
}

// others is what the processes and the administrator write beside the chart.
type others struct {
	Key, Certificates map[string][]byte
	Bundle            []byte
	Template          string // its UID
}

func newTemplate() *unstructured.Unstructured {
	o := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{"automountServiceAccountToken": false}}}
	o.SetAPIVersion("sakeeper.io/v1alpha1")
	o.SetKind("ServiceAccountTemplate")
	o.SetName("hardened")
	return o
}

// writeOthers writes a signing key, a template, and what the webhook writes.
func (c *cluster) writeOthers(t *testing.T) {
	t.Helper()
	secrets := c.Client.CoreV1().Secrets(namespace)
	_, err := secrets.Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "sakeeper-signing-keys"}, Data: map[string][]byte{"key": []byte("k")}}, metav1.CreateOptions{})
	must(t, err)
	certificates, err := secrets.Get(t.Context(), "sakeeper-webhook-certificates", metav1.GetOptions{})
	must(t, err)
	certificates.Data = map[string][]byte{"ca.crt": c.Admin.CAData}
	_, err = secrets.Update(t.Context(), certificates, metav1.UpdateOptions{FieldManager: "sakeeper"})
	must(t, err)
	patch, err := json.Marshal([]map[string]any{{"op": "add", "path": "/webhooks/0/clientConfig/caBundle", "value": c.Admin.CAData}})
	must(t, err)
	_, err = c.Client.AdmissionregistrationV1().MutatingWebhookConfigurations().Patch(t.Context(), "sakeeper-webhook", types.JSONPatchType, patch, metav1.PatchOptions{FieldManager: "sakeeper"})
	must(t, err)
	controlplanetest.Eventually(t, "a template", func(context.Context) error { return c.objects.Create(t.Context(), newTemplate()) })
}

// readOthers returns what is left of that.
func (c *cluster) readOthers(t *testing.T) others {
	t.Helper()
	var o others
	key, err := c.Client.CoreV1().Secrets(namespace).Get(t.Context(), "sakeeper-signing-keys", metav1.GetOptions{})
	must(t, err)
	certificates, err := c.Client.CoreV1().Secrets(namespace).Get(t.Context(), "sakeeper-webhook-certificates", metav1.GetOptions{})
	must(t, client.IgnoreNotFound(err))
	configuration, err := c.Client.AdmissionregistrationV1().MutatingWebhookConfigurations().Get(t.Context(), "sakeeper-webhook", metav1.GetOptions{})
	must(t, client.IgnoreNotFound(err))
	if len(configuration.Webhooks) > 0 {
		o.Bundle = configuration.Webhooks[0].ClientConfig.CABundle
	}
	template := newTemplate()
	must(t, c.objects.Get(t.Context(), client.ObjectKeyFromObject(template), template))
	o.Key, o.Certificates, o.Template = key.Data, certificates.Data, string(template.GetUID())
	return o
}

func (c *cluster) expectOthers(t *testing.T, after string, want others) {
	t.Helper()
	if diff := cmp.Diff(want, c.readOthers(t)); diff != "" {
		t.Errorf("after %s (-before +after):\n%s", after, diff)
	}
}

// TestARelease: it is installed, upgraded, rolled back and removed, and what others wrote stays.
func TestARelease(t *testing.T) {
	c := newCluster(t)
	install := []string{chart(t), "--create-namespace", "--set=mode=replace,signingKeys.secretName=sakeeper-signing-keys,accountTemplates=true"}
	notes := c.helm(t, "install", install...)
	for _, want := range []string{"in sakeeper-system, in mode replace.", "get secret sakeeper-signing-keys -o yaml"} {
		if !strings.Contains(notes, want) {
			t.Errorf("the notes lack %q: %s", want, notes)
		}
	}
	objects := c.manifest(t)
	c.expectAll(t, objects)
	c.writeOthers(t)
	before := c.readOthers(t)
	if len(before.Bundle) == 0 || len(before.Certificates) == 0 {
		t.Fatalf("nothing was written: %v", before)
	}

	versions := c.versions(t, objects)
	c.helm(t, "upgrade", chart(t), "--reuse-values")
	if diff := cmp.Diff(versions, c.versions(t, objects)); diff != "" {
		t.Errorf("an upgrade to the same chart and values changed objects (-before +after):\n%s", diff)
	}
	const flag = "--public-server=https://x:6443"
	c.helm(t, "upgrade", chart(t), "--reuse-values", "--set=controllers.extraArgs={"+flag+"}")
	if args := c.controllersArgs(t, "DaemonSet"); !strings.HasSuffix(args, " "+flag) {
		t.Errorf("after the upgrade, the arguments are %s", args)
	}
	c.expectOthers(t, "the upgrade", before)
	_, err := c.try(t, "upgrade", chart(t), "--reuse-values", "--set=signingKeys.secretName=")
	expectRefused(t, err, "signingKeys.secretName: mode replace signs tokens")
	c.helm(t, "rollback", "1")
	if args := c.controllersArgs(t, "DaemonSet"); strings.Contains(args, flag) {
		t.Errorf("after the rollback, the arguments are %s", args)
	}
	c.expectOthers(t, "the rollback", before)

	c.helm(t, "uninstall")
	if left := c.versions(t, objects); len(left) != 1 || left["CustomResourceDefinition serviceaccounttemplates.sakeeper.io"] == "" {
		t.Errorf("after the removal there are %v", left)
	}
	c.expectOthers(t, "the removal", others{Key: before.Key, Template: before.Template})
	c.helm(t, "install", install...)
	c.expectAll(t, objects)
	c.expectOthers(t, "a new installation", others{Key: before.Key, Template: before.Template})
}

// TestAReleaseChangesItsMode: from coexist-webhook to coexist, as the chapter says.
func TestAReleaseChangesItsMode(t *testing.T) {
	c := newCluster(t)
	c.helm(t, "install", chart(t), "--create-namespace", "--set=mode=coexist-webhook,accountTemplates=true")
	webhook := c.manifest(t)
	c.helm(t, "upgrade", chart(t), "--reuse-values", "--set=policies.secretReferences=true")
	both := c.manifest(t)
	c.expectAll(t, both)
	if len(both) != len(webhook)+2 {
		t.Errorf("%d objects became %d with the policy", len(webhook), len(both))
	}
	must(t, c.RunKubectl(t.Context(), "delete", "validatingwebhookconfiguration", "sakeeper-webhook"))
	c.helm(t, "upgrade", chart(t), "--set=mode=coexist")
	coexist := c.manifest(t)
	c.expectAll(t, coexist)
	for name := range c.versions(t, both) {
		gone := strings.Contains(name, "webhook")
		if gone || !slices.ContainsFunc(coexist, func(o *unstructured.Unstructured) bool { return o.GetKind()+" "+o.GetName() == name }) {
			if name != "CustomResourceDefinition serviceaccounttemplates.sakeeper.io" {
				t.Errorf("%s is left", name)
			}
		}
	}
}

// TestOverKustomizeObjects: they are refused, nothing changes, and with two flags they are taken over.
func TestOverKustomizeObjects(t *testing.T) {
	c := newCluster(t)
	must(t, c.RunKubectl(t.Context(), "apply", "-k", filepath.Join(repository(t), "manifests", "overlays", "coexist")))
	objects, err := kustomize(repository(t), "overlays/coexist")
	must(t, err)
	versions := c.versions(t, objects)
	install := []string{chart(t), "--create-namespace", "--set=controllers.replicas=3"}
	_, err = c.try(t, "install", install...)
	expectRefused(t, err, "exists and cannot be imported into the current release: invalid ownership metadata")
	if diff := cmp.Diff(versions, c.versions(t, objects)); diff != "" || len(versions) != len(objects) {
		t.Errorf("what was refused changed objects (-before +after):\n%s", diff)
	}
	if _, err := c.try(t, "status"); err == nil {
		t.Error("what was refused left a release")
	}
	c.helm(t, "install", append(install, "--take-ownership", "--force-conflicts")...)
	deployment, err := c.Client.AppsV1().Deployments(namespace).Get(t.Context(), "sakeeper-controllers", metav1.GetOptions{})
	must(t, err)
	if *deployment.Spec.Replicas != 3 || deployment.Labels["app.kubernetes.io/managed-by"] != "Helm" {
		t.Errorf("it was not taken over: %d replicas, labels %v", *deployment.Spec.Replicas, deployment.Labels)
	}
	c.helm(t, "upgrade", chart(t), "--reuse-values", "--set=controllers.replicas=4")
	c.helm(t, "uninstall")
	if left := c.versions(t, objects); len(left) != 1 || left["Namespace "+namespace] == "" {
		t.Errorf("after the removal there are %v", left)
	}
}

// TestADowngradeBelowAStoredVersion: API servers refuse a definition without a version that is stored.
func TestADowngradeBelowAStoredVersion(t *testing.T) {
	c := newCluster(t)
	c.helm(t, "install", chart(t), "--create-namespace", "--set=accountTemplates=true")
	controlplanetest.Eventually(t, "a template", func(context.Context) error { return c.objects.Create(t.Context(), newTemplate()) })

	newer := filepath.Join(t.TempDir(), "sakeeper")
	must(t, os.CopyFS(newer, os.DirFS(chart(t))))
	path := filepath.Join(newer, "templates", "account-templates.yaml")
	content, err := os.ReadFile(path)
	must(t, err)
	const list = "\n  versions:\n"
	before, versions, found := strings.Cut(string(content), list)
	version, after, _ := strings.Cut(versions, "\n---\n")
	newVersion := strings.Replace(version, "name: v1alpha1\n", "name: v1\n", 1)
	oldVersion := strings.Replace(version, "storage: true\n", "storage: false\n", 1)
	if !found || newVersion == version || oldVersion == version {
		t.Fatalf("the definition has no version v1alpha1 that is stored:\n%s", content)
	}
	must(t, os.WriteFile(path, []byte(before+list+newVersion+"\n"+oldVersion+"\n---\n"+after), 0o600))
	path = filepath.Join(newer, "templates", "refusals.yaml")
	content, err = os.ReadFile(path)
	must(t, err)
	must(t, os.WriteFile(path, []byte(strings.Replace(string(content), `(list "v1alpha1")`, `(list "v1" "v1alpha1")`, 1)), 0o600))
	c.helm(t, "upgrade", newer, "--reuse-values", "--set=controllers.replicas=3")

	objects := c.manifest(t)
	was := c.versions(t, objects)
	_, err = c.try(t, "upgrade", chart(t), "--set=accountTemplates=true")
	expectRefused(t, err, "the cluster has stored ServiceAccountTemplates as v1, which this chart is too old for: use a newer chart")
	if diff := cmp.Diff(was, c.versions(t, objects)); diff != "" {
		t.Errorf("what was refused changed objects (-before +after):\n%s", diff)
	}
	_, err = c.try(t, "rollback", "1") // renders no template
	expectRefused(t, err, "status.storedVersions")
	template := newTemplate()
	must(t, c.objects.Get(t.Context(), client.ObjectKeyFromObject(template), template))
	c.helm(t, "upgrade", newer, "--set=accountTemplates=true")
}

// TestTheChartKnowsTheVersionsOfItsDefinition: those that refusals.yaml lists.
func TestTheChartKnowsTheVersionsOfItsDefinition(t *testing.T) {
	objects, err := kustomize(repository(t), "components/account-templates")
	must(t, err)
	var names []string
	for _, o := range objects {
		versions, _, err := unstructured.NestedSlice(o.Object, "spec", "versions")
		must(t, err)
		for _, version := range versions {
			names = append(names, strconv.Quote(version.(map[string]any)["name"].(string)))
		}
	}
	content, err := os.ReadFile(filepath.Join(chart(t), "templates", "refusals.yaml"))
	must(t, err)
	if want := "(has . (list " + strings.Join(names, " ") + "))"; len(names) == 0 || !strings.Contains(string(content), want) {
		t.Errorf("refusals.yaml does not say %s", want)
	}
}

// TestThePodOfHelmTest: a namespace like that of the overlay coexist admits it, and it asks the controllers
// where they answer.
func TestThePodOfHelmTest(t *testing.T) {
	c := newCluster(t)
	for mode, test := range map[string]struct{ values, level, address string }{
		"coexist":         {"mode=coexist", "restricted", "sakeeper-controllers.coexist.svc:8081"},
		"coexist-webhook": {"mode=coexist-webhook", "restricted", "sakeeper-controllers.coexist-webhook.svc:8081"},
		"replace":         {strings.Join(replace, ","), "privileged", "127.0.0.1:10268"},
	} {
		_, err := c.Client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
			Name: mode, Labels: map[string]string{"pod-security.kubernetes.io/enforce": test.level},
		}}, metav1.CreateOptions{})
		must(t, err)
		rendered := mustHelm(t, "template", "sakeeper", chart(t), "--namespace="+mode, "--kube-version=1.37.0", "--set="+test.values, "--show-only=templates/tests/ready.yaml")
		var pod corev1.Pod
		must(t, yaml.UnmarshalStrict([]byte(rendered), &pod))
		if args := pod.Spec.Containers[0].Args; !slices.Equal(args, []string{"probe", "readyz", "--address=" + test.address}) {
			t.Errorf("%s: it runs %v", mode, args)
		}
		if _, err := c.Client.CoreV1().Pods(mode).Create(t.Context(), &pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}); err != nil {
			t.Errorf("%s: %v", mode, err)
		}
	}
}

// TestTheNotesWork: what they say to type makes a Secret that asks for a token.
func TestTheNotesWork(t *testing.T) {
	c := newCluster(t)
	notes := c.helm(t, "install", chart(t), "--create-namespace")
	_, script, _ := strings.Cut(notes, "in the namespace ci:\n")
	script, _, found := strings.Cut(script, "  kubectl -n ci wait ")
	if !found {
		t.Fatalf("the notes are %s", notes)
	}
	kubectl, err := controlplane.Binary("kubectl")
	must(t, err)
	cmd := exec.CommandContext(t.Context(), "sh", "-euc", strings.ReplaceAll(script, "\n  ", "\n"))
	cmd.Env = append(os.Environ(), "KUBECONFIG="+c.kubeconfig, "PATH="+filepath.Dir(kubectl)+":"+os.Getenv("PATH"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", script, err, out)
	}
	secret, err := c.Client.CoreV1().Secrets("ci").Get(t.Context(), "builder", metav1.GetOptions{})
	must(t, err)
	if secret.Labels["sakeeper.io/token"] != "managed" || secret.Annotations["sakeeper.io/service-account"] != "builder" {
		t.Errorf("the Secret is %v", secret)
	}
}
