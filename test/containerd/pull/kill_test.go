package pull_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"headstart.dev/prepull"
	"headstart.dev/prepull/containerd"
	"headstart.dev/test/testenv"
	"headstart.dev/test/testenv/faultproxy"
)

// agent builds headstart-agent.
func agent(t *testing.T) string {
	t.Helper()
	path, err := testenv.BuildCommand(t.Context(), "headstart-agent")
	require.NoError(t, err)
	return path
}

// TestKilledAgentResumes kills `headstart-agent pull` with SIGKILL in mid-pull and runs it again: what had come is not
// fetched again, be it of layers that were finished or not. That what was left is wrong does no harm.
func TestKilledAgentResumes(t *testing.T) {
	binary := agent(t)
	t.Run("with what it left", func(t *testing.T) { killAndResume(t, binary, false) })
	t.Run("with what it left and somebody spoiled", func(t *testing.T) { killAndResume(t, binary, true) })
}

func killAndResume(t *testing.T, binary string, spoil bool) {
	t.Helper()
	reg := testenv.StartRegistry(t, testenv.RegistryConfig{})
	ctd := testenv.StartContainerd(t, testenv.ContainerdConfig{Registry: reg})
	img, ref := push(t, reg, "killed", 6*mib, 6*mib, 6*mib, 24*mib, 3*mib)
	reg.Proxy.ResetCounts()
	slow := reg.Proxy.Inject(faultproxy.Fault{Match: faultproxy.Blobs, BytesPerSecond: 3 * mib})
	first := exec.CommandContext(t.Context(), binary, "pull", "--address", ctd.Address(), ref)
	require.NoError(t, first.Start())
	require.Eventually(t, func() bool { return layerBytes(t, reg, img) > imageBytes(t, img)*7/10 }, time.Minute, 10*time.Millisecond)
	require.NoError(t, first.Process.Kill())
	require.Error(t, first.Wait())
	slow()
	if spoil {
		spoilPartials(t, ctd)
	}

	var stdout, stderr bytes.Buffer
	second := exec.CommandContext(t.Context(), binary, "pull", "--address", ctd.Address(), "--output", "json", ref)
	second.Stdout, second.Stderr = &stdout, &stderr
	require.NoError(t, second.Run(), "%s", stderr.String())
	var report struct {
		Containerd containerd.Discovery  `json:"containerd"`
		Images     []prepull.ImageStatus `json:"images"`
	}
	require.NoError(t, json.Unmarshal(stdout.Bytes(), &report))
	require.Equal(t, "overlayfs", report.Containerd.Snapshotter)
	require.Equal(t, "cri", report.Containerd.SnapshotterFrom)
	require.Len(t, report.Images, 1)
	require.Equal(t, prepull.StateWarm, report.Images[0].State)
	again := layerBytes(t, reg, img) - imageBytes(t, img)
	t.Logf("%d of %d bytes came twice, the largest layer has %d", again, imageBytes(t, img), largestLayer(t, img))
	if !spoil {
		require.LessOrEqual(t, again, int64(2*mib), "what the kernel had of connections that were cut")
		require.Less(t, report.Images[0].FetchedBytes, imageBytes(t, img), "something was used again")
	}
	requireNothingStaged(t, ctd)
	requireUsable(t, ctd, reg, img, ref, report.Images[0].Digest)
}

// spoilPartials flips a byte in the middle of what is left of every layer.
func spoilPartials(t *testing.T, ctd *testenv.Containerd) {
	t.Helper()
	left, err := filepath.Glob(ctd.Root() + "/io.containerd.snapshotter.v1.overlayfs/headstart-staging/partial-*/*")
	require.NoError(t, err)
	require.NotEmpty(t, left)
	for _, path := range left {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		require.NoError(t, err)
		_, err = f.WriteAt([]byte("spoiled"), 1000)
		require.NoError(t, errors.Join(err, f.Close()))
	}
}

// TestPullCommand checks what a user of `headstart-agent pull` sees.
func TestPullCommand(t *testing.T) {
	binary := agent(t)
	reg := testenv.StartRegistry(t, testenv.RegistryConfig{})
	ctd := testenv.StartContainerd(t, testenv.ContainerdConfig{Registry: reg})
	_, ref := push(t, reg, "command", mib)
	for name, tc := range map[string]struct {
		args     []string
		code     int
		out, err string
	}{
		"an image":             {[]string{"--pin", ref}, 0, "command:v1 warm", ""},
		"an unknown image":     {[]string{reg.Image("none:v1"), ref}, 1, "none:v1 failed", "1 of 2 images failed"},
		"no image":             {nil, 2, "", "name at least one image"},
		"a bad name":           {[]string{"UPPER"}, 2, "", `parse image "UPPER"`},
		"a bad output":         {[]string{"--output", "xml", ref}, 2, "", "want text or json"},
		"an unknown flag":      {[]string{"--fast", ref}, 2, "", "--help"},
		"no containerd":        {[]string{"--address", "/nonexistent/containerd.sock", "--timeout", "1s", ref}, 1, "is containerd running?", "not there within 1s"},
		"a bad address":        {[]string{"--address", "containerd.sock", ref}, 2, "", "absolute path"},
		"no such snapshotter":  {[]string{"--snapshotter", "zfs", ref}, 1, "it has native, overlayfs", ""},
		"another snapshotter":  {[]string{"--snapshotter", "native", ref}, 0, "warm", ""},
		"a credentials config": {[]string{"--docker-config", "/nonexistent.json", ref}, 2, "", "/nonexistent.json"},
	} {
		t.Run(name, func(t *testing.T) {
			args := append([]string{"pull", "--address", ctd.Address()}, tc.args...)
			cmd := exec.CommandContext(t.Context(), binary, args...)
			var stdout, stderr bytes.Buffer
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			err := cmd.Run()
			require.Equal(t, tc.code, cmd.ProcessState.ExitCode(), "%v: %s", err, stderr.String())
			require.Contains(t, stdout.String(), tc.out)
			require.Contains(t, stderr.String(), tc.err)
			require.NotContains(t, stderr.String(), "goroutine")
			require.LessOrEqual(t, strings.Count(stderr.String(), "\n"), 4)
		})
	}
}

// TestKubeletPullsTheSame starts the CRI's pull in the middle of ours, and ours in the middle of the CRI's: both end well
// with one tree.
func TestKubeletPullsTheSame(t *testing.T) {
	for name, criFirst := range map[string]bool{"the CRI comes later": false, "the CRI was first": true} {
		t.Run(name, func(t *testing.T) {
			reg := testenv.StartRegistry(t, testenv.RegistryConfig{})
			ctd := testenv.StartContainerd(t, testenv.ContainerdConfig{Registry: reg})
			img, ref := push(t, reg, "shared", 3*mib, 3*mib, 3*mib, 3*mib, 3*mib, 3*mib)
			reg.Proxy.ResetCounts()
			t.Cleanup(reg.Proxy.Inject(faultproxy.Fault{Match: faultproxy.Blobs, BytesPerSecond: 2 * mib}))
			imageService, _ := cri(t, ctd)
			kubelet := make(chan error, 1)
			pullByCRI := func() {
				_, err := imageService.PullImage(t.Context(), &criapi.PullImageRequest{Image: &criapi.ImageSpec{Image: ref}})
				kubelet <- err
			}
			halfway := func() bool { return layerBytes(t, reg, img) > imageBytes(t, img)/6 }
			var status prepull.ImageStatus
			if criFirst {
				go pullByCRI()
				require.Eventually(t, halfway, 30*time.Second, 10*time.Millisecond)
				status = pull(t, newStore(t, ctd, nil), prepull.Image{Ref: ref})
			} else {
				go func() {
					for !halfway() {
						select {
						case <-t.Context().Done():
							return
						case <-time.After(10 * time.Millisecond):
						}
					}
					pullByCRI()
				}()
				status = pull(t, newStore(t, ctd, nil), prepull.Image{Ref: ref})
			}
			require.NoError(t, <-kubelet)
			require.Equal(t, prepull.StateWarm, status.State, status.Error)
			t.Logf("%d bytes came for an image of %d; ours fetched %d", layerBytes(t, reg, img), imageBytes(t, img), status.FetchedBytes)
			require.Less(t, status.FetchedBytes, imageBytes(t, img), "layers that were not begun are left to the kubelet")
			if criFirst {
				require.Less(t, status.FetchedBytes, imageBytes(t, img)/2, "what the kubelet fetches is left to it")
			}
			requireNothingStaged(t, ctd)
			requireUsable(t, ctd, reg, img, ref, status.Digest)
		})
	}
}
