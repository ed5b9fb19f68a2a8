package testenv_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"headstart.dev/test/testenv"
)

// victimKey, in the environment, makes the test binary start a testbed and wait to be killed.
const victimKey = "HEADSTART_TESTENV_VICTIM"

func TestMain(m *testing.M) {
	if os.Getenv(victimKey) == "" {
		goleak.VerifyTestMain(m)
		return
	}
	if err := victim(os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// victim starts a network and a containerd with a pod in it, says which folder is whose, and waits for the end.
func victim(out io.Writer) error {
	ctx := context.Background()
	network, err := testenv.NewNetwork()
	if err != nil {
		return err
	}
	host, err := network.NewHost(ctx)
	if err != nil {
		return err
	}
	ctd, err := testenv.NewContainerd(ctx, testenv.ContainerdConfig{Host: host})
	if err != nil {
		return err
	}
	conn, err := ctd.CRI()
	if err != nil {
		return err
	}
	_, err = runtimeapi.NewRuntimeServiceClient(conn).RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: hostPod(ctd.Root())})
	if err != nil {
		return err
	}
	networkID, _, _ := strings.Cut(strings.TrimPrefix(host.Namespace(), "headstart-"), "-")
	fmt.Fprintln(out, filepath.Dir(ctd.ConfigPath()), filepath.Join(os.TempDir(), "headstart-testenv-"+networkID))
	select {}
}

// hostPod is a pod in the network of its containerd.
func hostPod(logDir string) *runtimeapi.PodSandboxConfig {
	return &runtimeapi.PodSandboxConfig{
		Metadata: &runtimeapi.PodSandboxMetadata{Name: "p", Namespace: "default", Uid: "1"}, LogDirectory: logDir,
		Linux: &runtimeapi.LinuxPodSandboxConfig{SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{
			NamespaceOptions: &runtimeapi.NamespaceOption{Network: runtimeapi.NamespaceMode_NODE},
		}},
	}
}

func TestAStartRemovesWhatAKilledRunLeft(t *testing.T) {
	if testing.Short() {
		t.Skip("starts servers")
	}
	testenv.RequireRoot(t)
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(os.Environ(), victimKey+"=1")
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	line, err := bufio.NewReader(stdout).ReadString('\n')
	require.NoError(t, err)
	dirs := strings.Fields(line)
	require.Len(t, dirs, 2)
	require.NoError(t, cmd.Process.Kill())
	require.Error(t, cmd.Wait())

	id := strings.TrimPrefix(filepath.Base(dirs[0]), "headstart-testenv-")
	require.NotEmpty(t, marked(t, id), "the shim outlives its containerd: that is what is to be removed")
	require.NotEmpty(t, mountsBelow(t, dirs[0]))
	testenv.StartNetwork(t)
	leavesNothing(t, dirs...)
}
