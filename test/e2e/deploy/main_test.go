// Package deploy_test installs the chart, from our own images, on a real node: control plane, scheduler, controller
// manager, registry, containerd and kubelet; then it upgrades and uninstalls it.
package deploy_test

import (
	"context"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"k8s.io/client-go/rest"

	"headstart.dev/deploy/image"
	"headstart.dev/test/testenv"
)

const (
	root      = "../../.."
	namespace = "headstart-system"
	// serviceIP is the Service "kubernetes" of the testbed's control plane. No kube-proxy runs: the test plays its part.
	serviceIP = "10.96.0.1"
	// patience covers what takes seconds on an idle machine.
	patience = 90 * time.Second
	look     = 100 * time.Millisecond
)

// serveServiceIP makes the API server's Service address lead to it, from this machine and from its pods, as kube-proxy does.
func serveServiceIP(t *testing.T, config *rest.Config) {
	t.Helper()
	lo, err := netlink.LinkByName("lo")
	require.NoError(t, err)
	addr, err := netlink.ParseAddr(serviceIP + "/32")
	require.NoError(t, err)
	if err := netlink.AddrAdd(lo, addr); err == nil {
		t.Cleanup(func() { _ = netlink.AddrDel(lo, addr) })
	}
	var listener net.Listener
	require.Eventually(t, func() bool {
		var lc net.ListenConfig
		listener, err = lc.Listen(t.Context(), "tcp", serviceIP+":443")
		return err == nil
	}, patience, look, "another test has the address")
	backend := strings.TrimPrefix(config.Host, "https://")
	go func() {
		for {
			in, err := listener.Accept()
			if err != nil {
				return
			}
			go pipe(in, backend)
		}
	}()
	t.Cleanup(func() { _ = listener.Close() })
}

func pipe(in net.Conn, backend string) {
	defer func() { _ = in.Close() }()
	dialer := net.Dialer{Timeout: 5 * time.Second}
	out, err := dialer.DialContext(context.Background(), "tcp", backend)
	if err != nil {
		return
	}
	defer func() { _ = out.Close() }()
	go func() { _, _ = io.Copy(out, in) }()
	_, _ = io.Copy(in, out)
}

// publish pushes our image and returns repository and digest.
func publish(t *testing.T, reg *testenv.Registry, spec image.Spec) (repository, digest string) {
	t.Helper()
	built, err := image.Build(t.Context(), spec, image.Options{Source: root, Platforms: []string{runtime.GOARCH}, Version: "test"})
	require.NoError(t, err)
	repository = reg.Image(spec.Command)
	tag, err := name.NewTag(repository+":test", name.Insecure)
	require.NoError(t, err)
	require.NoError(t, remote.WriteIndex(tag, built.Index, remote.WithContext(t.Context())))
	hash, err := built.Index.Digest()
	require.NoError(t, err)
	return repository, hash.String()
}

// helm runs Helm from its module.
type helm struct{ bin, kubeconfig string }

func newHelm(t *testing.T, kubeconfig string) helm {
	t.Helper()
	dir, err := testenv.DeployTools(t.Context(), os.Stderr)
	require.NoError(t, err)
	return helm{bin: filepath.Join(dir, "helm"), kubeconfig: kubeconfig}
}

func (h helm) run(t *testing.T, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), h.bin, append(args, "--namespace", namespace, "--kubeconfig", h.kubeconfig)...)
	cmd.Env = append(os.Environ(), "HELM_CACHE_HOME="+t.TempDir(), "HELM_DATA_HOME="+t.TempDir(), "HELM_CONFIG_HOME="+t.TempDir())
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
}
