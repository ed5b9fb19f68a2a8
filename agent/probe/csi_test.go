package probe_test

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
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
	name, endpoint string
	asked          atomic.Int32
}

func (r *registrar) GetInfo(context.Context, *registerapi.InfoRequest) (*registerapi.PluginInfo, error) {
	r.asked.Add(1)
	return &registerapi.PluginInfo{Type: registerapi.CSIPlugin, Name: r.name, Endpoint: r.endpoint}, nil
}

// csiNode is what an API server says of the kubelet's registrations.
type csiNode struct {
	mu      sync.Mutex
	drivers []string
	err     error
	asked   int
	epoch   string
	changed chan struct{}
}

func newCSINode(drivers ...string) *csiNode {
	return &csiNode{drivers: drivers, changed: make(chan struct{})}
}

func (c *csiNode) Registered(_ context.Context, driver string) (bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked++
	return slices.Contains(c.drivers, driver), c.err
}

func (c *csiNode) Changed() (string, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.epoch, c.changed
}

// register is what a kubelet does.
func (c *csiNode) register(epoch string, drivers ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drivers, c.epoch = drivers, epoch
	close(c.changed)
	c.changed = make(chan struct{})
}

func (c *csiNode) questions() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.asked
}

func TestCSI(t *testing.T) {
	root := socketDir(t)
	socket := filepath.Join(root, "plugins", driverName, "csi.sock")
	registration := filepath.Join(root, "plugins_registry", driverName+"-reg.sock")
	checker := &probe.CSI{Drivers: []string{driverName}, KubeletDir: root, Registrations: newCSINode(driverName)}
	require.Equal(t, probe.ReasonNotFound, look(t, checker, childTime).Reason)

	stop := startDriver(t, listen(t, "unix", socket), &identity{name: "another.driver"})
	require.Equal(t, probe.ReasonInvalid, look(t, checker, childTime).Reason)
	stop()

	stop = startDriver(t, listen(t, "unix", socket), &identity{name: driverName, ready: wrapperspb.Bool(false)})
	require.Equal(t, probe.ReasonDriverNotReady, look(t, checker, childTime).Reason)
	stop()

	startDriver(t, listen(t, "unix", socket), &identity{name: driverName})
	require.Equal(t, probe.ReasonNotRegistered, look(t, checker, childTime).Reason)

	serve(t, listen(t, "unix", registration), func(s *grpc.Server) {
		registerapi.RegisterRegistrationServer(s, &registrar{name: driverName})
	})
	result := look(t, checker, childTime)
	require.Equal(t, probe.True, result.Status, result.Message)

	several := &probe.CSI{Drivers: []string{driverName, "efs.csi.aws.com"}, KubeletDir: root, Registrations: newCSINode(driverName)}
	require.Contains(t, look(t, several, childTime).Message, "efs.csi.aws.com")
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
	kubelet := newCSINode()
	results := start(t, &probe.CSI{Drivers: []string{driverName}, KubeletDir: root, Registrations: kubelet}, eventsOnly)
	require.Equal(t, probe.ReasonNotFound, next(t, results).Reason)
	serve(t, listen(t, "unix", filepath.Join(root, "plugins_registry", driverName+"-reg.sock")), func(s *grpc.Server) {
		registerapi.RegisterRegistrationServer(s, &registrar{name: driverName})
	})
	startDriver(t, listen(t, "unix", filepath.Join(root, "plugins", driverName, "csi.sock")), &identity{name: driverName})
	for next(t, results).Reason != probe.ReasonNotRegistered {
	}
	kubelet.register("registered", driverName)
	for next(t, results).Status != probe.True {
	}
}

// startPlugin runs a driver and its registrar, which says where the driver answers.
func startPlugin(t *testing.T, root, registration, socket, endpoint string) *registrar {
	t.Helper()
	startDriver(t, listen(t, "unix", socket), &identity{name: driverName})
	r := &registrar{name: driverName, endpoint: endpoint}
	serve(t, listen(t, "unix", filepath.Join(root, "plugins_registry", registration)), func(s *grpc.Server) {
		registerapi.RegisterRegistrationServer(s, r)
	})
	return r
}

func TestCSIIsNotReadyBeforeTheKubeletHasRegisteredIt(t *testing.T) {
	root := socketDir(t)
	socket := filepath.Join(root, "plugins", driverName, "csi.sock")
	plugin := startPlugin(t, root, driverName+"-reg.sock", socket, socket)
	checker := &probe.CSI{Drivers: []string{driverName}, KubeletDir: root}
	result := look(t, checker, childTime)
	require.Equal(t, probe.ReasonNotRegistered, result.Reason, "there is no kubelet, and no API server to ask")
	require.Contains(t, result.Message, "no kubelet listens in "+root)

	kubelet := newCSINode()
	kubelet.err = errors.New("csinodes is forbidden")
	kubelet.register("0")
	checker.Registrations = kubelet
	result = look(t, checker, childTime)
	require.Equal(t, probe.ReasonNotRegistered, result.Reason)
	require.Contains(t, result.Message, "forbidden")

	kubelet.err = nil
	kubelet.register("1")
	result = look(t, checker, childTime)
	require.Equal(t, probe.ReasonNotRegistered, result.Reason)
	require.Contains(t, result.Message, "CSINode does not have it")
	kubelet.register("2", driverName)
	asked := kubelet.questions()
	for range 5 {
		require.Equal(t, probe.True, look(t, checker, childTime).Status)
	}
	require.Equal(t, asked+1, kubelet.questions(), "a driver that is registered costs the API server nothing")
	require.Equal(t, int32(1), plugin.asked.Load(), "a registrar takes each question for the kubelet's")

	kubelet.register("a Node that has replaced the first")
	require.Equal(t, probe.ReasonNotRegistered, look(t, checker, childTime).Reason)
}

func TestCSIAsksSeldomForWhatDoesNotCome(t *testing.T) {
	root := socketDir(t)
	socket := filepath.Join(root, "plugins", driverName, "csi.sock")
	startPlugin(t, root, driverName+"-reg.sock", socket, socket)
	kubelet := newCSINode()
	checker := &probe.CSI{Drivers: []string{driverName}, KubeletDir: root, Registrations: kubelet}
	for range 50 {
		require.Equal(t, probe.ReasonNotRegistered, look(t, checker, childTime).Reason)
	}
	require.Less(t, kubelet.questions(), 10)
}

func TestCSIWithoutAnAPIServerTheKubeletMustListen(t *testing.T) {
	root := socketDir(t)
	socket := filepath.Join(root, "plugins", driverName, "csi.sock")
	startPlugin(t, root, driverName+"-reg.sock", socket, socket)
	kubelet := newCSINode()
	kubelet.err = probe.ErrNoAPI
	checker := &probe.CSI{Drivers: []string{driverName}, KubeletDir: root, Registrations: kubelet}
	require.Equal(t, probe.ReasonNotRegistered, look(t, checker, childTime).Reason)
	listen(t, "unix", filepath.Join(root, "pod-resources/kubelet.sock"))
	require.Eventually(t, func() bool { return look(t, checker, childTime).Status == probe.True }, childTime, 10*time.Millisecond)
}

// Drivers whose sockets are named as their authors liked.
func TestCSITheRegistrationSaysWhereTheDriverIs(t *testing.T) {
	for name, tc := range map[string]struct{ registration, socket string }{
		"nfs.csi.k8s.io":      {driverName + "-reg.sock", "plugins/csi-nfsplugin/csi.sock"},
		"secrets-store":       {driverName + "-reg.sock", "plugins/csi-secrets-store/csi.sock"},
		"not in plugins":      {driverName + "-reg.sock", "csi-plugins/x/csi.sock"},
		"another registrar":   {"nfs-reg.sock", "plugins/x/csi.sock"},
		"a folder of its own": {"x/reg.sock", "plugins/x/csi.sock"},
	} {
		t.Run(name, func(t *testing.T) {
			root := socketDir(t)
			socket := filepath.Join(root, tc.socket)
			silent(t, listen(t, "unix", filepath.Join(root, "plugins_registry/another-reg.sock")))
			startPlugin(t, root, tc.registration, socket, socket)
			result := look(t, &probe.CSI{Drivers: []string{driverName}, KubeletDir: root, Registrations: newCSINode(driverName)}, childTime)
			require.Equal(t, probe.True, result.Status, result.Message)
		})
	}
}
