package gates_test

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const appImage = "registry.example/shop/app:v1"

// podBuilder makes pods that the API server accepts.
type podBuilder struct{ pod *corev1.Pod }

func makePod(namespace, name string, gates ...string) podBuilder {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: corev1.PodSpec{
			Containers: []corev1.Container{{Name: "app", Image: appImage}},
			// Nodes here have no kubelet; pods need not wait for one to go.
			TerminationGracePeriodSeconds: new(int64),
		},
	}
	for _, gate := range gates {
		p.Spec.SchedulingGates = append(p.Spec.SchedulingGates, corev1.PodSchedulingGate{Name: gate})
	}
	return podBuilder{p}
}

func (b podBuilder) image(image string) podBuilder {
	b.pod.Spec.Containers[0].Image = image
	return b
}

func (b podBuilder) cpu(quantity string) podBuilder {
	b.pod.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(quantity)}
	return b
}

func (b podBuilder) envFrom(configMap string) podBuilder {
	b.pod.Spec.Containers[0].EnvFrom = append(b.pod.Spec.Containers[0].EnvFrom, corev1.EnvFromSource{
		ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: configMap}},
	})
	return b
}

func (b podBuilder) label(key, value string) podBuilder {
	if b.pod.Labels == nil {
		b.pod.Labels = map[string]string{}
	}
	b.pod.Labels[key] = value
	return b
}

func (b podBuilder) create(t testing.TB, c client.Client) *corev1.Pod {
	t.Helper()
	require.NoError(t, c.Create(t.Context(), b.pod))
	return b.pod
}

func configMap(t testing.TB, c client.Client, namespace, name string) *corev1.ConfigMap {
	t.Helper()
	cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	require.NoError(t, c.Create(t.Context(), cm))
	return cm
}

func gatesOf(pod *corev1.Pod) []string {
	names := []string{}
	for _, gate := range pod.Spec.SchedulingGates {
		names = append(names, gate.Name)
	}
	return names
}

func read(t testing.TB, c client.Client, pod *corev1.Pod) *corev1.Pod {
	t.Helper()
	out := &corev1.Pod{}
	require.NoError(t, c.Get(t.Context(), client.ObjectKeyFromObject(pod), out))
	return out
}

// eventually looks until a condition holds. It looks in the test's own goroutine, so that nothing looks on afterwards.
func eventually(t testing.TB, condition func() bool, message string, args ...any) {
	t.Helper()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for deadline := time.Now().Add(patience); !condition(); <-ticker.C {
		if time.Now().After(deadline) {
			require.FailNowf(t, "it never happened", message, args...)
		}
	}
}

// never looks on for a while.
func never(t testing.TB, condition func() bool, message string, args ...any) {
	t.Helper()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for end := time.Now().Add(quiet); time.Now().Before(end); <-ticker.C {
		if condition() {
			require.FailNowf(t, "it happened", message, args...)
		}
	}
}

// awaitGates waits until the pod has exactly these gates.
func awaitGates(t testing.TB, c client.Client, pod *corev1.Pod, want ...string) *corev1.Pod {
	t.Helper()
	var last *corev1.Pod
	eventually(t, func() bool {
		last = read(t, c, pod)
		return slices.Equal(gatesOf(last), want)
	}, "pod %s never had the gates %v alone", pod.Name, want)
	return last
}

// stayGated looks on for a while.
func stayGated(t testing.TB, c client.Client, pod *corev1.Pod, want ...string) {
	t.Helper()
	never(t, func() bool { return !slices.Equal(gatesOf(read(t, c, pod)), want) }, "pod %s lost or gained a gate", pod.Name)
}

func keyOf(object client.Object) client.ObjectKey { return client.ObjectKeyFromObject(object) }
