package boot_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/snapshots"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	digest "github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	"github.com/stretchr/testify/require"

	"headstart.dev/test/testenv"
	"headstart.dev/test/testenv/faultproxy"
	"headstart.dev/test/testenv/images"
)

const (
	snapshotter = "overlayfs"
	pullTimeout = 2 * time.Minute
	pullPeriod  = 10 * time.Millisecond
	// slow makes the pull last some seconds, so that the kill falls into it.
	slow = 3 << 20
)

const agentConfig = `apiVersion: agent.headstart.dev/v1alpha1
kind: AgentConfig
stateDir: "{dir}/state"
containerd: {address: %q}
images: [{image: %q, required: true}]
pull: {minFree: "0%%"}
metrics: {bindAddress: "0"}
`

// layer is one layer of the image under test.
type layer struct {
	digest string
	size   int64
	chain  string // the name of its snapshot
}

func layersOf(t *testing.T, image v1.Image) []layer {
	t.Helper()
	manifest, err := image.Manifest()
	require.NoError(t, err)
	config, err := image.ConfigFile()
	require.NoError(t, err)
	var layers []layer
	var diffs []digest.Digest
	for i, desc := range manifest.Layers {
		diffs = append(diffs, digest.Digest(config.RootFS.DiffIDs[i].String()))
		layers = append(layers, layer{digest: desc.Digest.String(), size: desc.Size, chain: identity.ChainID(diffs).String()})
	}
	return layers
}

// complete returns the layers that the node has for good: those with a committed snapshot.
func complete(t *testing.T, client *containerd.Client, layers []layer) []layer {
	t.Helper()
	var done []layer
	for _, l := range layers {
		info, err := client.SnapshotService(snapshotter).Stat(t.Context(), l.chain)
		if err == nil && info.Kind == snapshots.KindCommitted {
			done = append(done, l)
		}
	}
	return done
}

func TestKilledAgentDoesNotFetchCompleteLayersAgain(t *testing.T) {
	testenv.RequireRoot(t)
	registry := testenv.StartRegistry(t, testenv.RegistryConfig{})
	image, err := images.Build(t.Context(), images.Sized("killed", 6<<20, 4<<20, 5<<20, 30<<20))
	require.NoError(t, err)
	ref, _, err := registry.Push(t.Context(), "team/killed:v1", image)
	require.NoError(t, err)
	layers := layersOf(t, image)
	ctd := testenv.StartContainerd(t, testenv.ContainerdConfig{Registry: registry})
	client, err := ctd.Client()
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	binary, err := testenv.BuildCommand(t.Context(), "headstart-agent")
	require.NoError(t, err)

	registry.Proxy.SetBandwidth(slow)
	agent := testenv.StartProgram(t, testenv.ProgramConfig{
		Path: binary, Args: []string{"run", "--config", "{dir}/agent.yaml"},
		Files: map[string]string{"agent.yaml": strings.ReplaceAll(fmt.Sprintf(agentConfig, ctd.Address(), ref), "{dir}", t.TempDir())},
	})
	last := layers[len(layers)-1]
	require.Eventually(t, func() bool {
		return len(complete(t, client, layers)) >= 2 && registry.Proxy.Blob(last.digest).Bytes > 0
	}, pullTimeout, pullPeriod, "two layers are complete and the last is under way")
	require.NoError(t, agent.Kill())

	done := complete(t, client, layers)
	require.NotEmpty(t, done)
	require.Less(t, len(done), len(layers), "the kill must fall into the pull")
	before := registry.Proxy.Blobs()
	t.Logf("killed with %d of %d layers complete, %d bytes fetched", len(done), len(layers), sum(before))

	registry.Proxy.SetBandwidth(0)
	require.NoError(t, agent.Restart(t.Context()))
	require.Eventually(t, func() bool {
		pulled, err := client.GetImage(t.Context(), ref)
		if err != nil {
			return false
		}
		unpacked, err := pulled.IsUnpacked(t.Context(), snapshotter)
		return err == nil && unpacked
	}, pullTimeout, pullPeriod, "the second agent finishes the pull")

	after := registry.Proxy.Blobs()
	t.Logf("finished with %d bytes fetched in all; the image has %d", sum(after), total(layers))
	for _, l := range done {
		require.Equal(t, before[l.digest].Bytes, after[l.digest].Bytes, "layer %s was complete and must not be fetched again", l.digest)
		require.Equal(t, l.size, after[l.digest].Bytes, "layer %s", l.digest)
	}
}

func sum(blobs map[string]faultproxy.Count) int64 {
	var bytes int64
	for _, count := range blobs {
		bytes += count.Bytes
	}
	return bytes
}

func total(layers []layer) int64 {
	var bytes int64
	for _, l := range layers {
		bytes += l.size
	}
	return bytes
}
