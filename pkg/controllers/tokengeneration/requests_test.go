package tokengeneration

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	clienttesting "k8s.io/client-go/testing"

	"github.com/sakeeper/sakeeper/pkg/testkit"
)

// requests returns the requests of a controller that handles team/robot, since the last call:
//
//	list                 the token Secrets of the namespace
//	list NAME            the token Secret of that name
//	create NAME          a complete Secret with that name
//	patch NAME...        the references of the cached version of the account to these Secrets
//	dry-run NAME...      such a patch as a dry run
//	delete NAME UID      the Secret with that UID
//
// The test fails if one of them has anything else.
func (f fixture) requests(t testing.TB) string {
	t.Helper()
	var lines []string
	for _, action := range f.server.Requests() {
		switch a := action.(type) {
		case clienttesting.ListActionImpl:
			lines = append(lines, listLine(t, a))
		case clienttesting.CreateActionImpl:
			lines = append(lines, createLine(t, a))
		case clienttesting.PatchActionImpl:
			lines = append(lines, patchLine(t, a))
		case clienttesting.DeleteActionImpl:
			lines = append(lines, "delete "+a.Name+" "+string(*a.DeleteOptions.Preconditions.UID))
		default:
			t.Errorf("unexpected request %v", action)
		}
	}
	return strings.Join(lines, ", ")
}

func listLine(t testing.TB, list clienttesting.ListActionImpl) string {
	t.Helper()
	selector := fields.OneTermEqualSelector("type", "kubernetes.io/service-account-token")
	name, named := list.ListRestrictions.Fields.RequiresExactMatch("metadata.name")
	if named {
		selector = fields.AndSelectors(selector, fields.OneTermEqualSelector("metadata.name", name))
	}
	if got := list.ListRestrictions.Fields; got.String() != fields.ParseSelectorOrDie(selector.String()).String() || list.Namespace != "team" {
		t.Errorf("listed %s of namespace %q", got, list.Namespace)
	}
	return strings.TrimSpace("list " + name)
}

func createLine(t testing.TB, create clienttesting.CreateActionImpl) string {
	t.Helper()
	name := create.Object.(*corev1.Secret).Name
	want := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: "team", Name: name, Annotations: map[string]string{
			"kubernetes.io/service-account.name": "robot", "kubernetes.io/service-account.uid": string(testkit.AccountUID),
		}},
		Type: "kubernetes.io/service-account-token",
		Data: map[string][]byte{"token": []byte(tokenFor(name, testkit.AccountUID)), "ca.crt": testkit.Bundle().PEM(), "namespace": []byte("team")},
	}
	if diff := cmp.Diff(want, create.Object); diff != "" {
		t.Errorf("created secret (-want +got):\n%s", diff)
	}
	return "create " + name
}

func patchLine(t testing.TB, patch clienttesting.PatchActionImpl) string {
	t.Helper()
	var body struct {
		Metadata map[string]string   `json:"metadata"`
		Secrets  []map[string]string `json:"secrets"`
	}
	must(t, json.Unmarshal(patch.Patch, &body))
	var names []string
	for _, ref := range body.Secrets {
		names = append(names, ref["name"])
		if len(ref) != 1 {
			t.Errorf("reference %v", ref)
		}
	}
	want := map[string]string{"uid": string(testkit.AccountUID), "resourceVersion": testkit.ResourceVersion}
	if diff := cmp.Diff(want, body.Metadata); diff != "" || patch.Namespace+"/"+patch.Name != "team/robot" || patch.PatchType != types.MergePatchType {
		t.Errorf("%s of %s/%s (-want +got):\n%s", patch.PatchType, patch.Namespace, patch.Name, diff)
	}
	verb := "patch "
	if len(patch.PatchOptions.DryRun) > 0 {
		verb = "dry-run "
	}
	return verb + strings.Join(names, " ")
}
