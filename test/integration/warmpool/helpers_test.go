package warmpool_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"headstart.dev/gates/v1alpha1"
	prepullv1alpha1 "headstart.dev/prepull/v1alpha1"
)

// prepullPolicy makes a PrepullPolicy that lists images, and returns its name.
func prepullPolicy(t testing.TB, c client.Client, name string, images ...string) string {
	t.Helper()
	policy := &prepullv1alpha1.PrepullPolicy{ObjectMeta: metav1.ObjectMeta{Name: name}}
	for _, image := range images {
		policy.Spec.Images = append(policy.Spec.Images, prepullv1alpha1.Image{Image: image})
	}
	require.NoError(t, c.Create(t.Context(), policy))
	return name
}

// unstructuredScale writes the scale subresource, as kubectl scale does.
type unstructuredScale struct{}

func (unstructuredScale) set(t testing.TB, c client.Client, wp *v1alpha1.WarmPool, replicas int32) error {
	t.Helper()
	scale := &autoscalingv1.Scale{Spec: autoscalingv1.ScaleSpec{Replicas: replicas}}
	return c.SubResource("scale").Update(t.Context(), wp, client.WithSubResourceBody(scale))
}

func resourceOne() *resource.Quantity { return resource.NewQuantity(1, resource.DecimalSI) }

func schedules(start, zone string) []v1alpha1.WarmPoolSchedule {
	return []v1alpha1.WarmPoolSchedule{{Name: "s", Start: start, End: "0 19 * * *", TimeZone: zone, Min: 3}}
}

// applyFile creates the objects of a manifest.
func applyFile(t testing.TB, c client.Client, path string) {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	for document := range strings.SplitSeq(string(text), "\n---\n") {
		create(t, c, document)
	}
}

// dump lists the pods of a namespace, for the message of a test that fails.
func dump(t testing.TB, c client.Client, ns string) string {
	t.Helper()
	out := ""
	for _, pod := range pods(t, c, ns, nil) {
		out += fmt.Sprintf("\n%s on %q nominated %q phase %s gates %v: ", pod.Name, pod.Spec.NodeName, pod.Status.NominatedNodeName, pod.Status.Phase, pod.Spec.SchedulingGates)
		for _, condition := range pod.Status.Conditions {
			out += fmt.Sprintf("%s=%s %s %s; ", condition.Type, condition.Status, condition.Reason, condition.Message)
		}
	}
	return out
}
