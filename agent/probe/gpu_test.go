package probe_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	podresourcesapi "k8s.io/kubelet/pkg/apis/podresources/v1"

	"headstart.dev/agent/probe"
	"headstart.dev/agent/probe/nvml"
)

// nvmlChild makes the test's own program the child that loads NVML: nvmlChild <report|events> <library>.
const nvmlChild = "nvml-child"

// runNVMLChild is what TestMain does in that program.
func runNVMLChild(args []string) int {
	var err error
	if args[0] == "report" {
		err = json.NewEncoder(os.Stdout).Encode(nvml.Read(args[1]))
	} else {
		err = nvml.Follow(context.Background(), args[1], os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// fakeLibrary compiles testdata/nvml.c as the library of a machine.
func fakeLibrary(t *testing.T, defines ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "libnvidia-ml.so.1")
	args := []string{"-shared", "-fPIC", "-Wl,-soname,libnvidia-ml.so.1", "-o", path}
	for _, define := range defines {
		args = append(args, "-D"+define)
	}
	out, err := exec.CommandContext(t.Context(), "gcc", append(args, "testdata/nvml.c")...).CombinedOutput()
	require.NoError(t, err, "%s", out)
	return path
}

// machine is the sysfs of a machine with GPUs, and the rest of what a GPU probe looks at.
func machine(t *testing.T, gpus, switches int, library string) *probe.GPU {
	t.Helper()
	if !nvml.Supported {
		t.Skip("built without cgo")
	}
	root := socketDir(t)
	add := func(i int, vendor, class string) {
		dir := filepath.Join(root, "sys/bus/pci/devices", fmt.Sprintf("0000:%02x:00.0", i))
		require.NoError(t, os.MkdirAll(dir, 0o755))
		for name, value := range map[string]string{"vendor": vendor, "device": "0x20b0", "class": class} {
			require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(value+"\n"), 0o600))
		}
	}
	for i := range gpus {
		add(i, "0x10de", "0x030200")
	}
	for i := range switches {
		add(64+i, "0x10de", "0x068000")
	}
	drivenBy(t, root, 1)
	add(200, "0x8086", "0x030000")
	add(201, "0x10de", "0x040300") // the audio function of a graphics card
	self, err := os.Executable()
	require.NoError(t, err)
	return &probe.GPU{
		KubeletDir: root, SysDir: filepath.Join(root, "sys"), ValidationsDir: filepath.Join(root, "validations"), Units: units{},
		ReadCommand: []string{self, nvmlChild, "report", library}, FollowCommand: []string{self, nvmlChild, "events", library},
	}
}

// drivenBy says how many others use the machine's driver.
func drivenBy(t *testing.T, root string, users int) {
	t.Helper()
	dir := filepath.Join(root, "sys/module/nvidia")
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "holders/nvidia_uvm"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "refcnt"), fmt.Appendf(nil, "%d\n", users+1), 0o600))
}

// units are the states of systemd units by name.
type units map[string]string

func (u units) State(_ context.Context, unit string) (load, active string, err error) {
	if active, ok := u[unit]; ok {
		return "loaded", active, nil
	}
	return "not-found", "inactive", nil
}

func (u units) Watch(ctx context.Context, _ string, _ func()) error {
	<-ctx.Done()
	return nil
}

const childTime = 10 * time.Second

func TestGPUThroughTheRealLibraryLoader(t *testing.T) {
	for name, tc := range map[string]struct {
		defines []string
		absent  bool
		reason  string
		message string
	}{
		"two devices that work":         {reason: probe.ReasonReady, message: "2 GPUs work, driver 570.00"},
		"no library":                    {absent: true, reason: probe.ReasonDriverNotInstalled, message: "install the NVIDIA driver"},
		"the driver is not loaded":      {defines: []string{"INIT=9"}, reason: probe.ReasonDriverNotLoaded},
		"the driver fails":              {defines: []string{"INIT=999"}, reason: probe.ReasonDriverFailed, message: "code 999"},
		"fewer devices than the bus":    {defines: []string{"DEVICES=1"}, reason: probe.ReasonDevicesMissing, message: "1 of 2"},
		"a crash":                       {defines: []string{"CRASH"}, reason: probe.ReasonDriverFailed, message: "crashed"},
		"an uncorrected memory error":   {defines: []string{"ECC=3"}, reason: probe.ReasonDeviceUnhealthy, message: "3 uncorrected"},
		"a row that waits for a reset":  {defines: []string{"REMAP_PENDING=1"}, reason: probe.ReasonResetRequired, message: "reset the device"},
		"a row that has no replacement": {defines: []string{"REMAP_FAILED=1"}, reason: probe.ReasonDeviceUnhealthy, message: "replace the device"},
		"a MIG mode that is to change":  {defines: []string{"MIG_PENDING=1"}, reason: probe.ReasonResetRequired, message: "MIG"},
		"a device that fell off":        {defines: []string{"HANDLE=15"}, reason: probe.ReasonDeviceUnhealthy, message: "code 15"},
	} {
		t.Run(name, func(t *testing.T) {
			library := "/nonexistent/libnvidia-ml.so.1"
			if !tc.absent {
				library = fakeLibrary(t, tc.defines...)
			}
			result := look(t, machine(t, 2, 0, library), childTime)
			require.Equal(t, tc.reason, result.Reason, result.Message)
			require.Contains(t, result.Message, tc.message)
		})
	}
}

func TestGPUDriverThatHangsIsLeftAtTheDeadline(t *testing.T) {
	gpu := machine(t, 1, 0, fakeLibrary(t, "HANG"))
	for range 3 {
		require.Equal(t, probe.ReasonDriverHangs, look(t, gpu, shortLook).Reason)
	}
	require.Eventually(t, func() bool { return !runs(t, gpu.ReadCommand[3]) }, childTime, 10*time.Millisecond, "no child is left")
}

// runs says whether a process has an argument.
func runs(t *testing.T, argument string) bool {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	require.NoError(t, err)
	for _, file := range files {
		if raw, err := os.ReadFile(file); err == nil && strings.Contains(string(raw), argument+"\x00") {
			return true
		}
	}
	return false
}

func TestGPUWithoutDevicesOnTheBus(t *testing.T) {
	gpu := machine(t, 0, 0, "/nonexistent")
	result := look(t, gpu, childTime)
	require.Equal(t, probe.ReasonNoDevices, result.Reason)
	require.Equal(t, probe.NotApplicable, result.Status)
	gpu.MinDevices = 1
	require.Equal(t, probe.ReasonDriverNotInstalled, look(t, gpu, childTime).Reason)
}

func TestGPUFabricManagerCountsWhereThereAreSwitches(t *testing.T) {
	library := fakeLibrary(t)
	stopped := units{probe.FabricManagerUnit: "activating"}
	without := machine(t, 2, 0, library)
	without.Units = stopped
	require.Equal(t, probe.True, look(t, without, childTime).Status)

	with := machine(t, 2, 6, library)
	with.Units = stopped
	require.Equal(t, probe.ReasonFabricNotReady, look(t, with, childTime).Reason)
	with.Units = units{probe.FabricManagerUnit: "active"}
	require.Equal(t, probe.True, look(t, with, childTime).Status)
	with.Units = units{}
	require.Equal(t, probe.True, look(t, with, childTime).Status, "it runs in a container")
}

func TestGPUOperatorsValidationsAreLatched(t *testing.T) {
	gpu := machine(t, 2, 0, fakeLibrary(t))
	require.NoError(t, os.MkdirAll(gpu.ValidationsDir, 0o755))
	for _, name := range []string{"driver-ready", "toolkit-ready", "cuda-ready"} {
		result := look(t, gpu, childTime)
		require.Equal(t, probe.ReasonOperatorNotReady, result.Reason)
		require.Contains(t, result.Message, name)
		require.NoError(t, os.WriteFile(filepath.Join(gpu.ValidationsDir, name), nil, 0o600))
	}
	require.Equal(t, probe.True, look(t, gpu, childTime).Status, "plugin-ready is never there without the operator's device plugin")
	require.NoError(t, os.Remove(filepath.Join(gpu.ValidationsDir, "cuda-ready")))
	require.Equal(t, probe.True, look(t, gpu, childTime).Status, "the validator runs again")
}

type allocatable struct {
	podresourcesapi.UnimplementedPodResourcesListerServer
	resource string
}

func (a *allocatable) GetAllocatableResources(context.Context, *podresourcesapi.AllocatableResourcesRequest) (*podresourcesapi.AllocatableResourcesResponse, error) {
	return &podresourcesapi.AllocatableResourcesResponse{
		Devices: []*podresourcesapi.ContainerDevices{{ResourceName: a.resource, DeviceIds: []string{"a", "b"}}},
	}, nil
}

func TestGPUDevicePlugin(t *testing.T) {
	gpu := machine(t, 2, 0, fakeLibrary(t))
	gpu.DevicePlugin = true
	require.Equal(t, probe.ReasonDevicePluginNotReady, look(t, gpu, childTime).Reason, "no kubelet")

	kubelet := &allocatable{resource: "example.com/fpga"}
	listener := listen(t, "unix", filepath.Join(gpu.KubeletDir, "pod-resources/kubelet.sock"))
	serve(t, listener, func(s *grpc.Server) { podresourcesapi.RegisterPodResourcesListerServer(s, kubelet) })
	require.Equal(t, probe.ReasonDevicePluginNotReady, look(t, gpu, childTime).Reason, "no device of NVIDIA's")
	kubelet.resource = "nvidia.com/gpu"
	require.Equal(t, probe.True, look(t, gpu, childTime).Status)
}

func TestGPUFaultsOfTheDeviceCountAndThoseOfApplicationsDoNot(t *testing.T) {
	for name, tc := range map[string]struct {
		xid    string
		reason string
	}{
		"XID 79, the GPU fell off the bus":  {"79", probe.ReasonDeviceUnhealthy},
		"XID 31, a fault of an application": {"31", probe.ReasonReady},
	} {
		t.Run(name, func(t *testing.T) {
			gpu := machine(t, 2, 0, fakeLibrary(t, "XID="+tc.xid))
			settings := eventsOnly
			settings.Timeout = childTime
			results := start(t, gpu, settings)
			result := next(t, results)
			if tc.reason == probe.ReasonReady {
				require.Equal(t, probe.True, result.Status)
				select {
				case result := <-results:
					t.Fatalf("an application's fault is the device's: %v", result)
				case <-time.After(time.Second): // the library sends it after 300ms
				}
				return
			}
			if result.Status == probe.True { // on a busy machine the fault may come before the first look has ended
				result = next(t, results)
			}
			require.Equal(t, tc.reason, result.Reason)
			require.Contains(t, result.Message, "XID 79")
		})
	}
}

func TestGPUAnIgnoredFaultDoesNotCount(t *testing.T) {
	gpu := machine(t, 2, 0, fakeLibrary(t, "XID=79"))
	gpu.IgnoreXIDs = []uint64{79}
	settings := eventsOnly
	settings.Timeout = childTime
	results := start(t, gpu, settings)
	require.Equal(t, probe.True, next(t, results).Status)
	require.Eventually(t, func() bool { return runs(t, gpu.FollowCommand[3]) }, childTime, 10*time.Millisecond)
	select {
	case result := <-results:
		t.Fatalf("an ignored fault counts: %v", result)
	case <-time.After(time.Second): // the library sends it after 300ms
	}
}

// A driver that is in use cannot be unloaded, nor a GPU reset.
func TestGPUTheDriverIsLetGoWhenAllOthersHave(t *testing.T) {
	gpu := machine(t, 2, 0, fakeLibrary(t))
	follows := func() bool { return runs(t, gpu.FollowCommand[3]) }
	settings := eventsOnly
	settings.Timeout = childTime
	results := start(t, gpu, settings)
	require.Equal(t, probe.True, next(t, results).Status)
	require.Eventually(t, follows, childTime, 10*time.Millisecond, "others use the driver")
	drivenBy(t, gpu.KubeletDir, 0)
	require.Eventually(t, func() bool { return !follows() }, childTime, 10*time.Millisecond, "an upgrade has taken the others off the node")
}

func TestGPUADriverThatNobodyUsesIsNotHeld(t *testing.T) {
	gpu := machine(t, 2, 0, fakeLibrary(t, "XID=79"))
	drivenBy(t, gpu.KubeletDir, 0)
	settings := eventsOnly
	settings.Timeout = childTime
	results := start(t, gpu, settings)
	require.Equal(t, probe.True, next(t, results).Status)
	select {
	case result := <-results:
		t.Fatalf("the driver's events are followed: %v", result)
	case <-time.After(time.Second):
	}
	// One that reads, which has the same argument, may be at work; one that follows would stay.
	require.Eventually(t, func() bool { return !runs(t, gpu.FollowCommand[3]) }, childTime, 10*time.Millisecond, "no child is left")
}

func FuzzAllocatableResources(f *testing.F) {
	answer := &podresourcesapi.AllocatableResourcesResponse{Devices: []*podresourcesapi.ContainerDevices{{ResourceName: "nvidia.com/gpu", DeviceIds: []string{"a", "b"}}}}
	raw, err := proto.Marshal(answer)
	require.NoError(f, err)
	f.Add(raw)
	f.Fuzz(func(t *testing.T, raw []byte) {
		var answer podresourcesapi.AllocatableResourcesResponse
		if proto.Unmarshal(raw, &answer) == nil {
			require.GreaterOrEqual(t, probe.CountAllocatable(&answer, "nvidia.com/"), 0)
		}
	})
}
