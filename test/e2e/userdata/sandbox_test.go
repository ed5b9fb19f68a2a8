package userdata_test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"headstart.dev/test/testenv"
)

// standIns are of a user who is not root, in a folder that only that user may enter.
const (
	standIns = "/opt/stand-ins"
	somebody = 1000
)

// awkward pushes an image of what a sandbox may refuse to make: a setuid file of another owner, a device, a capability.
func awkward(t *testing.T, reg *testenv.Registry) string {
	t.Helper()
	var text bytes.Buffer
	w := tar.NewWriter(&text)
	for _, header := range []tar.Header{
		{Name: "bin/su", Typeflag: tar.TypeReg, Mode: 0o4755, Uid: somebody, Gid: somebody},
		{Name: "bin/ping", Typeflag: tar.TypeReg, Mode: 0o755, PAXRecords: map[string]string{
			// cap_net_raw+ep, as the kernel stores it (version 2).
			"SCHILY.xattr.security.capability": "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
		}},
		{Name: "dev/null", Typeflag: tar.TypeChar, Mode: 0o666, Devmajor: 1, Devminor: 3},
		{Name: "secret", Typeflag: tar.TypeDir, Mode: 0o700, Uid: somebody, Gid: somebody},
	} {
		require.NoError(t, w.WriteHeader(&header))
	}
	require.NoError(t, w.Close())
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(text.Bytes())), nil })
	require.NoError(t, err)
	config, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{Architecture: runtime.GOARCH, OS: "linux"})
	require.NoError(t, err)
	img, err := mutate.AppendLayers(config, layer)
	require.NoError(t, err)
	tag, err := name.NewTag(reg.Image("awkward:v1"), name.Insecure)
	require.NoError(t, err)
	require.NoError(t, remote.Write(tag, img, remote.WithContext(t.Context())))
	return tag.String()
}

// serveIn plays the other ends of probes inside of a root, and returns the probes.
func serveIn(t *testing.T, root string) string {
	t.Helper()
	dir := filepath.Join(root, standIns)
	require.NoError(t, os.MkdirAll(dir, 0o755))
	server := grpc.NewServer()
	healthpb.RegisterHealthServer(server, health.NewServer())
	var lc net.ListenConfig
	socket := filepath.Join(dir, "s.sock")
	listener, err := lc.Listen(t.Context(), "unix", socket)
	require.NoError(t, err)
	port, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	for _, l := range []net.Listener{listener, port} {
		go func() { _ = server.Serve(l) }()
	}
	t.Cleanup(server.Stop)
	write(t, root, standIns+"/ready", "", 0o600)
	// A command runs as nobody, whatever the agent is.
	write(t, root, "/opt/check", "#!/bin/sh\n[ \"$(id -u)\" = 65534 ]\n", 0o755)
	for _, path := range []string{socket, filepath.Join(dir, "ready"), dir} {
		require.NoError(t, os.Chown(path, somebody, somebody))
		require.NoError(t, os.Chmod(path, 0o700))
	}
	return fmt.Sprintf(`
  - {name: file, type: file, path: %[1]s/ready}
  - {name: temporary, type: file, path: /tmp/ready}
  - {name: home, type: file, path: /root/ready}
  - {name: socket, type: unix, path: %[1]s/s.sock}
  - {name: health, type: grpc, address: "unix://%[1]s/s.sock"}
  - {name: port, type: tcp, address: %[2]q}
  - {name: unit, type: systemd, unit: kubelet.service}
  - {name: command, type: exec, command: [/opt/check], allowExec: true}
`, standIns, port.Addr())
}

// TestTheUnitWorksInItsSandbox runs the agent as its unit confines it, with every kind of thing that the sandbox may stand in the
// way of, and checks that the sandbox is there.
func TestTheUnitWorksInItsSandbox(t *testing.T) {
	testenv.RequireRoot(t)
	reg := testenv.StartRegistry(t, testenv.RegistryConfig{})
	agent, app := agentImage(t, reg), awkward(t, reg)
	root := overlay(t, debian(t))
	userData := render(t, fmt.Sprintf(`
agent: {image: %q}
proxy: {httpsProxy: "http://user:password@proxy.invalid:3128", noProxy: "127.0.0.1,10.0.0.0/8"}
config:
  images: [{image: %q, required: true}]
  metrics: {bindAddress: "0"}
  probes: %s`, agent, app, serveIn(t, root)))
	m := boot(t, al2023In(t, root, userData, reg.Host()), dataDisk(t)+":/mnt/k8s-disks/0", "/dev/kmsg")
	m.run(t, "touch", "/tmp/ready", "/root/ready")
	m.waitActive(t, agentUnit)

	journal := func() string { return m.run(t, "journalctl", "--no-pager", "--output=cat", "--unit="+agentUnit) }
	for _, probe := range []string{"file", "temporary", "home", "socket", "health", "port", "unit", "command"} {
		require.Eventually(t, func() bool {
			return strings.Contains(journal(), fmt.Sprintf(`"msg":"probe changed","probe":%q,"status":"True"`, probe))
		}, bootTimeout, look, "probe %s", probe)
	}
	require.Eventually(t, func() bool { return strings.Contains(journal(), `"msg":"image is there"`) }, bootTimeout, look)
	require.Contains(t, journal(), `"engine":"direct"`, "layers are written by the agent, not by containerd")
	require.Contains(t, m.run(t, "sh", "-c", "ls -l /var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots/*/fs/bin/su"), "-rwsr-xr-x 1 1000 1000")
	requireConfined(t, m)
}

// requireConfined looks at the agent's process as the kernel has it, not at what the unit says.
func requireConfined(t *testing.T, m *machine) {
	t.Helper()
	pid := m.show(t, agentUnit, "MainPID")
	status := map[string]string{}
	for line := range strings.Lines(m.run(t, "cat", "/proc/"+pid+"/status")) {
		key, value, _ := strings.Cut(line, ":")
		status[key] = strings.TrimSpace(value)
	}
	environment := m.run(t, "cat", "/proc/"+pid+"/environ")
	require.Contains(t, environment, "HTTPS_PROXY=http://user:password@proxy.invalid:3128\x00")
	require.Contains(t, environment, "NO_PROXY=127.0.0.1,10.0.0.0/8\x00")
	require.Equal(t, "1", status["NoNewPrivs"])
	require.Equal(t, "2", status["Seccomp"], "system calls are filtered")
	// CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, FSETID, KILL, SETGID, SETUID, SYS_ADMIN, MKNOD, SETFCAP.
	require.Equal(t, "00000000882000ff", status["CapBnd"])
	for _, path := range []string{"/etc/x", "/usr/x", "/root/x", "/proc/sys/kernel/hostname", "/sys/fs/cgroup/x"} {
		out := m.run(t, "nsenter", "--target="+pid, "--mount", "sh", "-c", "(echo x >"+path+") 2>&1 || true")
		require.Contains(t, out, "Read-only file system", path)
	}
	m.run(t, "nsenter", "--target="+pid, "--mount", "touch", "/var/lib/containerd/x")
}
