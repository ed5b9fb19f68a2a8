package shipped_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	draapi "k8s.io/kubelet/pkg/apis/dra/v1"
	registerapi "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
	"sigs.k8s.io/yaml"

	"headstart.dev/agent/systemdtest"
)

const (
	csiDriver = "stand-in.example.com"
	draDriver = "dra.example.com"
	busSocket = "/run/dbus/system_bus_socket"
	efaDevice = "/dev/infiniband/uverbs-headstart-test"
	// somebody owns what is not root's.
	somebody = 1000
)

// standIns play the other ends of all probe families, and return the probes, and what is to come of them. Where the other end
// is a device, that the pod has what it takes to look for it shows in what it says is missing.
func standIns(t *testing.T, client kubernetes.Interface, kubeletDir string) (probes []map[string]any, want map[corev1.NodeConditionType]string) {
	t.Helper()
	web := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(web.Close)
	dir := func(name string, owner int, mode os.FileMode) string {
		path := filepath.Join(t.TempDir(), name)
		require.NoError(t, os.Mkdir(path, mode))
		require.NoError(t, os.Chown(path, owner, owner))
		return path
	}
	grpcDir, unixDir, fileDir := dir("grpc", somebody, 0o700), dir("unix", somebody, 0o700), dir("file", somebody, 0o700)
	serve(t, filepath.Join(grpcDir, "s.sock"), func(s *grpc.Server) { healthpb.RegisterHealthServer(s, health.NewServer()) })
	serve(t, filepath.Join(unixDir, "s.sock"), func(*grpc.Server) {})
	for _, socket := range []string{filepath.Join(grpcDir, "s.sock"), filepath.Join(unixDir, "s.sock")} {
		require.NoError(t, os.Chown(socket, somebody, somebody))
		require.NoError(t, os.Chmod(socket, 0o700))
	}
	require.NoError(t, os.WriteFile(filepath.Join(fileDir, "ready"), nil, 0o600))
	serveCSI(t, kubeletDir)
	serveDRA(t, client, kubeletDir)
	require.NoError(t, os.MkdirAll(filepath.Dir(efaDevice), 0o755))
	require.NoError(t, os.WriteFile(efaDevice, nil, 0o600))
	t.Cleanup(func() { _ = os.Remove(efaDevice); _ = os.Remove(filepath.Dir(efaDevice)) })
	probes = []map[string]any{
		{"name": "csi", "type": "csi", "drivers": []string{csiDriver}},
		{"name": "dra", "type": "dra", "drivers": []string{draDriver}},
		{"name": "gpu", "type": "gpu"},
		{"name": "nvidia", "type": "gpu", "minDevices": 1},
		{"name": "neuron", "type": "neuron", "minDevices": 1},
		{"name": "efa", "type": "efa", "minDevices": 1},
		{"name": "unit", "type": "systemd", "unit": serveSystemd(t)},
		{"name": "web", "type": "http", "url": web.URL},
		{"name": "port", "type": "tcp", "address": web.Listener.Addr().String()},
		{"name": "health", "type": "grpc", "address": "unix://" + filepath.Join(grpcDir, "s.sock")},
		{"name": "socket", "type": "unix", "path": filepath.Join(unixDir, "s.sock")},
		{"name": "file", "type": "file", "path": filepath.Join(fileDir, "ready")},
		{"name": "command", "type": "exec", "command": []string{buildCheck(t)}, "allowExec": true},
	}
	want = map[corev1.NodeConditionType]string{
		// There is no adapter here; that its device file is seen tells that the folder is.
		"headstart.dev/EfaReady":    "/dev/infiniband holds 1 device files",
		"headstart.dev/NvidiaReady": "install the NVIDIA driver",
		"headstart.dev/NeuronReady": "the Neuron kernel module is not loaded yet",
	}
	for _, name := range []string{"CSI", "Dra", "Unit", "Web", "Port", "Health", "Socket", "File", "Command"} {
		want[corev1.NodeConditionType("headstart.dev/"+name+"Ready")] = ""
	}
	return probes, want
}

// serve runs a gRPC server at a socket.
func serve(t *testing.T, socket string, register func(*grpc.Server)) {
	t.Helper()
	var lc net.ListenConfig
	listener, err := lc.Listen(t.Context(), "unix", socket)
	require.NoError(t, err)
	server := grpc.NewServer()
	register(server)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
}

type csiIdentity struct {
	csi.UnimplementedIdentityServer
}

func (csiIdentity) GetPluginInfo(context.Context, *csi.GetPluginInfoRequest) (*csi.GetPluginInfoResponse, error) {
	return &csi.GetPluginInfoResponse{Name: csiDriver, VendorVersion: "1"}, nil
}

func (csiIdentity) Probe(context.Context, *csi.ProbeRequest) (*csi.ProbeResponse, error) {
	return &csi.ProbeResponse{}, nil
}

// csiNode is what the kubelet asks before it registers a driver.
type csiNode struct{ csi.UnimplementedNodeServer }

func (csiNode) NodeGetInfo(context.Context, *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	return &csi.NodeGetInfoResponse{NodeId: "node1"}, nil
}

// registrar offers a plugin to the kubelet.
type registrar struct {
	registerapi.UnimplementedRegistrationServer
	kind, name, endpoint, version string
}

func (r registrar) GetInfo(context.Context, *registerapi.InfoRequest) (*registerapi.PluginInfo, error) {
	return &registerapi.PluginInfo{Type: r.kind, Name: r.name, Endpoint: r.endpoint, SupportedVersions: []string{r.version}}, nil
}

func (r registrar) NotifyRegistrationStatus(context.Context, *registerapi.RegistrationStatus) (*registerapi.RegistrationStatusResponse, error) {
	return &registerapi.RegistrationStatusResponse{}, nil
}

func serveCSI(t *testing.T, kubeletDir string) {
	t.Helper()
	servePlugin(t, kubeletDir, registrar{kind: registerapi.CSIPlugin, name: csiDriver, version: "1.0.0"}, func(s *grpc.Server) {
		csi.RegisterIdentityServer(s, csiIdentity{})
		csi.RegisterNodeServer(s, csiNode{})
	})
}

// serveDRA plays a driver that has published its one device. No pod claims it, so that nothing is asked of the driver itself.
func serveDRA(t *testing.T, client kubernetes.Interface, kubeletDir string) {
	t.Helper()
	servePlugin(t, kubeletDir, registrar{kind: registerapi.DRAPlugin, name: draDriver, version: draapi.DRAPluginService}, func(*grpc.Server) {})
	_, err := client.ResourceV1().ResourceSlices().Create(t.Context(), &resourceapi.ResourceSlice{
		ObjectMeta: metav1.ObjectMeta{Name: "node1-" + draDriver},
		Spec: resourceapi.ResourceSliceSpec{
			Driver: draDriver, NodeName: new("node1"), Pool: resourceapi.ResourcePool{Name: "node1", ResourceSliceCount: 1},
			Devices: []resourceapi.Device{{Name: "gpu-0"}},
		},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
}

// servePlugin serves a plugin of the kubelet's, and the registrar that offers it.
func servePlugin(t *testing.T, kubeletDir string, offer registrar, register func(*grpc.Server)) {
	t.Helper()
	plugin, registry := filepath.Join(kubeletDir, "plugins", offer.name), filepath.Join(kubeletDir, "plugins_registry")
	require.NoError(t, os.MkdirAll(plugin, 0o750))
	require.NoError(t, os.MkdirAll(registry, 0o750))
	offer.endpoint = filepath.Join(plugin, "plugin.sock")
	serve(t, offer.endpoint, register)
	serve(t, filepath.Join(registry, offer.name+"-reg.sock"), func(s *grpc.Server) { registerapi.RegisterRegistrationServer(s, offer) })
}

// serveSystemd returns a unit that is active: of this machine's systemd, or of one that a stand-in plays at its place.
func serveSystemd(t *testing.T) string {
	t.Helper()
	var d net.Dialer
	if bus, err := d.DialContext(t.Context(), "unix", busSocket); err == nil {
		require.NoError(t, bus.Close())
		return "-.mount"
	}
	// A run that was killed leaves its socket.
	if err := os.Remove(busSocket); !errors.Is(err, os.ErrNotExist) {
		require.NoError(t, err)
	}
	systemd, err := systemdtest.Start(context.WithoutCancel(t.Context()))
	require.NoError(t, err)
	t.Cleanup(func() { _ = systemd.Close() })
	require.NoError(t, systemd.Set("stand-in.service", "active"))
	path, _, _ := strings.Cut(strings.TrimPrefix(systemd.Address(), "unix:path="), ",")
	require.NoError(t, os.MkdirAll(filepath.Dir(busSocket), 0o755))
	var lc net.ListenConfig
	listener, err := lc.Listen(t.Context(), "unix", busSocket)
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			in, err := listener.Accept()
			if err != nil {
				return
			}
			go relay(in, path)
		}
	}()
	return "stand-in.service"
}

func relay(in net.Conn, path string) {
	defer func() { _ = in.Close() }()
	out, err := net.Dial("unix", path) //nolint:noctx // it ends with the connection
	if err != nil {
		return
	}
	go func() { _, _ = io.Copy(out, in); _ = out.Close() }()
	_, _ = io.Copy(in, out)
}

// buildCheck makes a command that fails unless it runs as nobody.
func buildCheck(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	source := filepath.Join(dir, "main.go")
	require.NoError(t, os.WriteFile(source, []byte("package main\n\nimport \"os\"\n\nfunc main() {\n\tif os.Getuid() != 65534 {\n\t\tos.Exit(1)\n\t}\n}\n"), 0o600))
	bin := filepath.Join(t.TempDir(), "bin", "check")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", bin, source)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := build.CombinedOutput()
	require.NoError(t, err, "%s", out)
	// The folders of a test are its user's alone, and nobody is somebody else.
	for dir := filepath.Dir(bin); strings.HasPrefix(dir, os.TempDir()+"/"); dir = filepath.Dir(dir) {
		require.NoError(t, os.Chmod(dir, 0o755))
	}
	return bin
}

// valuesFile writes the values that a testbed cannot have by default: its folders are not those of a machine.
func valuesFile(t *testing.T, agentConfig map[string]any) string {
	t.Helper()
	text, err := yaml.Marshal(map[string]any{"agent": map[string]any{"config": agentConfig}})
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "values.yaml")
	require.NoError(t, os.WriteFile(path, text, 0o600))
	return path
}
