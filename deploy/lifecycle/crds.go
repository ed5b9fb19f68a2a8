package lifecycle

import (
	"context"
	"fmt"
	"io/fs"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"sigs.k8s.io/yaml"

	"headstart.dev/deploy"
)

// fieldManager owns what we apply.
const fieldManager = "headstart-lifecycle"

var crdResource = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}

// UpgradeCRDs applies every CRD of files. It takes fields over from whoever applied them before, and is idempotent: what is
// there already is written once more without a change.
func UpgradeCRDs(ctx context.Context, client dynamic.Interface, files fs.FS) error {
	crds, err := readCRDs(files)
	if err != nil {
		return err
	}
	for _, crd := range crds {
		if _, err := client.Resource(crdResource).Apply(ctx, crd.GetName(), crd, metav1.ApplyOptions{FieldManager: fieldManager, Force: true}); err != nil {
			return fmt.Errorf("apply CRD %s: %w", crd.GetName(), err)
		}
	}
	return nil
}

// readCRDs reads crd/*.yaml.
func readCRDs(files fs.FS) ([]*unstructured.Unstructured, error) {
	names, err := fs.Glob(files, "crd/*.yaml")
	if err != nil || len(names) == 0 {
		return nil, fmt.Errorf("find CRDs: %d files: %w", len(names), err)
	}
	out := make([]*unstructured.Unstructured, 0, len(names))
	for _, name := range names {
		text, err := fs.ReadFile(files, name)
		if err != nil {
			return nil, fmt.Errorf("read CRD: %w", err)
		}
		crd := &unstructured.Unstructured{}
		if err := yaml.UnmarshalStrict(text, &crd.Object); err != nil {
			return nil, fmt.Errorf("read CRD %s: %w", name, err)
		}
		out = append(out, crd)
	}
	return out, nil
}

// deleteCRDs deletes our own, with all objects of theirs.
func deleteCRDs(ctx context.Context, client dynamic.Interface) error {
	crds, err := readCRDs(deploy.CRDs)
	if err != nil {
		return err
	}
	for _, crd := range crds {
		if err := client.Resource(crdResource).Delete(ctx, crd.GetName(), metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("delete CRD %s: %w", crd.GetName(), err)
		}
	}
	return nil
}
