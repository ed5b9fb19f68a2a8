package pull_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/stretchr/testify/require"

	"headstart.dev/prepull"
	"headstart.dev/test/testenv"
	"headstart.dev/test/testenv/faultproxy"
	"headstart.dev/test/testenv/images"
)

// TestSharedLayersComeOnce pulls images with common bases together: they are one plan, and a layer comes once.
func TestSharedLayersComeOnce(t *testing.T) {
	reg := testenv.StartRegistry(t, testenv.RegistryConfig{})
	ctd := testenv.StartContainerd(t, testenv.ContainerdConfig{Registry: reg})
	base := images.Sized("shared-base", 3*mib, mib).Layers
	var wanted []prepull.Image
	unique := map[string]int64{}
	for i := range 6 {
		spec := images.Spec{Layers: append(slices.Clip(base), images.Sized(fmt.Sprintf("shared-%d", i), mib, mib/2).Layers...)}
		img, err := images.Build(t.Context(), spec)
		require.NoError(t, err)
		ref, _, err := reg.Push(t.Context(), fmt.Sprintf("shared/app%d:v1", i), img)
		require.NoError(t, err)
		wanted = append(wanted, prepull.Image{Ref: ref, Priority: int32(i % 2)})
		layers, err := img.Layers()
		require.NoError(t, err)
		for _, l := range layers {
			dgst, err := l.Digest()
			require.NoError(t, err)
			unique[dgst.String()], err = l.Size()
			require.NoError(t, err)
		}
	}
	t.Cleanup(reg.Proxy.Inject(faultproxy.Fault{Match: faultproxy.Blobs, BytesPerSecond: 4 * mib}))
	puller, err := prepull.New(prepull.Config{Store: newStore(t, ctd, nil), Images: wanted, MaxAttempts: 1, Log: logr.Discard()})
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = puller.Run(ctx)
	}()
	statuses, err := puller.Wait(ctx)
	cancel()
	<-done
	require.NoError(t, err)
	var fetched, want int64
	for _, s := range statuses {
		require.Equal(t, prepull.StateWarm, s.State, "%s: %s", s.Name, s.Error)
		fetched += s.FetchedBytes
	}
	for _, size := range unique {
		want += size
	}
	require.Equal(t, want, fetched)
	requireNothingStaged(t, ctd)
}
