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

// TestDirectEngineStandsDownWhereTheCRIDoesNotSeeItsImage shows the check of the first image: a mismatch hands it to the
// next engine, which finds every layer there, and ends the direct engine's use on the node, with the reason.
func TestDirectEngineStandsDownWhereTheCRIDoesNotSeeItsImage(t *testing.T) {
	reg := testenv.StartRegistry(t, testenv.RegistryConfig{})
	ctd := testenv.StartContainerd(t, testenv.ContainerdConfig{Registry: reg})
	var refs []string
	var sizes []int64
	for _, name := range []string{"first", "second"} {
		img, err := images.Build(t.Context(), images.Sized(name, 2*mib, mib))
		require.NoError(t, err)
		ref, _, err := reg.Push(t.Context(), name+":v1", img)
		require.NoError(t, err)
		layers, err := img.Layers()
		require.NoError(t, err)
		var total int64
		for _, l := range layers {
			size, err := l.Size()
			require.NoError(t, err)
			total += size
		}
		refs, sizes = append(refs, ref), append(sizes, total)
	}
	var forget atomic.Bool
	forget.Store(true)
	address := forgetfulCRI(t, ctd.Address(), &forget)
	store := newStore(t, ctd, func(cfg *containerd.Config) { cfg.Address = address },
		containerd.EngineDirect, containerd.EngineClient)

	first := pull(t, store, prepull.Image{Ref: refs[0]})
	require.Equal(t, containerd.EngineClient, first.Engine)
	require.Equal(t, sizes[0], first.FetchedBytes, "under the lease of both, what the first engine brought is there for the second")
	require.Len(t, first.PassedOver, 1)
	require.Equal(t, containerd.EngineDirect, first.PassedOver[0].Engine)
	require.Contains(t, first.PassedOver[0].Reason, "the CRI does not see it")

	forget.Store(false)
	second := pull(t, store, prepull.Image{Ref: refs[1]})
	require.Equal(t, containerd.EngineClient, second.Engine, "once is enough for the node")
	require.Contains(t, second.PassedOver[0].Reason, "it failed its check on this node: the CRI does not see it")

	trusted := newStore(t, ctd, nil, containerd.EngineDirect)
	third, err := images.Build(t.Context(), images.Sized("third", mib))
	require.NoError(t, err)
	ref, _, err := reg.Push(t.Context(), "third:v1", third)
	require.NoError(t, err)
	require.Equal(t, containerd.EngineDirect, pull(t, trusted, prepull.Image{Ref: ref}).Engine, "where the CRI sees it the engine stays")
}
