// Command chart writes the Helm chart in manifests/charts/sakeeper from the overlays and components
// of manifests: a file of templates for each (parts.go), with the objects that kustomize renders
// (render.go), and README.md from the comments in values.yaml (readme.go).
//
// Only the namespace and, in workloads, the image, the arguments and some settings of pods are
// expressions. Where a component patches an overlay, the lines that differ have a condition around
// them (merge.go). The rest is written by hand: Chart.yaml, values.yaml and its schema, _helpers.tpl,
// refusals.yaml, NOTES.txt and what `helm test` runs.
//
// Usage: chart      (make manifests)
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "chart:", err)
		os.Exit(1)
	}
}

func run() error {
	root, err := controlplane.RepositoryRoot()
	if err != nil {
		return err
	}
	files, err := generate(root)
	if err != nil {
		return err
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(root, chartDir, name), []byte(content), 0o644); err != nil {
			return err
		}
	}
	return nil
}

const chartDir = "manifests/charts/sakeeper"

// generate returns the generated files of the chart, by their paths in it.
func generate(root string) (map[string]string, error) {
	files := map[string]string{}
	for _, p := range parts {
		template, err := p.template(root)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p.dir, err)
		}
		files[p.file()] = template
	}
	values, err := os.ReadFile(filepath.Join(root, chartDir, "values.yaml"))
	if err != nil {
		return nil, err
	}
	files["README.md"] = readme(string(values))
	return files, nil
}
