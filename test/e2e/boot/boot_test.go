// Package boot_test runs the main job of the project from end to end: one node boots with a real kubelet, and a pod starts
// on it.
package boot_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"headstart.dev/test/boot"
	"headstart.dev/test/testenv"
	"headstart.dev/test/testenv/images"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// delays leave the agent time for a small image before the node has a network.
var delays = boot.Delays{Kubelet: time.Second, Config: 100 * time.Millisecond, CNI: 2 * time.Second}

func TestNodeBoots(t *testing.T) {
	testenv.RequireRoot(t)
	cluster, err := boot.NewCluster(t.Context(), boot.Config{
		Image: images.Sized("boot", 8<<20, 4<<20, 2<<20, 1<<20), Progress: t.Output(),
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, cluster.Stop()) })
	logMark := func(mark boot.Mark, at time.Duration) { t.Logf("%5.1f s  %s", at.Seconds(), mark) }

	t.Run("with Headstart the pod starts on a warm node", func(t *testing.T) {
		result, err := cluster.Run(t.Context(), boot.Options{Name: "headstart", Headstart: true, Delays: delays, OnMark: logMark})
		require.NoError(t, err)
		require.Contains(t, result.PullEvent, "already present on machine")
		inOrder(t, result, boot.AgentStarted, boot.KubeletStarted, boot.NodeRegistered)
		inOrder(t, result, boot.CNIWritten, boot.CNIReady, boot.TaintReleased)
		inOrder(t, result, boot.ImagesReady, boot.TaintReleased, boot.PodScheduled, boot.PodRunning)
		inOrder(t, result, boot.ConfigWritten, boot.GatesLifted, boot.PodScheduled)
		require.Contains(t, result.AgentTimeline, "shop/web:v1")
		fetchedOnce(t, cluster)
	})
	t.Run("without Headstart the kubelet pulls after the pod is scheduled", func(t *testing.T) {
		result, err := cluster.Run(t.Context(), boot.Options{Name: "plain", Delays: delays, OnMark: logMark})
		require.NoError(t, err)
		require.Contains(t, result.PullEvent, "Successfully pulled image")
		inOrder(t, result, boot.PodScheduled, boot.ImageOnNode)
		fetchedOnce(t, cluster)
	})
	t.Run("a steered pod starts on the warm node while a cold one is free", func(t *testing.T) {
		result, err := cluster.Steer(t.Context(), t.Logf)
		require.NoError(t, err)
		require.NoError(t, result.Check())
	})
}

// inOrder fails unless the marks were seen in this order.
func inOrder(t *testing.T, result *boot.Result, marks ...boot.Mark) {
	t.Helper()
	for i, mark := range marks {
		require.Contains(t, result.At, mark)
		if i > 0 {
			require.LessOrEqual(t, result.At[marks[i-1]], result.At[mark], "%q must not come before %q", mark, marks[i-1])
		}
	}
}

// fetchedOnce fails when the registry sent more or less than each layer once.
func fetchedOnce(t *testing.T, cluster *boot.Cluster) {
	t.Helper()
	for digest, size := range cluster.LayerSizes {
		require.Equal(t, size, cluster.Registry().Proxy.Blob(digest).Bytes, "layer %s", digest)
	}
}
