package containerd

import (
	"context"
	"fmt"
	"strings"

	introspectionapi "github.com/containerd/containerd/api/services/introspection/v1"
	"github.com/containerd/containerd/v2/plugins"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// findImageService finds out where pulls are asked for. A snapshotter that is a process of its own may serve the CRI's
// image service: a kubelet that pulls there tells it the credentials, and so must we. Whether it does, only asking tells.
func (n *node) findImageService(ctx context.Context, d *Discovery, all []*introspectionapi.Plugin) error {
	n.images, d.ImageEndpoint = n.cri, n.address
	for _, p := range all {
		address := strings.TrimPrefix(p.Exports["address"], "unix://")
		if p.Type != plugins.SnapshotPlugin.String() || p.ID != d.Snapshotter || !strings.HasPrefix(address, "/") {
			continue
		}
		conn, err := grpc.NewClient("unix://"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return fmt.Errorf("reach the snapshotter %s: %w", d.Snapshotter, err)
		}
		service := criapi.NewImageServiceClient(conn)
		switch _, err := service.ImageFsInfo(ctx, &criapi.ImageFsInfoRequest{}); {
		case err == nil:
			n.images, n.proxy, d.ImageEndpoint = service, conn, address
			return nil
		case status.Code(err) == codes.Unimplemented:
			return conn.Close() // it serves snapshots only
		default:
			_ = conn.Close()
			return fmt.Errorf("ask the snapshotter %s whether it serves images: %w", d.Snapshotter, err)
		}
	}
	return nil
}
