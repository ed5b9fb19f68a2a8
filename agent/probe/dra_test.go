package probe_test

import (
	"context"
	"errors"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	registerapi "k8s.io/kubelet/pkg/apis/pluginregistration/v1"

	"headstart.dev/agent/probe"
)

// draSlices are what an API server has of a driver.
type draSlices struct {
	*csiNode
	devices  int
	complete bool
	failure  error
}

func (s *draSlices) Devices(context.Context, string) (int, bool, error) {
	return s.devices, s.complete, s.failure
}

type draRegistrar struct {
	registerapi.UnimplementedRegistrationServer
}

func (draRegistrar) GetInfo(context.Context, *registerapi.InfoRequest) (*registerapi.PluginInfo, error) {
	return &registerapi.PluginInfo{Type: registerapi.DRAPlugin, Name: "gpu.nvidia.com", Endpoint: "/var/lib/kubelet/plugins/gpu.nvidia.com/dra.sock"}, nil
}

func TestDRA(t *testing.T) {
	root := socketDir(t)
	published := &draSlices{csiNode: newCSINode(), failure: errors.New("resourceslices is forbidden")}
	dra := &probe.DRA{Drivers: []string{"gpu.nvidia.com"}, KubeletDir: root, Slices: published}
	require.Equal(t, probe.ReasonNotRegistered, look(t, dra, childTime).Reason)
	serve(t, listen(t, "unix", filepath.Join(root, "plugins_registry/gpu.nvidia.com-reg.sock")), func(s *grpc.Server) {
		registerapi.RegisterRegistrationServer(s, draRegistrar{})
	})
	says := func(text string) {
		t.Helper()
		published.register(text)
		result := look(t, dra, childTime)
		require.Equal(t, probe.ReasonNotPublished, result.Reason)
		require.Contains(t, result.Message, text)
	}
	says("forbidden")
	published.failure = nil
	says("no device of this node")
	published.devices = 8
	says("8 devices of this node, and not all")
	published.complete = true
	published.register("complete")
	require.Equal(t, probe.True, look(t, dra, childTime).Status)
}
