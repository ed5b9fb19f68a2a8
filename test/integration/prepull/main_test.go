// Package prepull_test runs the prepull controller and the agents' side of it, with the permissions that they are
// deployed with, against a real kube-apiserver and etcd.
package prepull_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"headstart.dev/test/testenv"
)

const (
	// settleTime bounds what takes milliseconds on an idle machine, and 20 s for a fleet of a thousand that takes turns.
	settleTime = 2 * time.Minute
	pollTime   = 10 * time.Millisecond

	namespace = "headstart-system"
)

var plane *testenv.ControlPlane

func TestMain(m *testing.M) { os.Exit(run(m)) }

// run shares one control plane among all tests.
func run(m *testing.M) int {
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute)
	defer cancel()
	var err error
	plane, err = testenv.NewControlPlane(ctx, testenv.ControlPlaneConfig{
		CRDDirs: []string{"deploy/crd", "test/integration/prepull/testdata"},
	})
	if err == nil {
		err = deployRBAC(ctx)
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

// deployRBAC applies the shipped roles and their bindings.
func deployRBAC(ctx context.Context) error {
	c, err := client.New(plane.Config(), client.Options{})
	if err != nil {
		return err
	}
	objects := []*unstructured.Unstructured{{Object: map[string]any{
		"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": namespace},
	}}}
	for _, file := range []string{"controller/core.yaml", "controller/prepull.yaml", "agent/prepull.yaml"} {
		more, err := readObjects("../../../deploy/rbac/" + file)
		if err != nil {
			return err
		}
		objects = append(objects, more...)
	}
	objects = append(objects, rolloutReader()...)
	for _, o := range objects {
		if err := c.Create(ctx, o); err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("create %s %s: %w", o.GetKind(), o.GetName(), err)
		}
	}
	return nil
}

// rolloutReader is what a user adds for a kind of another group.
func rolloutReader() []*unstructured.Unstructured {
	const rbac = "rbac.authorization.k8s.io"
	return []*unstructured.Unstructured{
		{Object: map[string]any{
			"apiVersion": rbac + "/v1", "kind": "ClusterRole", "metadata": map[string]any{"name": "rollout-reader"},
			"rules": []any{map[string]any{
				"apiGroups": []any{"example.com"}, "resources": []any{"rollouts"}, "verbs": []any{"list", "watch"},
			}},
		}},
		{Object: map[string]any{
			"apiVersion": rbac + "/v1", "kind": "ClusterRoleBinding", "metadata": map[string]any{"name": "rollout-reader"},
			"roleRef":  map[string]any{"apiGroup": rbac, "kind": "ClusterRole", "name": "rollout-reader"},
			"subjects": []any{map[string]any{"kind": "ServiceAccount", "name": "headstart-controller", "namespace": namespace}},
		}},
	}
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
