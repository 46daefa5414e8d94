package controlplane

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// newRepository creates a repository with those files, and makes it the working directory.
func newRepository(t *testing.T, files ...string) string {
	t.Helper()
	root := t.TempDir()
	for _, file := range append(files, "go.mod") {
		path := filepath.Join(root, file)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(root)
	return root
}

func TestBinary(t *testing.T) {
	root := newRepository(t, "bin/k8s/v1.1.0/etcd", "bin/k8s/v1.2.0/etcd", "bin/k8s/v1.1.0/kube-controller-manager", "envtest/etcd")
	tests := map[string]struct {
		name, version, kubebuilder string
		want, wantErr              string
	}{
		"the newest":                {name: "etcd", want: "bin/k8s/v1.2.0/etcd"},
		"a version":                 {name: "etcd", version: "v1.1.0", want: "bin/k8s/v1.1.0/etcd"},
		"nothing is built":          {name: "kubectl", wantErr: "no kubectl in bin/k8s/v*: run `make kubectl` first"},
		"the version is not built":  {name: "etcd", version: "v1.3.0", wantErr: "no etcd in bin/k8s/v1.3.0: run `make control-plane VERSION=v1.3.0` first"},
		"no controller manager":     {name: "kube-controller-manager", version: "v1.2.0", wantErr: "run `make kube-controller-manager VERSION=v1.2.0` first"},
		"of kubebuilder":            {name: "etcd", version: "v1.1.0", kubebuilder: "envtest", want: "envtest/etcd"},
		"kubebuilder lacks it":      {name: "kubectl", kubebuilder: "envtest", wantErr: "KUBEBUILDER_ASSETS: stat " + filepath.Join(root, "envtest/kubectl")},
		"kubebuilder never has it":  {name: "kube-controller-manager", kubebuilder: "envtest", want: "bin/k8s/v1.1.0/kube-controller-manager"},
		"kubebuilder is not a path": {name: "etcd", kubebuilder: "./envtest", wantErr: "KUBEBUILDER_ASSETS is ./envtest: not an absolute path"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if test.kubebuilder == "envtest" {
				test.kubebuilder = filepath.Join(root, test.kubebuilder)
			}
			t.Setenv("KUBERNETES_VERSION", test.version)
			t.Setenv("KUBEBUILDER_ASSETS", test.kubebuilder)
			got, err := Binary(test.name)
			if (err != nil) != (test.wantErr != "") || err != nil && !strings.Contains(err.Error(), test.wantErr) {
				t.Fatalf("error %v, want %q", err, test.wantErr)
			}
			if err == nil && got != filepath.Join(root, test.want) {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
}
