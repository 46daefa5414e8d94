package rules_test

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/yaml"

	"github.com/sakeeper/sakeeper/pkg/podadmission/rules"
)

var update = flag.Bool("update", false, "write the files in testdata")

// settingsFile is the optional file settings.yaml of a case.
type settingsFile struct {
	TokenVolumeSource     rules.TokenVolumeSource `json:"tokenVolumeSource"`
	LimitSecretReferences bool                    `json:"limitSecretReferences"`
	SecretReferenceScope  rules.Scope             `json:"secretReferenceScope"`
	// TokenSecret is the name of the account's token Secret.
	TokenSecret string `json:"tokenSecret"`
}

func (f settingsFile) settings() rules.Settings {
	return rules.Settings{
		TokenVolumeSource:     f.TokenVolumeSource,
		LimitSecretReferences: f.LimitSecretReferences,
		SecretReferenceScope:  f.SecretReferenceScope,
		Suffix:                func() string { return "abcde" },
	}
}

func mustRead(t *testing.T, path string, into any) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.UnmarshalStrict(data, into); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

// create applies the rules to a pod that is being created.
func create(pod *corev1.Pod, account *corev1.ServiceAccount, tokenSecret string, s rules.Settings) (rules.Changes, bool, error) {
	named := rules.Default(pod)
	changes, err := rules.Mutate(pod, account, tokenSecret, s)
	if err == nil {
		err = rules.Validate(pod, account, s)
	}
	return changes, named, err
}

// TestCases creates the pods in testdata: want.yaml is the resulting pod, or the status if it is
// refused. A pod that is admitted goes through the rules again, as in a reinvocation, and must not
// change.
func TestCases(t *testing.T) {
	dirs, err := filepath.Glob("testdata/*")
	if err != nil || len(dirs) == 0 {
		t.Fatalf("%d cases, error %v", len(dirs), err)
	}
	for _, dir := range dirs {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			var pod corev1.Pod
			var account corev1.ServiceAccount
			var file settingsFile
			mustRead(t, filepath.Join(dir, "in.yaml"), &pod)
			mustRead(t, filepath.Join(dir, "account.yaml"), &account)
			if path := filepath.Join(dir, "settings.yaml"); exists(path) {
				mustRead(t, path, &file)
			}
			before := account.DeepCopy()
			_, _, err := create(&pod, &account, file.TokenSecret, file.settings())
			if diff := cmp.Diff(before, &account); diff != "" {
				t.Errorf("the account was changed:\n%s", diff)
			}
			if err != nil {
				status := apierrors.APIStatus(nil)
				if !errors.As(err, &status) {
					t.Fatalf("%v has no status", err)
				}
				expectFile(t, filepath.Join(dir, "want.yaml"), status.Status())
				return
			}
			expectFile(t, filepath.Join(dir, "want.yaml"), pod)
			again := pod.DeepCopy()
			settings := file.settings()
			settings.Suffix = func() string { t.Error("a name was generated"); return "edcba" }
			changes, named, err := create(again, &account, file.TokenSecret, settings)
			if diff := cmp.Diff(rules.Changes{}, changes); diff != "" || named || err != nil {
				t.Errorf("the second time: %v, named %v, error %v", diff, named, err)
			}
			if diff := cmp.Diff(&pod, again); diff != "" {
				t.Errorf("the second time (-first +second):\n%s", diff)
			}
		})
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func expectFile(t *testing.T, path string, got any) {
	t.Helper()
	data, err := yaml.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(data)); diff != "" {
		t.Errorf("%s; if the change is intended, run the test with -update (-want +got):\n%s", path, diff)
	}
}
