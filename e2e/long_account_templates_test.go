package e2e

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
)

// TestLongATemplateForManyNamespaces counts what a template costs, and prints how long it takes.
// TEMPLATED_NAMESPACES is how many there are: 500, or 5000 for what the chapter promises.
func TestLongATemplateForManyNamespaces(t *testing.T) {
	n := 500
	if value := os.Getenv("TEMPLATED_NAMESPACES"); value != "" {
		var err error
		n, err = strconv.Atoi(value)
		must(t, err)
	}
	p := newControlPlane(t)
	must(t, p.Install(t.Context(), "account-templates"))
	args := p.sakeeperArgs(t, "--controllers=*,service-account-template-controller")
	s := startReadySakeeper(t, args)
	forEach(t, n, func(ctx context.Context, i int) error {
		_, err := p.client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("n-", i)}}, metav1.CreateOptions{})
		return err
	})
	expectAccountsWith(t, p, n, "automount unset")

	mark, start := mustMark(t, p.ControlPlane), time.Now()
	must(t, p.client.CoreV1().RESTClient().Post().AbsPath(templatesPath).SetHeader("Content-Type", "application/json").Body([]byte(`{
		"apiVersion": "sakeeper.io/v1alpha1", "kind": "ServiceAccountTemplate", "metadata": {"name": "hardened"},
		"spec": {"automountServiceAccountToken": false, "imagePullSecrets": [{"name": "registry"}]}
	}`)).Do(t.Context()).Error())
	expectAccountsWith(t, p, n, "automount false registry")
	t.Logf("%d accounts are as the template says %v after it was created", n, time.Since(start).Round(time.Millisecond))
	expectTemplateReady(t, p, "hardened")
	if got := writesOfAccounts(t, p, mark); got != n {
		t.Errorf("%d writes of %d accounts", got, n)
	}
	must(t, s.Stop())
	mark = mustMark(t, p.ControlPlane)
	startReadySakeeper(t, args)
	if got := writesOfAccounts(t, p, mark); got > 0 {
		t.Errorf("%d writes of accounts after a restart", got)
	}

	mark = mustMark(t, p.ControlPlane)
	must(t, p.client.CoreV1().RESTClient().Delete().AbsPath(templatesPath).Do(t.Context()).Error())
	expectAccountsWith(t, p, n, "automount unset")
	t.Logf("%d writes took all back", writesOfAccounts(t, p, mark))
}

// writesOfAccounts returns how often accounts of the many namespaces were written since mark.
func writesOfAccounts(t *testing.T, p controlPlane, mark controlplane.Mark) int {
	t.Helper()
	writes := 0
	for _, r := range requests(t, p.ControlPlane, mark, "") {
		if r.Verb == "patch" && r.Object.Resource == "serviceaccounts" && strings.HasPrefix(r.Object.Namespace, "n-") {
			writes++
		}
	}
	return writes
}

// expectAccountsWith waits until the default accounts of n namespaces have settings.
func expectAccountsWith(t *testing.T, p controlPlane, n int, want string) {
	t.Helper()
	eventuallyIn(t, 5*patience, fmt.Sprintf("%d accounts with %s", n, want), func(ctx context.Context) error {
		list, err := p.client.CoreV1().ServiceAccounts("").List(ctx, metav1.ListOptions{ResourceVersion: "0"})
		if err != nil {
			return err
		}
		done := 0
		for i := range list.Items {
			if account := &list.Items[i]; strings.HasPrefix(account.Namespace, "n-") && settings(account) == want {
				done++
			}
		}
		if done != n {
			return fmt.Errorf("there are %d", done)
		}
		return nil
	})
}
