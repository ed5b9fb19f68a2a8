package lifecycle

import (
	"context"
	"fmt"
	"io/fs"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"sigs.k8s.io/yaml"
)

// fieldManager owns what we apply.
const fieldManager = "headstart-lifecycle"

var crdResource = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}

// UpgradeCRDs applies every CRD of files. It takes fields over from whoever applied them before, and is idempotent: what is
// there already is written once more without a change.
func UpgradeCRDs(ctx context.Context, client dynamic.Interface, files fs.FS) error {
	names, err := fs.Glob(files, "crd/*.yaml")
	if err != nil || len(names) == 0 {
		return fmt.Errorf("find CRDs: %d files: %w", len(names), err)
	}
	for _, name := range names {
		text, err := fs.ReadFile(files, name)
		if err != nil {
			return fmt.Errorf("read CRD: %w", err)
		}
		crd := &unstructured.Unstructured{}
		if err := yaml.UnmarshalStrict(text, &crd.Object); err != nil {
			return fmt.Errorf("read CRD %s: %w", name, err)
		}
		if _, err := client.Resource(crdResource).Apply(ctx, crd.GetName(), crd, metav1.ApplyOptions{FieldManager: fieldManager, Force: true}); err != nil {
			return fmt.Errorf("apply CRD %s: %w", crd.GetName(), err)
		}
	}
	return nil
}
