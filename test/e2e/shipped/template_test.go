package shipped_test

import (
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	batchv1 "k8s.io/api/batch/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/restmapper"
)

// applyTemplate does what "helm template | kubectl apply --server-side" does, hooks and all: their Jobs run to their end, and
// the installation lives on.
func (c *cluster) applyTemplate(t *testing.T, chart string, set []string) {
	t.Helper()
	text := c.helm.run(t, append([]string{"template", "headstart", chart, "--kube-version", "1.37.2"}, set...)...)
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(c.client.Discovery()))
	before := c.workloads(t)
	var jobs []string
	for decoder := yaml.NewYAMLOrJSONDecoder(strings.NewReader(text), 4096); ; {
		object := &unstructured.Unstructured{}
		err := decoder.Decode(&object.Object)
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		if len(object.Object) == 0 {
			continue
		}
		kind := object.GroupVersionKind()
		mapping, err := mapper.RESTMapping(kind.GroupKind(), kind.Version)
		require.NoError(t, err)
		var resource dynamic.ResourceInterface = c.objects.Resource(mapping.Resource)
		if mapping.Scope.Name() == meta.RESTScopeNameNamespace {
			resource = c.objects.Resource(mapping.Resource).Namespace(object.GetNamespace())
		}
		_, err = resource.Apply(t.Context(), object.GetName(), object, metav1.ApplyOptions{FieldManager: "kubectl", Force: true})
		require.NoError(t, err, "%s %s", kind.Kind, object.GetName())
		if kind.Kind == "Job" {
			jobs = append(jobs, object.GetName())
		}
	}
	require.ElementsMatch(t, []string{"headstart-clean-up", "headstart-upgrade-crds"}, jobs)
	background := metav1.DeletePropagationBackground
	for _, name := range jobs {
		var job *batchv1.Job
		eventually(t, func() bool {
			var err error
			job, err = c.client.BatchV1().Jobs(namespace).Get(t.Context(), name, metav1.GetOptions{})
			require.NoError(t, err)
			return job.Status.Succeeded == 1
		}, "Job %s succeeds: %v", name, &job)
		// Helm, which makes it an uninstall's, knows nothing of this one.
		require.NoError(t, c.client.BatchV1().Jobs(namespace).Delete(t.Context(), name, metav1.DeleteOptions{PropagationPolicy: &background}))
	}
	eventually(t, func() bool { return c.rolledOut(t) }, "the installation lives on")
	require.Equal(t, before, c.workloads(t), "the same objects")
	require.False(t, tainted(c.node(t)))
}

// workloads are the UIDs of what is installed.
func (c *cluster) workloads(t *testing.T) []string {
	t.Helper()
	deployment, err := c.client.AppsV1().Deployments(namespace).Get(t.Context(), "headstart-controller", metav1.GetOptions{})
	require.NoError(t, err)
	agents, err := c.client.AppsV1().DaemonSets(namespace).Get(t.Context(), "headstart-agent", metav1.GetOptions{})
	require.NoError(t, err)
	return []string{string(deployment.UID), string(agents.UID)}
}
