// Package readme_test pastes the README's manifests into a cluster, all of them, as a reader does: rule, gate, images and pool
// name one another. headstart-controller runs beside them with its default flags, and has to do what the README says.
package readme_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/yaml"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"headstart.dev/gates/v1alpha1"
	"headstart.dev/readiness"
	"headstart.dev/test/testenv"
)

const (
	// promised is how soon the README says that things happen: "in the same moment".
	promised = time.Second
	// patience ends what hangs; a busy machine may need several tries for what is promised.
	patience = 3 * time.Minute
	look     = 10 * time.Millisecond
	// image is what the README's policy and gated pods name.
	image = "registry.example/app:v1"
	gate  = "example.com/image-preload"
)

var blocks = regexp.MustCompile("(?s)```yaml\n(.*?)```")

// manifests returns the README's objects in their order, namespaced ones with their namespace.
func manifests(t *testing.T) []*unstructured.Unstructured {
	t.Helper()
	root, err := testenv.ModuleRoot()
	require.NoError(t, err)
	text, err := os.ReadFile(filepath.Join(root, "README.md"))
	require.NoError(t, err)
	var out []*unstructured.Unstructured
	for _, block := range blocks.FindAllSubmatch(text, -1) {
		for decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(block[1]), 4096); ; {
			object := &unstructured.Unstructured{}
			err := decoder.Decode(&object.Object)
			if errors.Is(err, io.EOF) {
				break
			}
			require.NoError(t, err, "%s", block[1])
			out = append(out, object)
		}
	}
	return out
}

// start runs a cluster, and the controller as it is deployed.
func start(t *testing.T) client.Client {
	t.Helper()
	// The kubelets that would renew the nodes' leases are this test.
	cp := testenv.StartControlPlane(t, testenv.ControlPlaneConfig{
		Scheduler: true, ControllerManager: true, CRDDirs: []string{"deploy/crd"},
		ControllerManagerArgs: []string{"--controllers=*,-node-lifecycle-controller"},
	})
	scheme := runtime.NewScheme()
	require.NoError(t, clientgoscheme.AddToScheme(scheme))
	require.NoError(t, v1alpha1.AddToScheme(scheme))
	c, err := client.New(cp.Config(), client.Options{Scheme: scheme})
	require.NoError(t, err)
	program, err := testenv.BuildCommand(t.Context(), "headstart-controller")
	require.NoError(t, err)
	testenv.StartProgram(t, testenv.ProgramConfig{Path: program, Args: []string{
		"--kubeconfig=" + cp.Kubeconfig("controller", "system:masters"),
		// Another program of this machine may have the default ports.
		"--metrics-bind-address=0", "--health-probe-bind-address=0",
	}})
	return c
}

func eventually(t *testing.T, holds func() bool, what string) {
	t.Helper()
	deadline := time.After(patience)
	for !holds() {
		select {
		case <-deadline:
			t.Fatalf("not within %s: %s", patience, what)
		case <-time.After(look):
		}
	}
}

// within tries until something took no longer than the README promises: on a busy machine a single try proves nothing.
func within(t *testing.T, what string, try func(n int) time.Duration) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for n := 0; ; n++ {
		took := try(n)
		t.Logf("%s after %s", what, took)
		if took <= promised {
			return
		}
		require.True(t, time.Now().Before(deadline), "%s: never within %s", what, promised)
	}
}

// afterwards is for what is taken away when the test is over.
func afterwards(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func TestManifestsDoWhatTheReadmeSays(t *testing.T) {
	c := start(t)
	kinds := map[string]bool{}
	for _, object := range manifests(t) {
		kinds[object.GetKind()] = true
		require.NoError(t, client.WithFieldValidation(c, metav1.FieldValidationStrict).Create(t.Context(), object), "%s %s", object.GetKind(), object.GetName())
	}
	require.Equal(t, map[string]bool{"NodeReadinessRule": true, "GatePolicy": true, "PrepullPolicy": true, "WarmPool": true}, kinds)

	t.Run("the rule lets a node go", func(t *testing.T) {
		within(t, "a node is let go", func(n int) time.Duration {
			node := boot(t, c, n)
			began := report(t, c, node)
			eventually(t, func() bool { return !tainted(get(t, c, node)) }, "the rule's taint is lifted")
			return time.Since(began)
		})
	})
	t.Run("the policy labels a node that has its images", func(t *testing.T) {
		within(t, "a node with all images is labelled", func(n int) time.Duration {
			node := boot(t, c, 100+n)
			report(t, c, node)
			began := warm(t, c, node)
			eventually(t, func() bool { return get(t, c, node).Labels[readiness.PrepullLabel("web")] == "true" }, "the policy's label is there")
			return time.Since(began)
		})
	})
	node := boot(t, c, 200)
	report(t, c, node)
	warm(t, c, node)
	eventually(t, func() bool {
		got := get(t, c, node)
		return !tainted(got) && got.Labels[readiness.PrepullLabel("web")] == "true"
	}, "a node is warm")
	t.Run("the gate lets a pod go to a warm node", func(t *testing.T) {
		within(t, "a gated pod is let go", func(n int) time.Duration {
			pod := gated(t, c, n)
			began := time.Now()
			eventually(t, func() bool {
				require.NoError(t, c.Get(t.Context(), client.ObjectKeyFromObject(pod), pod))
				return len(pod.Spec.SchedulingGates) == 0
			}, "the gate is lifted")
			require.NotNil(t, pod.Spec.Affinity, "it is led to a node that has the image")
			return time.Since(began)
		})
	})
	t.Run("the pool counts what rule and policy made warm", func(t *testing.T) { holdPool(t, c) })
}
