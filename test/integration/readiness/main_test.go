// Package readiness_test runs the readiness controller, with the permissions that it is deployed with, against a real
// kube-apiserver and etcd.
package readiness_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"headstart.dev/test/testenv"
)

const (
	// settleTime bounds what takes milliseconds on an idle machine.
	settleTime = 30 * time.Second
	pollTime   = 10 * time.Millisecond

	namespace      = "headstart-system"
	serviceAccount = "headstart-controller"
)

var crdDirs = []string{"deploy/crd", "deploy/crd/compat"}

var plane *testenv.ControlPlane

func TestMain(m *testing.M) { os.Exit(run(m)) }

// run shares one control plane among all tests.
func run(m *testing.M) int {
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute)
	defer cancel()
	var err error
	plane, err = testenv.NewControlPlane(ctx, testenv.ControlPlaneConfig{CRDDirs: crdDirs})
	if err == nil {
		err = deployRBAC(ctx, plane)
	}
	code := 1
	if err == nil {
		code = m.Run()
	} else {
		fmt.Fprintln(os.Stderr, err)
	}
	if plane != nil {
		if err := plane.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	return code
}

// deployRBAC applies the shipped roles of readiness rules, in all their forms.
func deployRBAC(ctx context.Context, plane *testenv.ControlPlane) error {
	c, err := client.New(plane.Config(), client.Options{})
	if err != nil {
		return err
	}
	objects := []*unstructured.Unstructured{{Object: map[string]any{
		"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": namespace},
	}}}
	files, err := filepath.Glob("../../../deploy/rbac/controller/rules*.yaml")
	if err != nil {
		return err
	}
	for _, file := range append(files, "../../../deploy/rbac/controller/core.yaml") {
		more, err := readObjects(file)
		if err != nil {
			return err
		}
		objects = append(objects, more...)
	}
	for _, o := range objects {
		if err := c.Create(ctx, o); err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("create %s %s: %w", o.GetKind(), o.GetName(), err)
		}
	}
	return nil
}

func readObjects(file string) ([]*unstructured.Unstructured, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var out []*unstructured.Unstructured
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(content), 4096)
	for {
		o := &unstructured.Unstructured{}
		if err := decoder.Decode(o); errors.Is(err, io.EOF) {
			return out, nil
		} else if err != nil {
			return nil, fmt.Errorf("read %s: %w", file, err)
		}
		if len(o.Object) > 0 {
			out = append(out, o)
		}
	}
}

func binding(kind, name, ns string) *unstructured.Unstructured {
	o := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind + "Binding",
		"metadata": map[string]any{"name": name},
		"roleRef":  map[string]any{"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name},
		"subjects": []any{map[string]any{"kind": "ServiceAccount", "name": serviceAccount, "namespace": namespace}},
	}}
	if ns != "" {
		o.SetNamespace(ns)
	}
	return o
}
