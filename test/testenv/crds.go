package testenv

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"headstart.dev/test/testenv/internal/binaries"
)

const (
	crdTimeout = 3 * time.Minute
	crdPeriod  = 20 * time.Millisecond
)

// InstallCRDs creates or updates the CustomResourceDefinitions of all *.yaml files of dirs, in one folder each without
// its subfolders, and returns when each is Established and served. Relative paths count from the module root.
func InstallCRDs(ctx context.Context, config *rest.Config, dirs ...string) error {
	if len(dirs) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, crdTimeout)
	defer cancel()
	client, err := clientset.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("install CRDs: %w", err)
	}
	var installed []*apiextensionsv1.CustomResourceDefinition
	for _, dir := range dirs {
		crds, err := readCRDs(dir)
		if err != nil {
			return err
		}
		for _, crd := range crds {
			if err := applyCRD(ctx, client, crd); err != nil {
				return err
			}
		}
		installed = append(installed, crds...)
	}
	for _, crd := range installed {
		if err := waitServed(ctx, client, crd); err != nil {
			return err
		}
	}
	return nil
}

func readCRDs(dir string) ([]*apiextensionsv1.CustomResourceDefinition, error) {
	if !filepath.IsAbs(dir) {
		root, err := binaries.ModuleRoot()
		if err != nil {
			return nil, err
		}
		dir = filepath.Join(root, dir)
	}
	paths, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil {
		return nil, fmt.Errorf("list CRDs in %q: %w", dir, err)
	}
	if len(paths) == 0 {
		return nil, fmt.Errorf("list CRDs in %q: no *.yaml file there", dir)
	}
	crds := make([]*apiextensionsv1.CustomResourceDefinition, 0, len(paths))
	for _, path := range paths {
		content, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("read CRD: %w", err)
		}
		crd := &apiextensionsv1.CustomResourceDefinition{}
		if err := yaml.UnmarshalStrict(content, crd); err != nil {
			return nil, fmt.Errorf("parse CRD %q: %w", path, err)
		}
		crds = append(crds, crd)
	}
	return crds, nil
}

func applyCRD(ctx context.Context, client clientset.Interface, crd *apiextensionsv1.CustomResourceDefinition) error {
	crds := client.ApiextensionsV1().CustomResourceDefinitions()
	_, err := crds.Create(ctx, crd, metav1.CreateOptions{})
	if err == nil {
		return nil
	}
	if !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("create CRD %q: %w", crd.Name, err)
	}
	current, err := crds.Get(ctx, crd.Name, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("read CRD %q: %w", crd.Name, err)
	}
	crd = crd.DeepCopy()
	crd.ResourceVersion = current.ResourceVersion
	if _, err := crds.Update(ctx, crd, metav1.UpdateOptions{}); err != nil {
		return fmt.Errorf("update CRD %q: %w", crd.Name, err)
	}
	return nil
}

// waitServed returns when crd is Established and each served version answers a list: the handler follows the condition by
// a moment.
func waitServed(ctx context.Context, client clientset.Interface, crd *apiextensionsv1.CustomResourceDefinition) error {
	tick := time.NewTicker(crdPeriod)
	defer tick.Stop()
	for {
		err := served(ctx, client, crd)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for CRD %q: %w", crd.Name, err)
		case <-tick.C:
		}
	}
}

func served(ctx context.Context, client clientset.Interface, crd *apiextensionsv1.CustomResourceDefinition) error {
	current, err := client.ApiextensionsV1().CustomResourceDefinitions().Get(ctx, crd.Name, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("read it: %w", err)
	}
	if err := established(current); err != nil {
		return err
	}
	for _, version := range crd.Spec.Versions {
		if !version.Served {
			continue
		}
		path := fmt.Sprintf("/apis/%s/%s/%s", crd.Spec.Group, version.Name, crd.Spec.Names.Plural)
		if err := client.Discovery().RESTClient().Get().AbsPath(path).Param("limit", "1").Do(ctx).Error(); err != nil {
			return fmt.Errorf("list its objects: %w", err)
		}
	}
	return nil
}

func established(crd *apiextensionsv1.CustomResourceDefinition) error {
	for _, condition := range crd.Status.Conditions {
		if condition.Type == apiextensionsv1.NamesAccepted && condition.Status == apiextensionsv1.ConditionFalse {
			return fmt.Errorf("its names are not accepted: %s", condition.Message)
		}
		if condition.Type == apiextensionsv1.Established && condition.Status == apiextensionsv1.ConditionTrue {
			return nil
		}
	}
	return errors.New("not Established yet")
}
