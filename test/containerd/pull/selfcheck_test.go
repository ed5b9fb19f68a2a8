package pull_test

import (
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/pkg/namespaces"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"headstart.dev/prepull"
	"headstart.dev/prepull/containerd"
	"headstart.dev/test/testenv"
	"headstart.dev/test/testenv/images"
)

// frame is a gRPC message that nobody decodes.
type frame []byte

// rawCodec passes frames on as they are.
type rawCodec struct{}

func (rawCodec) Marshal(v any) ([]byte, error) { return *v.(*frame), nil } //nolint:errcheck,forcetypeassert // only frames come here

func (rawCodec) Unmarshal(data []byte, v any) error {
	*v.(*frame) = append(frame(nil), data...) //nolint:errcheck,forcetypeassert // only frames come here
	return nil
}

func (rawCodec) Name() string { return "proto" }

// forgetfulCRI stands before a containerd and passes everything on, but that while forget is set ImageStatus knows no
// image: a CRI that looks elsewhere than we believe.
func forgetfulCRI(t *testing.T, address string, forget *atomic.Bool) string {
	t.Helper()
	conn, err := grpc.NewClient("unix://"+address, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.ForceCodec(rawCodec{})))
	require.NoError(t, err)
	server := grpc.NewServer(grpc.ForceServerCodec(rawCodec{}), grpc.UnknownServiceHandler(func(_ any, in grpc.ServerStream) error {
		method, _ := grpc.MethodFromServerStream(in)
		if forget.Load() && strings.HasSuffix(method, "ImageService/ImageStatus") {
			out := frame{} // an empty ImageStatusResponse: no such image
			return in.SendMsg(&out)
		}
		md, _ := metadata.FromIncomingContext(in.Context())
		return passOn(metadata.NewOutgoingContext(in.Context(), md), conn, method, in)
	}))
	socket := filepath.Join(t.TempDir(), "c.sock")
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", socket)
	require.NoError(t, err)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		require.NoError(t, <-served)
		require.NoError(t, conn.Close())
	})
	return socket
}

// passOn copies the messages of one call in both directions.
func passOn(ctx context.Context, conn *grpc.ClientConn, method string, in grpc.ServerStream) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	out, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, method)
	if err != nil {
		return err
	}
	go func() {
		var f frame
		for in.RecvMsg(&f) == nil {
			if out.SendMsg(&f) != nil {
				return
			}
		}
		_ = out.CloseSend()
	}()
	for {
		var f frame
		if err := out.RecvMsg(&f); err != nil {
			if trailer := out.Trailer(); trailer != nil {
				in.SetTrailer(trailer)
			}
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		if err := in.SendMsg(&f); err != nil {
			return err
		}
	}
}

// TestNoEngineIsWarmWithoutTheCRI shows the check of every image by every engine: a CRI that does not see it makes it
// none that is here, leaves no name behind, and is no verdict on an engine for other images.
func TestNoEngineIsWarmWithoutTheCRI(t *testing.T) {
	reg := testenv.StartRegistry(t, testenv.RegistryConfig{})
	ctd := testenv.StartContainerd(t, testenv.ContainerdConfig{Registry: reg})
	var refs []string
	var sizes []int64 // of the layers that an image does not share with those before
	seen := map[v1.Hash]bool{}
	for _, name := range []string{"first", "second"} {
		img, err := images.Build(t.Context(), images.Sized(name, 2*mib, mib))
		require.NoError(t, err)
		ref, _, err := reg.Push(t.Context(), name+":v1", img)
		require.NoError(t, err)
		layers, err := img.Layers()
		require.NoError(t, err)
		var total int64
		for _, l := range layers {
			dgst, err := l.Digest()
			require.NoError(t, err)
			size, err := l.Size()
			require.NoError(t, err)
			if !seen[dgst] { // all images have the base in common
				total += size
			}
			seen[dgst] = true
		}
		refs, sizes = append(refs, ref), append(sizes, total)
	}
	var forget atomic.Bool
	forget.Store(true)
	address := forgetfulCRI(t, ctd.Address(), &forget)
	store := newStore(t, ctd, func(cfg *containerd.Config) { cfg.Address = address },
		containerd.EngineDirect, containerd.EngineClient)

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err := store.Pull(ctx, prepull.Image{Ref: refs[0]}, nil)
	require.ErrorContains(t, err, "engine direct")
	require.ErrorContains(t, err, "engine client")
	require.ErrorContains(t, err, "the CRI does not see it")
	_, c := direct(t, ctd)
	records, err := c.ImageService().List(namespaces.WithNamespace(t.Context(), "k8s.io"))
	require.NoError(t, err)
	for _, record := range records {
		require.NotContains(t, record.Name, "first", "a name that the CRI does not know")
	}

	forget.Store(false)
	for i, ref := range refs {
		status := pull(t, store, prepull.Image{Ref: ref})
		require.Equal(t, prepull.StateWarm, status.State, status.Error)
		if i > 0 {
			require.Equal(t, containerd.EngineDirect, status.Engine, "one odd image is no verdict on the engine")
			require.Equal(t, sizes[i], status.FetchedBytes)
		}
	}
}
