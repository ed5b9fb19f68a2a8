package probe_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	podresourcesapi "k8s.io/kubelet/pkg/apis/podresources/v1"

	"headstart.dev/agent/probe"
)

func TestNeuron(t *testing.T) {
	root := socketDir(t)
	neuron := &probe.Neuron{DevicePlugin: true, KubeletDir: root, SysDir: filepath.Join(root, "sys")}
	write := func(path, content string) {
		t.Helper()
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(root, path)), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(root, path), []byte(content+"\n"), 0o600))
	}
	require.Equal(t, probe.NotApplicable, look(t, neuron, childTime).Status)
	for i, device := range []string{"0x7364", "0x7364", "0xefa2"} { // two of Trainium2, and an EFA
		dir := filepath.Join("sys/bus/pci/devices", string(rune('a'+i)))
		write(filepath.Join(dir, "vendor"), "0x1d0f")
		write(filepath.Join(dir, "device"), device)
		write(filepath.Join(dir, "class"), "0x088000")
	}
	require.Equal(t, probe.ReasonDriverNotLoaded, look(t, neuron, childTime).Reason)
	write("sys/module/neuron/version", "2.24")
	write("sys/class/neuron_device/neuron0", "")
	write("sys/class/neuron_device/neuron_core", "")
	result := look(t, neuron, childTime)
	require.Equal(t, probe.ReasonDevicesMissing, result.Reason)
	require.Contains(t, result.Message, "1 of 2")
	write("sys/class/neuron_device/neuron1", "")
	require.Equal(t, probe.ReasonDevicePluginNotReady, look(t, neuron, childTime).Reason)
	kubelet := &allocatable{resource: "aws.amazon.com/neuroncore"}
	serve(t, listen(t, "unix", filepath.Join(root, "pod-resources/kubelet.sock")), func(s *grpc.Server) {
		podresourcesapi.RegisterPodResourcesListerServer(s, kubelet)
	})
	require.Equal(t, probe.True, look(t, neuron, childTime).Status)
}
