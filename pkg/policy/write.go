package policy

import (
	"bytes"
	"fmt"
	"io"

	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"
)

// Write prints objects as YAML documents, each after a line with "---".
func Write(w io.Writer, objects []runtime.Object) error {
	for _, object := range objects {
		content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(object)
		if err != nil {
			return fmt.Errorf("converting %T: %w", object, err)
		}
		// What kubectl apply ignores.
		delete(content, "status")
		if metadata, ok := content["metadata"].(map[string]any); ok {
			delete(metadata, "creationTimestamp")
		}
		text, err := yaml.Marshal(content)
		if err != nil {
			return fmt.Errorf("encoding %T: %w", object, err)
		}
		if _, err := io.Copy(w, io.MultiReader(bytes.NewBufferString("---\n"), bytes.NewReader(text))); err != nil {
			return err
		}
	}
	return nil
}
