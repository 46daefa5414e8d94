package controlplane

import (
	"fmt"
	"os"
	"path/filepath"
)

// Binary returns the path of etcd, kube-apiserver, kube-controller-manager or kubectl. It is
// in the directory that the environment's KUBEBUILDER_ASSETS names, which has all of them
// but kube-controller-manager. Otherwise it is below bin/k8s of this repository, where make
// builds it, in the version of the environment's KUBERNETES_VERSION, or the newest.
func Binary(name string) (string, error) {
	if dir := os.Getenv("KUBEBUILDER_ASSETS"); dir != "" && name != "kube-controller-manager" {
		if !filepath.IsAbs(dir) {
			return "", fmt.Errorf("KUBEBUILDER_ASSETS is %s: not an absolute path", dir)
		}
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); err != nil {
			return "", fmt.Errorf("KUBEBUILDER_ASSETS: %w", err)
		}
		return path, nil
	}
	root, err := RepositoryRoot()
	if err != nil {
		return "", err
	}
	target := name
	if name == "etcd" || name == "kube-apiserver" {
		target = "control-plane"
	}
	version := os.Getenv("KUBERNETES_VERSION")
	if version != "" {
		target += " VERSION=" + version
	} else {
		version = "v*"
	}
	found, err := filepath.Glob(filepath.Join(root, "bin", "k8s", version, name))
	if err != nil || len(found) == 0 {
		return "", fmt.Errorf("no %s in bin/k8s/%s: run `make %s` first", name, version, target)
	}
	return found[len(found)-1], nil
}
