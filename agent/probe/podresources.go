package probe

import (
	"context"
	"path/filepath"
	"strings"

	podresourcesapi "k8s.io/kubelet/pkg/apis/podresources/v1"
)

// maxNamedDevices keeps a kubelet's answer from being read without end.
const maxNamedDevices = 1 << 16

// checkAllocatable asks the kubelet what it has to hand out, because that is what pods get.
func checkAllocatable(ctx context.Context, kubeletDir, prefix string) Result {
	address := "unix://" + filepath.Join(kubeletDir, "pod-resources", "kubelet.sock")
	conn, err := dialGRPC(ctx, address)
	if err != nil {
		return notReady(ReasonDevicePluginNotReady, "the kubelet cannot be asked yet: %s", dialFailure(address, err).Message)
	}
	defer func() { _ = conn.Close() }()
	answer, err := podresourcesapi.NewPodResourcesListerClient(conn).GetAllocatableResources(ctx, &podresourcesapi.AllocatableResourcesRequest{})
	if err != nil {
		return grpcFailure(address, err)
	}
	if CountAllocatable(answer, prefix) == 0 {
		return notReady(ReasonDevicePluginNotReady, "the kubelet has no %s devices to hand out: the device plugin is not ready; "+
			"set devicePlugin: false where a DRA driver hands them out", prefix)
	}
	return ready("")
}

// CountAllocatable counts the devices whose resource name has a prefix. With MIG or time-slicing there are more than GPUs.
func CountAllocatable(answer *podresourcesapi.AllocatableResourcesResponse, prefix string) int {
	count := 0
	for _, devices := range answer.GetDevices() {
		if strings.HasPrefix(devices.GetResourceName(), prefix) {
			count += len(devices.GetDeviceIds())
		}
		if count >= maxNamedDevices {
			break
		}
	}
	return count
}
