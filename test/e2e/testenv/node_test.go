package testenv_test

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"headstart.dev/test/testenv"
	"headstart.dev/test/testenv/images"
)

const (
	podTimeout = time.Minute
	podPeriod  = 50 * time.Millisecond
)

// runPod creates a pod on a node and returns its name when it runs.
func runPod(t *testing.T, client kubernetes.Interface, node, image string) string {
	t.Helper()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "p-", Namespace: "default"},
		Spec: corev1.PodSpec{
			NodeName:    node,
			Tolerations: []corev1.Toleration{{Operator: corev1.TolerationOpExists}},
			Containers:  []corev1.Container{{Name: "c", Image: image}},
		},
	}
	pod, err := client.CoreV1().Pods("default").Create(t.Context(), pod, metav1.CreateOptions{})
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), podTimeout)
	defer cancel()
	tick := time.NewTicker(podPeriod)
	defer tick.Stop()
	for pod.Status.Phase != corev1.PodRunning {
		select {
		case <-ctx.Done():
			t.Fatalf("pod on %s is still %s: %+v", node, pod.Status.Phase, pod.Status)
		case <-tick.C:
		}
		pod, err = client.CoreV1().Pods("default").Get(ctx, pod.Name, metav1.GetOptions{})
		require.NoError(t, err)
	}
	return pod.Name
}

// nodeReady is the status of a node's Ready condition.
func nodeReady(t *testing.T, client kubernetes.Interface, name string) corev1.ConditionStatus {
	t.Helper()
	node, err := client.CoreV1().Nodes().Get(t.Context(), name, metav1.GetOptions{})
	require.NoError(t, err)
	for _, condition := range node.Status.Conditions {
		if condition.Type == corev1.NodeReady {
			return condition.Status
		}
	}
	return corev1.ConditionUnknown
}

// leavesNothing fails when something of the named workspace folders is still on the machine.
func leavesNothing(t *testing.T, dirs ...string) {
	t.Helper()
	for _, dir := range dirs {
		id := strings.TrimPrefix(filepath.Base(dir), "headstart-testenv-")
		require.Empty(t, marked(t, id), "processes")
		require.Empty(t, mountsBelow(t, dir), "mounts")
		require.NoDirExists(t, dir)
		for _, pattern := range []string{
			"/sys/fs/cgroup/*/headstart-" + id + "-*", "/sys/fs/cgroup/headstart-" + id + "-*",
			"/run/netns/headstart-" + id + "-*", "/sys/class/net/h" + id + "-*", "/var/lib/cni/results/headstart-" + id + "-*",
		} {
			found, err := filepath.Glob(pattern)
			require.NoError(t, err)
			require.Empty(t, found)
		}
	}
}

func TestNode(t *testing.T) {
	if testing.Short() {
		t.Skip("starts servers")
	}
	testenv.RequireRoot(t)
	cp := testenv.StartControlPlane(t, testenv.ControlPlaneConfig{})
	reg := testenv.StartRegistry(t, testenv.RegistryConfig{})
	image, err := images.Build(t.Context(), images.Sized("testenv", 3<<20, 1<<20))
	require.NoError(t, err)
	ref, _, err := reg.Push(t.Context(), "team/app:v1", image)
	require.NoError(t, err)
	admin := client(t, cp.Config())

	tests := map[string]struct{ hosts bool }{
		"on this machine":         {},
		"in a network of its own": {hosts: true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			cfg := testenv.ContainerdConfig{Registry: reg}
			if test.hosts {
				network := testenv.StartNetwork(t)
				var err error
				cfg.Host, err = network.NewHost(t.Context())
				require.NoError(t, err)
			}
			ctd := testenv.StartContainerd(t, cfg)
			taint := corev1.Taint{Key: "readiness.k8s.io/demo", Value: "pending", Effect: corev1.TaintEffectNoSchedule}
			node := testenv.StartNode(t, cp, ctd, testenv.NodeConfig{
				Name: strings.ReplaceAll(name, " ", "-"), Taints: []corev1.Taint{taint}, Labels: map[string]string{"team": "a"},
			})

			object, err := admin.CoreV1().Nodes().Get(t.Context(), node.Name(), metav1.GetOptions{})
			require.NoError(t, err)
			require.Contains(t, object.Spec.Taints, taint)
			require.Equal(t, "a", object.Labels["team"])
			require.NotEqual(t, corev1.ConditionTrue, nodeReady(t, admin, node.Name()), "there is no network yet")

			require.NoError(t, ctd.WriteCNI())
			require.NoError(t, node.WaitReady(t.Context()))
			pod := runPod(t, admin, node.Name(), ref)
			_, err = admin.CoreV1().Pods("default").GetLogs(pod, &corev1.PodLogOptions{}).DoRaw(t.Context())
			require.NoError(t, err, "the API server must reach the kubelet")

			require.NoError(t, node.KillKubelet())
			require.NoError(t, node.RestartKubelet(t.Context()))

			dirs := []string{filepath.Dir(node.RootDir()), filepath.Dir(ctd.ConfigPath())}
			require.NoError(t, node.Stop())
			require.NoError(t, ctd.Stop())
			leavesNothing(t, dirs...)
			require.NoError(t, admin.CoreV1().Nodes().Delete(t.Context(), node.Name(), metav1.DeleteOptions{}))
		})
	}
}
