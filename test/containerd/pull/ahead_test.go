package pull_test

import (
	"os"
	"testing"
	"time"

	"github.com/go-logr/logr"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/require"

	"headstart.dev/prepull"
	"headstart.dev/prepull/containerd"
	"headstart.dev/test/testenv"
)

// TestPullBeforeContainerd takes containerd away before a pull begins, and gives it back when all layers have been fetched.
func TestPullBeforeContainerd(t *testing.T) {
	reg := testenv.StartRegistry(t, testenv.RegistryConfig{})
	ctd := testenv.StartContainerd(t, testenv.ContainerdConfig{Registry: reg})
	_, present := push(t, reg, "present", 4*mib)
	require.Equal(t, prepull.StateWarm, pull(t, newStore(t, ctd, nil), prepull.Image{Ref: present}).State)
	img, ref := push(t, reg, "ahead", 6*mib, 2*mib, 3*mib)
	require.NoError(t, ctd.Kill())
	require.NoError(t, os.Remove(ctd.Address()))
	reg.Proxy.ResetCounts()

	store := newStore(t, ctd, func(c *containerd.Config) {
		c.ConfigDump = []string{ctd.Binary(), "--config", ctd.ConfigPath(), "config", "dump"}
	})
	puller, err := prepull.New(prepull.Config{
		Store: store, Images: []prepull.Image{{Ref: ref}, {Ref: present}}, MaxAttempts: 3, Log: logr.Discard(),
	})
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() { done <- puller.Run(t.Context()) }()
	fetched := func() (total int64) {
		for _, s := range puller.Status() {
			total += s.FetchedBytes
		}
		return total
	}
	// The program's layer is on the node already, and nothing of the other image is missing.
	missing := imageBytes(t, img) - firstLayer(t, img)
	require.Eventually(t, func() bool { return fetched() >= missing }, time.Minute, 10*time.Millisecond)
	require.NoFileExists(t, ctd.Address(), "all of it was fetched before containerd was up")

	require.NoError(t, ctd.Restart(t.Context()))
	statuses, err := puller.Wait(t.Context())
	require.NoError(t, err)
	for _, s := range statuses {
		require.Equal(t, prepull.StateWarm, s.State, "%s: %s", s.Name, s.Error)
	}
	require.Equal(t, missing, layerBytes(t, reg, img), "every byte once, and none of what was there")
	require.Equal(t, missing, fetched())
	requireNothingStaged(t, ctd)
	requireUsable(t, ctd, reg, img, ref, statuses[0].Digest)
}

// TestPullBeforeContainerdWaitsWhenUnsure checks that nothing is fetched for a containerd that would not use it.
func TestPullBeforeContainerdWaitsWhenUnsure(t *testing.T) {
	reg := testenv.StartRegistry(t, testenv.RegistryConfig{})
	ctd := testenv.StartContainerd(t, testenv.ContainerdConfig{Registry: reg, KeepLayers: true})
	img, ref := push(t, reg, "unsure", mib)
	require.NoError(t, ctd.Kill())
	require.NoError(t, os.Remove(ctd.Address()))
	reg.Proxy.ResetCounts()
	for name, command := range map[string][]string{
		"it keeps blobs":       {ctd.Binary(), "--config", ctd.ConfigPath(), "config", "dump"},
		"it has no config":     {ctd.Binary(), "--config", ctd.ConfigPath() + ".none", "config", "dump"},
		"it is another":        {ctd.Binary(), "config", "dump"},
		"there is no such one": {"/nonexistent/containerd", "config", "dump"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // each waits for half a minute
			store := newStore(t, ctd, func(c *containerd.Config) { c.ConfigDump = command })
			_, err := store.Pull(t.Context(), prepull.Image{Ref: ref}, nil)
			require.ErrorContains(t, err, "is containerd running?")
			require.Zero(t, layerBytes(t, reg, img))
		})
	}
}

func firstLayer(t *testing.T, img v1.Image) int64 {
	t.Helper()
	layers, err := img.Layers()
	require.NoError(t, err)
	size, err := layers[0].Size()
	require.NoError(t, err)
	return size
}
