package prepull_test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/go-logr/logr/testr"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"headstart.dev/prepull"
	"headstart.dev/prepull/containerd"
	"headstart.dev/test/testenv"
)

// collectAll has the kubelet remove every image that is not in use, as on a full disk: it is to keep more free than there
// is. It looks every 10 s, so this is how a test sees the garbage collection of images, which itself comes every 5 min.
// At the testbed's threshold of 100 percent the kubelet collects nothing at all.
// Source: kubernetes pkg/kubelet/eviction/eviction_manager.go and pkg/kubelet/images/image_gc_manager.go@v1.37.2.
const collectAll = `
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
evictionHard: {imagefs.available: 1Ei}
imageMinimumGCAge: 1ms
imageGCHighThresholdPercent: 2
imageGCLowThresholdPercent: 1
`

// TestKubeletTakesPulledImages has pods start on an image that the direct engine has put there, with nothing fetched but
// what the kubelet's Always asks for; and the kubelet's garbage collection leave it alone for as long as it is pinned.
func TestKubeletTakesPulledImages(t *testing.T) {
	if testing.Short() {
		t.Skip("starts servers")
	}
	testenv.RequireRoot(t)
	settings := t.TempDir()
	c := startCluster(t, testenv.ControlPlaneConfig{}, testenv.NodeConfig{Name: nodeName, CNI: true, ConfigDir: settings})
	kept, released, loose := c.push("team/kept:v1"), c.push("team/released:v1"), c.push("team/loose:v1")
	store, err := containerd.New(containerd.Config{Address: c.ctd.Address(), Engines: []string{containerd.EngineDirect}, MinFreePercent: 1, Log: testr.New(t)})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, store.Close()) })
	pull := func(ref string, pin bool) string {
		result, err := store.Pull(t.Context(), prepull.Image{Ref: ref, Pin: pin}, nil)
		require.NoError(t, err)
		require.Equal(t, containerd.EngineDirect, result.Engine)
		return strings.TrimSuffix(ref, ":v1") + "@" + result.Digest
	}
	byDigest := pull(kept, true)
	pull(released, true)
	pull(loose, false)
	require.NotEmpty(t, c.fetched(), "the registry's log shows what is fetched")

	start := func() {
		t.Helper()
		require.NoError(t, c.nod.WaitReady(t.Context()))
		c.reg.Proxy.ResetCounts()
		c.runPods(corev1.PullIfNotPresent, kept, byDigest)
		require.Zero(t, c.reg.Proxy.Pulled(), "nobody asked the registry for anything")
		c.runPods(corev1.PullAlways, kept, byDigest)
		require.Positive(t, c.reg.Proxy.Manifest("v1").Requests, "the kubelet did ask what the tag names")
		require.Empty(t, c.fetched(), "no blob was fetched")
		c.removePods()
	}
	start()
	require.NoError(t, c.ctd.Restart(t.Context()))
	start()

	require.True(t, c.criImage(kept).GetPinned(), "the kubelet's Always has not taken the pin")
	require.False(t, c.criImage(loose).GetPinned())
	require.NoError(t, os.WriteFile(filepath.Join(settings, "10-collect.conf"), []byte(collectAll), 0o600))
	require.NoError(t, c.nod.RestartKubelet(t.Context()))
	c.eventually("the kubelet collects the image that is not pinned", func() bool { return !c.criHas(loose) })
	require.True(t, c.criHas(released), "it is pinned yet")
	require.NoError(t, store.Release(t.Context(), released))
	c.eventually("it collects the image that nobody wants any longer", func() bool { return !c.criHas(released) })
	require.True(t, c.criHas(kept) && c.criHas(byDigest), "the pinned image outlives every round")
}

// fetched returns the blobs that the registry was asked for.
func (c *cluster) fetched() []string { return slices.Sorted(maps.Keys(c.reg.Proxy.Blobs())) }

// runPods runs a pod on the node for each image until all have started, with no scheduler.
func (c *cluster) runPods(policy corev1.PullPolicy, images ...string) {
	c.t.Helper()
	name := func(i int) string { return fmt.Sprintf("%s-%d", strings.ToLower(string(policy)), i) }
	for i, image := range images {
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: name(i), Namespace: "default", Labels: map[string]string{"run": name(i)}},
			Spec: corev1.PodSpec{
				NodeName: nodeName, Tolerations: []corev1.Toleration{{Operator: corev1.TolerationOpExists}},
				Containers: []corev1.Container{{Name: "c", Image: image, ImagePullPolicy: policy}},
			},
		}
		require.NoError(c.t, c.Create(c.t.Context(), pod))
	}
	for i, image := range images {
		c.eventually(name(i)+" runs", func() bool { return c.running(client.MatchingLabels{"run": name(i)}, image) })
	}
}

// removePods deletes all pods, and returns when their containers have gone and their images are not in use any more.
func (c *cluster) removePods() {
	c.t.Helper()
	var pods corev1.PodList
	require.NoError(c.t, c.List(c.t.Context(), &pods, client.InNamespace("default")))
	for i := range pods.Items {
		require.NoError(c.t, c.Delete(c.t.Context(), &pods.Items[i], client.GracePeriodSeconds(1)))
	}
	for i := range pods.Items {
		key := client.ObjectKeyFromObject(&pods.Items[i])
		c.eventually(key.Name+" is gone", func() bool { return apierrors.IsNotFound(c.Get(c.t.Context(), key, &corev1.Pod{})) })
	}
}
