package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clientfeatures "k8s.io/client-go/features"
	"k8s.io/klog/v2"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/controllers"
	"github.com/sakeeper/sakeeper/pkg/controllers/pullsecretcopy"
	"github.com/sakeeper/sakeeper/pkg/controllers/rootca"
	"github.com/sakeeper/sakeeper/pkg/controllers/tokengeneration"
	"github.com/sakeeper/sakeeper/pkg/controllers/tokeninventory"
	"github.com/sakeeper/sakeeper/pkg/controllers/tokenrequest"
	"github.com/sakeeper/sakeeper/pkg/keys"
	"github.com/sakeeper/sakeeper/pkg/testkit"
)

// listing are the feature gates of client-go without those lists that are watches, with which the
// right to list is not used.
type listing struct{ clientfeatures.Gates }

func (l listing) Enabled(f clientfeatures.Feature) bool {
	return f != clientfeatures.WatchListClient && l.Gates.Enabled(f)
}

// unused are rights of controllers whose use this test cannot cause.
var unused = map[string]string{
	"controllers: create events": "TestControllersThatMayNotRecordEventsAreNotReady takes it away: no event can say so",
	"controllers: patch events":  "counts an event that is repeated, which controllers avoid",
	"controllers: list leases":   "is for API servers that do not stream lists; without the right to watch, a standby says so",
}

// TestLongEveryMissingRightIsNamed takes each right of each role of the controllers away once, and
// makes the controller use it.
func TestLongEveryMissingRightIsNamed(t *testing.T) {
	gates := clientfeatures.FeatureGates()
	clientfeatures.ReplaceFeatureGates(listing{gates})
	defer clientfeatures.ReplaceFeatureGates(gates)
	p := newControlPlane(t)
	mustBackdateTracking(t, p.client)
	must(t, p.Install(t.Context(), "account-templates"))
	eventually(t, "templates are served", func(ctx context.Context) error {
		return p.client.CoreV1().RESTClient().Get().AbsPath(templatesPath).Do(ctx).Error()
	})
	t.Run("roles", func(t *testing.T) {
		for i, directory := range append(controllers.Names(), "controllers", tokenrequest.Name+"-served", pullsecretcopy.Name+"-sources", pullsecretcopy.Name+"-copies") {
			t.Run(directory, func(t *testing.T) {
				t.Parallel()
				for j, taken := range rightsOf(t, directory) {
					name := taken.verb + " " + taken.resource
					if why := unused[directory+": "+name]; why != "" {
						t.Logf("%s: %s", name, why)
						continue
					}
					t.Run(name, func(t *testing.T) {
						c := missingRight{controlPlane: p, directory: directory, right: taken, namespace: fmt.Sprintf("r-%d-%d", i, j), caFile: filepath.Join(t.TempDir(), "ca.crt")}
						c.run(t)
					})
				}
			})
		}
	})
}

// missingRight is one right that a controller lacks.
type missingRight struct {
	controlPlane
	right

	directory string
	namespace string // of this case alone; its user has the same name
	caFile    string // is not used by other cases
}

func (c missingRight) run(t *testing.T) {
	_, err := c.client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name: c.namespace, Labels: map[string]string{api.TokenRequestsLabel: api.TokenRequestsAllowed},
	}}, metav1.CreateOptions{})
	must(t, err)
	c.grant(t, "controllers")
	c.grant(t, c.controller())
	switch c.controller() {
	case tokenrequest.Name:
		c.grant(t, tokenrequest.Name+"-served")
	case pullsecretcopy.Name:
		c.grant(t, pullsecretcopy.Name+"-sources")
		c.grant(t, pullsecretcopy.Name+"-copies")
	}
	start := c.startSuite
	if c.resource == "leases" {
		start = c.startBinary
	}
	if c.resource == "leases" && c.verb == "watch" {
		c.takeLease(t)
	}
	ready := start(t)
	provoke := provocation(c)
	attempt, last := 0, time.Time{}
	eventually(t, "readiness that names it", func(ctx context.Context) error {
		if time.Since(last) > time.Second { // what one attempt makes may need the next
			must(t, provoke(ctx, attempt))
			attempt, last = attempt+1, time.Now()
		}
		return c.named(ready())
	})
	eventually(t, "an event that names it", func(ctx context.Context) error {
		events, err := c.client.CoreV1().Events(c.namespace).List(ctx, metav1.ListOptions{FieldSelector: "reason=" + api.ReasonMissingRight})
		if err == nil && len(events.Items) == 0 {
			err = errors.New("there is none")
		}
		if err != nil {
			return err
		}
		if text := events.Items[0].Message; !strings.HasPrefix(text, "the user "+c.namespace+" has no right to ") {
			return fmt.Errorf("it says %s", text)
		}
		return c.named(errors.New("missing rights: " + events.Items[0].Message))
	})
}

// named returns nil if err names the right, its role, and no other right.
func (c missingRight) named(err error) error {
	text := fmt.Sprint(err)
	resource := c.resource
	if c.group != "" {
		resource += "." + c.group
	}
	if !strings.Contains(text+" ", " has no right to "+c.verb+" "+resource+" ") && !strings.Contains(text, " has no right to "+c.verb+" "+resource+",") ||
		!strings.Contains(text+" ", "manifests/rbac/"+c.directory+" ") || strings.Count(text, "has no right") != 1 {
		return fmt.Errorf("got %s", text)
	}
	return nil
}

// controller is the one that uses the right.
func (c missingRight) controller() string {
	if c.directory == "controllers" {
		return rootca.Name
	}
	for _, part := range []string{"-served", "-sources", "-copies"} {
		if controller, ok := strings.CutSuffix(c.directory, part); ok {
			return controller
		}
	}
	return c.directory
}

// startSuite starts the controller and returns its readiness.
func (c missingRight) startSuite(t *testing.T) (ready func() error) {
	user, err := c.User(c.namespace)
	must(t, errors.Join(err, os.WriteFile(c.caFile, c.Admin.CAData, 0o600)))
	o := controllers.Options{
		Config: user, Controllers: []string{c.controller()},
		Keys:    controllers.KeyFiles(keys.Files{PrivateKeyFile: c.SigningKeyFile}),
		RootCA:  controllers.CAFile(c.caFile),
		Process: &corev1.ObjectReference{Kind: "Lease", APIVersion: "coordination.k8s.io/v1", Namespace: c.namespace, Name: "sakeeper-controllers"},
	}
	o.TokenCleaner.Period, o.TokenCleaner.Interval = time.Second, time.Second
	o.TokenGeneration.Mode = tokengeneration.ModeNone
	if c.controller() == tokengeneration.Name {
		o.TokenGeneration.Mode = tokengeneration.ModeLabelled
	}
	if c.controller() == tokeninventory.Name {
		o.TokenInventory.Interval = time.Second
	}
	if c.controller() == pullsecretcopy.Name {
		o.PullSecretCopy.SourceNamespaces = []string{c.namespace}
	}
	suite, err := controllers.New(o)
	must(t, err)
	t.Cleanup(testkit.Start(klog.NewContext(t.Context(), logr.Discard()), t, suite.Run))
	return suite.Ready
}

// startBinary starts the controller in a process that uses a Lease, and returns the body of its /readyz.
func (c missingRight) startBinary(t *testing.T) (ready func() error) {
	user, err := c.User(c.namespace)
	must(t, err)
	kubeconfig, err := c.Kubeconfig(c.namespace+".kubeconfig", user)
	must(t, err)
	s := startSakeeper(t, []string{
		"controllers", "--kubeconfig", kubeconfig, "--root-ca-file", c.CAFile,
		"--controllers", c.controller(), "--leader-elect-resource-namespace", c.namespace,
	})
	return func() error {
		_, body, err := s.Get(t.Context(), "/readyz")
		return errors.Join(err, errors.New(strings.TrimSpace(body)))
	}
}

// takeLease takes the Lease for longer than the test lasts, so that the process is a standby.
func (c missingRight) takeLease(t *testing.T) {
	t.Helper()
	_, err := c.client.CoordinationV1().Leases(c.namespace).Create(t.Context(), &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Name: api.ControllersLease},
		Spec: coordinationv1.LeaseSpec{
			HolderIdentity: new("another"), LeaseDurationSeconds: new(int32(3600)), RenewTime: new(metav1.NowMicro()),
		},
	}, metav1.CreateOptions{})
	must(t, err)
}

// rightsOf are those of the roles in a directory of manifests/rbac, each once.
func rightsOf(t *testing.T, directory string) []right {
	t.Helper()
	var all []right
	for _, rules := range rolesIn(t, directory).rules {
		for _, list := range rules {
			for _, rule := range list {
				for _, r := range expand("", "", rule) {
					if !slices.Contains(all, r.kind()) {
						all = append(all, r.kind())
					}
				}
			}
		}
	}
	if len(all) == 0 {
		t.Fatalf("%s grants nothing", directory)
	}
	slices.SortFunc(all, func(a, b right) int { return strings.Compare(a.String(), b.String()) })
	return all
}

func rolesIn(t *testing.T, directory string) roles {
	t.Helper()
	found := roles{rules: map[rbacv1.RoleRef]map[string][]rbacv1.PolicyRule{}}
	must(t, found.read(filepath.Join("..", "manifests", "rbac", directory, "role.yaml")))
	return found
}

// grant gives the user copies of the roles in a directory, without the right that is taken away. Those
// for the namespace of sakeeper are for that of the case.
func (c missingRight) grant(t *testing.T, directory string) {
	t.Helper()
	subjects := []rbacv1.Subject{{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: c.namespace}}
	for ref, byNamespace := range rolesIn(t, directory).rules {
		for namespace, rules := range byNamespace {
			meta := metav1.ObjectMeta{Name: c.namespace + ":" + directory, Namespace: namespace}
			if namespace == "sakeeper-system" {
				meta.Namespace = c.namespace
			}
			ref.Name = meta.Name
			var err1, err2 error
			if ref.Kind == "ClusterRole" {
				_, err1 = c.client.RbacV1().ClusterRoles().Create(t.Context(), &rbacv1.ClusterRole{ObjectMeta: meta, Rules: c.without(rules)}, metav1.CreateOptions{})
				_, err2 = c.client.RbacV1().ClusterRoleBindings().Create(t.Context(), &rbacv1.ClusterRoleBinding{ObjectMeta: meta, RoleRef: ref, Subjects: subjects}, metav1.CreateOptions{})
			} else {
				_, err1 = c.client.RbacV1().Roles(meta.Namespace).Create(t.Context(), &rbacv1.Role{ObjectMeta: meta, Rules: c.without(rules)}, metav1.CreateOptions{})
				_, err2 = c.client.RbacV1().RoleBindings(meta.Namespace).Create(t.Context(), &rbacv1.RoleBinding{ObjectMeta: meta, RoleRef: ref, Subjects: subjects}, metav1.CreateOptions{})
			}
			must(t, errors.Join(err1, err2))
		}
	}
}

// without returns rules for each right but the one that is taken away.
func (c missingRight) without(rules []rbacv1.PolicyRule) []rbacv1.PolicyRule {
	var left []rbacv1.PolicyRule
	for _, rule := range rules {
		for _, r := range expand("", "", rule) {
			if r.kind() != c.kind() {
				left = append(left, rbacv1.PolicyRule{
					APIGroups: []string{r.group}, Resources: []string{r.resource}, Verbs: []string{r.verb}, ResourceNames: rule.ResourceNames,
				})
			}
		}
	}
	return left
}
