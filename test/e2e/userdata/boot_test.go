package userdata_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/stretchr/testify/require"

	"headstart.dev/deploy/image"
	"headstart.dev/test/testenv"
	"headstart.dev/test/testenv/faultproxy"
	"headstart.dev/test/testenv/images"
)

const agentUnit = "headstart-agent.service"

// agentImage pushes the agent's image of this source and returns its reference by digest.
func agentImage(t *testing.T, reg *testenv.Registry) string {
	t.Helper()
	built, err := image.Build(t.Context(), image.Agent, image.Options{Source: "../../..", Platforms: []string{runtime.GOARCH}, Version: "test"})
	require.NoError(t, err)
	tag, err := name.NewTag(reg.Image("headstart-agent:test"), name.Insecure)
	require.NoError(t, err)
	require.NoError(t, remote.WriteIndex(tag, built.Index, remote.WithContext(t.Context())))
	digest, err := built.Index.Digest()
	require.NoError(t, err)
	return reg.Image("headstart-agent@" + digest.String())
}

// gated is a registry that hands out manifests at once, and blobs when release is closed.
func gated(t *testing.T, reg *testenv.Registry, release <-chan struct{}) string {
	t.Helper()
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: reg.Host()})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if faultproxy.Blobs(r) {
			select {
			case <-release:
			case <-r.Context().Done():
				return
			}
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

func TestAL2023Boot(t *testing.T) {
	testenv.RequireRoot(t)
	reg := testenv.StartRegistry(t, testenv.RegistryConfig{})
	agent := agentImage(t, reg)
	img, err := images.Build(t.Context(), images.Sized("app", 1<<20, 2<<20))
	require.NoError(t, err)
	app, _, err := reg.Push(t.Context(), "app:v1", img)
	require.NoError(t, err)

	// Layers of the app do not move before the kubelet runs: a userData that waits for the pull would never boot.
	release := make(chan struct{})
	slow := gated(t, reg, release)
	app = slow + strings.TrimPrefix(app, reg.Host())

	userData := render(t, fmt.Sprintf(`
agent: {image: %q}
config:
  images: [{image: %q, required: true, pin: true}]
  metrics: {bindAddress: "0"}
  probes: [{name: unit, type: file, path: /etc/hostname}]
`, agent, app))
	root := al2023(t, userData, reg.Host(), slow)
	array := dataDisk(t)
	m := boot(t, root, array+":/mnt/k8s-disks/0", "/dev/kmsg")

	m.waitActive(t, "kubelet.service")
	require.Equal(t, "success", m.show(t, "cloud-final.service", "Result"))
	require.Equal(t, "0", m.run(t, "cat", "/run/copied-to-array"), "nothing lies where nodeadm would copy it to the array")
	t.Logf("nodeadm-run to kubelet active, with the pull held back: %s", m.since(t, "nodeadm-run.service", "kubelet.service"))
	t.Logf("the shell part of userData took %s", m.since(t, "cloud-final.service", "cloud-final.service"))

	m.waitActive(t, agentUnit)
	require.NotContains(t, m.run(t, "ctr", "--namespace=k8s.io", "images", "ls", "-q"), app, "the pull waits, the kubelet runs")
	close(release)
	has := func() bool {
		return strings.Contains(m.run(t, "ctr", "--namespace=k8s.io", "images", "ls", "-q"), app)
	}
	require.Eventually(t, has, bootTimeout, look, "the image is pulled")
	require.DirExists(t, filepath.Join(array, "containerd/io.containerd.content.v1.content"), "onto the array")

	t.Run("a restart of containerd takes the agent along", func(t *testing.T) {
		before := m.show(t, agentUnit, "InvocationID")
		m.run(t, "systemctl", "restart", "containerd.service")
		require.Eventually(t, func() bool {
			return m.show(t, agentUnit, "InvocationID") != before && m.show(t, agentUnit, "ActiveState") == "active"
		}, bootTimeout, look)
		require.True(t, has(), "what was pulled is there")
	})
	t.Run("a hanging agent is started anew", func(t *testing.T) {
		m.run(t, "systemctl", "kill", "--signal=KILL", agentUnit)
		require.Eventually(t, func() bool {
			return m.show(t, agentUnit, "ActiveState") == "active" && m.show(t, agentUnit, "NRestarts") != "0"
		}, bootTimeout, look)
		require.NotEqual(t, "0", m.show(t, agentUnit, "WatchdogUSec"))
	})
	t.Run("run again it changes nothing", func(t *testing.T) {
		installed := m.run(t, "stat", "--format=%i %Y", "/usr/local/bin/headstart-agent")
		m.run(t, "systemctl", "restart", "cloud-final.service", agentUnit)
		m.waitActive(t, agentUnit)
		require.Equal(t, installed, m.run(t, "stat", "--format=%i %Y", "/usr/local/bin/headstart-agent"))
	})
	t.Run("the sandbox holds", func(t *testing.T) {
		out := m.run(t, "systemd-analyze", "security", "--no-pager", agentUnit)
		lines := strings.Split(out, "\n")
		t.Log(lines[len(lines)-1])
		require.NotContains(t, m.run(t, "journalctl", "--no-pager", "--unit="+agentUnit), "Read-only file system")
	})
}

// TestAL2023BootWithoutAgent is what the other is measured against.
func TestAL2023BootWithoutAgent(t *testing.T) {
	testenv.RequireRoot(t)
	reg := testenv.StartRegistry(t, testenv.RegistryConfig{})
	m := boot(t, al2023(t, "", reg.Host()), dataDisk(t)+":/mnt/k8s-disks/0", "/dev/kmsg")
	m.waitActive(t, "kubelet.service")
	t.Logf("nodeadm-run to kubelet active, without userData: %s", m.since(t, "nodeadm-run.service", "kubelet.service"))
}

// TestAL2023BootSurvives has the node boot whatever the userData meets.
func TestAL2023BootSurvives(t *testing.T) {
	testenv.RequireRoot(t)
	reg := testenv.StartRegistry(t, testenv.RegistryConfig{})
	userData := render(t, fmt.Sprintf("agent: {image: %q}", reg.Image("none@sha256:"+strings.Repeat("ab", 32))))
	root := al2023(t, userData, reg.Host())
	// The folder that the script writes to is a file.
	write(t, root, "/etc/headstart", "in the way", 0o644)
	m := boot(t, root, dataDisk(t)+":/mnt/k8s-disks/0", "/dev/kmsg")
	m.waitActive(t, "kubelet.service")
	require.Equal(t, "success", m.show(t, "cloud-final.service", "Result"))
	require.Contains(t, m.run(t, "journalctl", "--no-pager", "--unit=cloud-final.service"), "the node boots without it")

	m.run(t, "rm", "/etc/headstart")
	started := time.Now()
	m.run(t, "systemctl", "restart", "cloud-final.service")
	require.Eventually(t, func() bool {
		state := m.show(t, agentUnit, "ActiveState")
		return state == "activating" && m.show(t, agentUnit, "NRestarts") != "0"
	}, bootTimeout, look, "an image that is not there is tried again, beside the boot")
	t.Logf("second try after %s", time.Since(started))
	require.Equal(t, "active", m.show(t, "kubelet.service", "ActiveState"))
}
