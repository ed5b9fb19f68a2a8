package deploy_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/restmapper"
)

// decode reads a stream of YAML documents; empty ones are left out.
func decode(t *testing.T, text []byte) []*unstructured.Unstructured {
	t.Helper()
	var out []*unstructured.Unstructured
	dec := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(text), 4096)
	for {
		obj := map[string]any{}
		err := dec.Decode(&obj)
		if errors.Is(err, io.EOF) {
			return out
		}
		require.NoError(t, err)
		if len(obj) > 0 {
			out = append(out, &unstructured.Unstructured{Object: obj})
		}
	}
}

func marshal(t *testing.T, obj *unstructured.Unstructured) []byte {
	t.Helper()
	text, err := obj.MarshalJSON()
	require.NoError(t, err)
	return text
}

func readManifests(t *testing.T, pattern string) map[string][]*unstructured.Unstructured {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, pattern))
	require.NoError(t, err)
	require.NotEmpty(t, files, pattern)
	out := map[string][]*unstructured.Unstructured{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		out[filepath.Base(file)] = decode(t, text)
	}
	return out
}

var crdResource = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}

// api writes manifests to the control plane as a cluster administrator would, strictly.
type api struct {
	client dynamic.Interface
	mapper meta.RESTMapper
}

func newAPI(t *testing.T) api {
	t.Helper()
	client, err := dynamic.NewForConfig(cp.Config())
	require.NoError(t, err)
	disco, err := discovery.NewDiscoveryClientForConfig(cp.Config())
	require.NoError(t, err)
	return api{client, restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(disco))}
}

func (a api) resource(t *testing.T, obj *unstructured.Unstructured) dynamic.ResourceInterface {
	t.Helper()
	kind := obj.GroupVersionKind()
	mapping, err := a.mapper.RESTMapping(kind.GroupKind(), kind.Version)
	require.NoError(t, err, "%s: no such resource", kind)
	if mapping.Scope.Name() == meta.RESTScopeNameNamespace {
		require.NotEmpty(t, obj.GetNamespace(), "%s %s has no namespace", kind.Kind, obj.GetName())
		return a.client.Resource(mapping.Resource).Namespace(obj.GetNamespace())
	}
	return a.client.Resource(mapping.Resource)
}

// dryRun has the API server decode, default, validate and admit the object, and refuse fields that it does not know.
func (a api) dryRun(t *testing.T, obj *unstructured.Unstructured) {
	t.Helper()
	_, err := a.resource(t, obj).Create(t.Context(), obj, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}, FieldValidation: metav1.FieldValidationStrict})
	require.NoError(t, err, "%s %s", obj.GetKind(), obj.GetName())
}

func (a api) namespace(t *testing.T, name string) {
	t.Helper()
	ns := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": name}}}
	_, err := a.resource(t, ns).Create(t.Context(), ns, metav1.CreateOptions{})
	if !apierrors.IsAlreadyExists(err) {
		require.NoError(t, err)
	}
}

// TestShippedManifestsApply has the API server check, as they are pasted, the manifests that no other test applies.
func TestShippedManifestsApply(t *testing.T) {
	a := newAPI(t)
	a.namespace(t, namespace)
	a.namespace(t, "shop") // whose pull secret the example is of
	for _, pattern := range []string{"deploy/policies/*.yaml", "deploy/warmpool/*.yaml", "deploy/examples/*.yaml", "deploy/admission/*.yaml"} {
		for file, objects := range readManifests(t, pattern) {
			require.NotEmpty(t, objects, file)
			for _, obj := range objects {
				t.Run(file+"/"+obj.GetKind()+"/"+obj.GetName(), func(t *testing.T) { a.dryRun(t, obj) })
			}
		}
	}
}
