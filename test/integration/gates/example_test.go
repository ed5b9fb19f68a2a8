package gates_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"
)

// example is the GatePolicy of the published API, every requirement at once.
const example = `
apiVersion: headstart.dev/v1alpha1
kind: GatePolicy
metadata: {name: image-preload}
spec:
  gateName: example.com/image-preload
  requires:
  - images: {minNodes: 1, pull: true}
  - references: {}
  - nodes: {condition: headstart.dev/CSIReady, min: 1}
  - object: {apiVersion: v1, kind: ConfigMap, name: flags, expression: "object.data.ready == 'true'"}
  - service: {name: redis, minReadyEndpoints: 1}
  - gang: {label: job-name, size: 8}
  deadline: 5m
  onDeadline: Release
  placement: Preferred
  warmPool: {namespace: kube-system, name: web}
`

func TestThePublishedExampleWorksAsItStands(t *testing.T) {
	c := newClient(t)
	startController(t, fastConfig())
	object := &unstructured.Unstructured{}
	require.NoError(t, yaml.Unmarshal([]byte(example), &object.Object))
	require.NoError(t, client.WithFieldValidation(c, metav1.FieldValidationStrict).Create(t.Context(), object))
	t.Cleanup(func() { require.NoError(t, c.Delete(afterwards(t), object)) })
	ns, image := namespace(t, c), "registry.example/example:v1"
	n := node(t, c, "example-node", capacity("8"), warm("registry.example/other:v1"))
	var pods []*corev1.Pod
	for i := range 8 {
		pods = append(pods, makePod(ns, fmt.Sprintf("train-%d", i), "example.com/image-preload").image(image).cpu("1").
			label("job-name", "train").envFrom("there").create(t, c))
	}
	configMap(t, c, ns, "there")
	flags := configMap(t, c, ns, "flags")
	flags.Data = map[string]string{"ready": "true"}
	require.NoError(t, c.Update(t.Context(), flags))
	require.NoError(t, c.Create(t.Context(), &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: ns, Name: "redis-1", Labels: map[string]string{discoveryv1.LabelServiceName: "redis"}},
		AddressType: discoveryv1.AddressTypeIPv4, Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"10.0.0.1"}}},
	}))
	require.NoError(t, c.Get(t.Context(), keyOf(n), n))
	n.Status.Conditions = append(n.Status.Conditions, corev1.NodeCondition{Type: "headstart.dev/CSIReady", Status: corev1.ConditionTrue, Reason: "Registered"})
	require.NoError(t, c.Status().Update(t.Context(), n))
	stayGated(t, c, pods[7], "example.com/image-preload") // the image is nowhere
	owner := readPolicy(t, c, "image-preload")
	eventually(t, func() bool { _, nodes := asked(t, c, owner); return len(nodes) == 1 }, "the image is not pulled")
	setWarm(t, c, "example-node", warm(image))
	for _, pod := range pods {
		awaitGates(t, c, pod)
	}
}
