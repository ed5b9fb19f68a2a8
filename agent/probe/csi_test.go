package probe_test

import (
	"context"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/kubernetes-csi/csi-test/v5/driver"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"
	registerapi "k8s.io/kubelet/pkg/apis/pluginregistration/v1"

	"headstart.dev/agent/probe"
)

const driverName = "ebs.csi.aws.com"

type identity struct {
	csi.UnimplementedIdentityServer
	name  string
	ready *wrapperspb.BoolValue
}

func (i *identity) GetPluginInfo(context.Context, *csi.GetPluginInfoRequest) (*csi.GetPluginInfoResponse, error) {
	return &csi.GetPluginInfoResponse{Name: i.name, VendorVersion: "1"}, nil
}

func (i *identity) Probe(context.Context, *csi.ProbeRequest) (*csi.ProbeResponse, error) {
	return &csi.ProbeResponse{Ready: i.ready}, nil
}

// startDriver runs csi-test's driver, and returns how to stop it.
func startDriver(t *testing.T, listener net.Listener, server csi.IdentityServer) func() {
	t.Helper()
	d := driver.NewCSIDriver(&driver.CSIDriverServers{Identity: server})
	d.SetDefaultCreds()
	require.NoError(t, d.Start(listener))
	stopped := false
	stop := func() {
		if !stopped {
			stopped = true
			d.Stop()
		}
	}
	t.Cleanup(stop)
	return stop
}

type registrar struct {
	registerapi.UnimplementedRegistrationServer
	name string
}

func (r *registrar) GetInfo(context.Context, *registerapi.InfoRequest) (*registerapi.PluginInfo, error) {
	return &registerapi.PluginInfo{Type: registerapi.CSIPlugin, Name: r.name}, nil
}

func TestCSI(t *testing.T) {
	root := socketDir(t)
	socket := filepath.Join(root, "plugins", driverName, "csi.sock")
	registration := filepath.Join(root, "plugins_registry", driverName+"-reg.sock")
	checker := &probe.CSI{Drivers: []string{driverName}, KubeletDir: root}
	require.Equal(t, probe.ReasonNotFound, look(t, checker, time.Second).Reason)

	stop := startDriver(t, listen(t, "unix", socket), &identity{name: "another.driver"})
	require.Equal(t, probe.ReasonInvalid, look(t, checker, time.Second).Reason)
	stop()

	stop = startDriver(t, listen(t, "unix", socket), &identity{name: driverName, ready: wrapperspb.Bool(false)})
	require.Equal(t, probe.ReasonDriverNotReady, look(t, checker, time.Second).Reason)
	stop()

	startDriver(t, listen(t, "unix", socket), &identity{name: driverName})
	require.Equal(t, probe.ReasonNotRegistered, look(t, checker, time.Second).Reason)

	serve(t, listen(t, "unix", registration), func(s *grpc.Server) {
		registerapi.RegisterRegistrationServer(s, &registrar{name: driverName})
	})
	result := look(t, checker, time.Second)
	require.Equal(t, probe.True, result.Status, result.Message)

	several := &probe.CSI{Drivers: []string{driverName, "efs.csi.aws.com"}, KubeletDir: root}
	require.Contains(t, look(t, several, time.Second).Message, "efs.csi.aws.com")
}

func TestCSIDriverThatHangsDoesNotHideTheOthers(t *testing.T) {
	root := socketDir(t)
	silent(t, listen(t, "unix", filepath.Join(root, "plugins", "hangs.example", "csi.sock")))
	checker := &probe.CSI{Drivers: []string{"absent.example", "hangs.example"}, KubeletDir: root}
	require.Contains(t, look(t, checker, shortLook).Message, "absent.example")
	checker.Drivers = []string{"hangs.example", "absent.example"}
	result := look(t, checker, shortLook)
	require.Equal(t, probe.ReasonTimeout, result.Reason)
	require.Contains(t, result.Message, "hangs.example")
}

func TestCSISocketIsSeenByAnEvent(t *testing.T) {
	root := socketDir(t)
	results := start(t, &probe.CSI{Drivers: []string{driverName}, KubeletDir: root}, eventsOnly)
	require.Equal(t, probe.ReasonNotFound, next(t, results).Reason)
	serve(t, listen(t, "unix", filepath.Join(root, "plugins_registry", driverName+"-reg.sock")), func(s *grpc.Server) {
		registerapi.RegisterRegistrationServer(s, &registrar{name: driverName})
	})
	startDriver(t, listen(t, "unix", filepath.Join(root, "plugins", driverName, "csi.sock")), &identity{name: driverName})
	for {
		if next(t, results).Status == probe.True {
			return
		}
	}
}
