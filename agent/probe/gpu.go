package probe

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"headstart.dev/agent/probe/nvml"
)

// Reasons of the GPU probe.
const (
	ReasonNoDevices            = "NoDevices"
	ReasonNoNVML               = "NVMLNotInThisBuild"
	ReasonDriverNotInstalled   = "DriverNotInstalled"
	ReasonDriverNotLoaded      = "DriverNotLoaded"
	ReasonDriverFailed         = "DriverFailed"
	ReasonDriverHangs          = "DriverHangs"
	ReasonDeviceUnhealthy      = "DeviceUnhealthy"
	ReasonResetRequired        = "ResetRequired"
	ReasonFabricNotReady       = "FabricManagerNotReady"
	ReasonOperatorNotReady     = "GPUOperatorNotReady"
	ReasonDevicePluginNotReady = "DevicePluginNotReady"
)

// FabricManagerUnit must be up before CUDA works on a machine with NVSwitches.
const FabricManagerUnit = "nvidia-fabricmanager.service"

// GPU is ready when the driver has every GPU that the PCI bus shows, none of them is known to be sick, the fabric and
// NVIDIA's operator, where they are used, are done, and the kubelet has devices to hand out.
type GPU struct {
	// MinDevices must work; 0 means as many as the PCI bus shows.
	MinDevices int
	// DevicePlugin says that a device plugin hands the GPUs to the kubelet; false where a DRA driver does.
	DevicePlugin bool
	// KubeletDir is the kubelet's root folder.
	KubeletDir string
	// SysDir is /sys; ValidationsDir is where NVIDIA's operator writes what it has validated.
	SysDir, ValidationsDir string
	// Units knows the fabric manager.
	Units Units
	// IgnoreXIDs are faults that say nothing of the device, besides those of applications.
	IgnoreXIDs []uint64
	// ReadCommand prints an nvml.Report, FollowCommand an nvml.Event a line until it is killed; both are run as children.
	ReadCommand, FollowCommand []string

	reader  child
	mu      sync.Mutex
	faults  map[string]uint64 // XID by UUID
	latched bool
}

// Check looks from the cheapest to the dearest, so that a machine that is still booting costs no child process.
func (p *GPU) Check(ctx context.Context) Result {
	want := p.MinDevices
	if want == 0 {
		var err error
		if want, err = countPCI(p.SysDir, nvidiaVendor, isDisplay); err != nil {
			return notReady(ReasonInvalid, "count GPUs on the PCI bus: %v", err)
		}
		if want == 0 {
			return notApplicable(ReasonNoDevices, "the PCI bus shows no NVIDIA GPU")
		}
	}
	if result := p.checkOperator(); result.Status != True {
		return result
	}
	if result := p.checkFabric(ctx); result.Status != True {
		return result
	}
	report, result := p.readDriver(ctx)
	if result.Status != True {
		return result
	}
	if result := p.checkReport(report, want); result.Status != True {
		return result
	}
	if p.DevicePlugin {
		if result := checkAllocatable(ctx, p.KubeletDir, "nvidia.com/"); result.Status != True {
			return result
		}
	}
	return ready("%d GPUs work, driver %s", len(report.Devices), report.DriverVersion)
}

// nvidiaVendor is NVIDIA on the PCI bus; display controllers have class 0300 (VGA) or 0302 (3D), NVSwitches 0680 (bridge).
const nvidiaVendor = "0x10de"

func isDisplay(_, class string) bool {
	return strings.HasPrefix(class, "0x0300") || strings.HasPrefix(class, "0x0302")
}

func isSwitch(_, class string) bool { return strings.HasPrefix(class, "0x0680") }

// validations are the files of NVIDIA's operator that a node must have. Each is removed while its validator runs again.
// plugin-ready is none of them: the operator's device plugin may be off, for the cluster (devicePlugin.enabled) or for a
// node (a label), because a DRA driver or another plugin hands the GPUs out. The kubelet is asked for that.
// Source: NVIDIA/gpu-operator cmd/nvidia-validator/main.go, controllers/object_controls.go TransformValidatorComponent.
var validations = []string{"driver-ready", "toolkit-ready", "cuda-ready"}

// checkOperator counts only where the operator is at work. Once it was done it stays so: its validators remove their
// files whenever they start again.
func (p *GPU) checkOperator() Result {
	if _, err := os.Stat(p.ValidationsDir); err != nil || p.latch(false) {
		return ready("")
	}
	for _, name := range validations {
		if _, err := os.Stat(filepath.Join(p.ValidationsDir, name)); err != nil {
			return notReady(ReasonOperatorNotReady, "the GPU operator has not written %s yet", filepath.Join(p.ValidationsDir, name))
		}
	}
	p.latch(true)
	return ready("")
}

func (p *GPU) latch(set bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.latched = p.latched || set
	return p.latched
}

// checkFabric counts only where there are NVSwitches and the host has a fabric manager of its own: the operator runs one
// in a container, and its validation covers that.
func (p *GPU) checkFabric(ctx context.Context) Result {
	if switches, err := countPCI(p.SysDir, nvidiaVendor, isSwitch); err != nil || switches == 0 {
		return ready("")
	}
	load, active, err := p.Units.State(ctx, FabricManagerUnit)
	if err != nil || load != "loaded" || active == "active" {
		return ready("")
	}
	return notReady(ReasonFabricNotReady, "%s is %s", FabricManagerUnit, active)
}

// maxReportBytes bounds what is read of a child: some 200 bytes a device.
const maxReportBytes = 1 << 20

// readDriver runs the child.
func (p *GPU) readDriver(ctx context.Context) (nvml.Report, Result) {
	output, stderr := &cappedBuffer{max: maxReportBytes}, &cappedBuffer{max: maxOutputBytes}
	command := isolated(ctx, p.ReadCommand)
	command.Stdout, command.Stderr = output, stderr
	err := p.reader.run(ctx, command)
	switch {
	case errors.Is(err, errHangs):
		return nvml.Report{}, notReady(ReasonDriverHangs, "the NVIDIA driver hangs in the kernel: reboot the node")
	case ctx.Err() != nil:
		return nvml.Report{}, notReady(ReasonDriverHangs, "the NVIDIA driver did not answer in time")
	case err != nil:
		return nvml.Report{}, notReady(ReasonDriverFailed, "reading the NVIDIA driver crashed: %v: %s", err, stderr)
	}
	report, err := nvml.Parse(output.kept)
	if err != nil {
		return nvml.Report{}, notReady(ReasonDriverFailed, "%v", err)
	}
	switch report.Outcome {
	case nvml.OutcomeOK:
		return report, ready("")
	case nvml.OutcomeUnsupported:
		return report, notReady(ReasonNoNVML, "%s", report.Error)
	case nvml.OutcomeLibraryNotFound:
		return report, notReady(ReasonDriverNotInstalled, "libnvidia-ml.so.1 is not there: install the NVIDIA driver, or mount it into the agent's container")
	case nvml.OutcomeDriverNotLoaded:
		return report, notReady(ReasonDriverNotLoaded, "the NVIDIA kernel module is not loaded yet")
	default:
		return report, notReady(ReasonDriverFailed, "the NVIDIA driver failed: %s", report.Error)
	}
}

// checkReport judges what the driver says, and what it has said before.
func (p *GPU) checkReport(report nvml.Report, want int) Result {
	if len(report.Devices) < want {
		return notReady(ReasonDevicesMissing, "the driver has %d of %d GPUs", len(report.Devices), want)
	}
	for _, device := range report.Devices {
		name := fmt.Sprintf("GPU %d (%s)", device.Index, device.UUID)
		switch {
		case device.Error != "":
			return notReady(ReasonDeviceUnhealthy, "%s: %s", name, device.Error)
		case device.UncorrectedECC > 0:
			return notReady(ReasonDeviceUnhealthy, "%s: %d uncorrected memory errors since the driver was loaded", name, device.UncorrectedECC)
		case device.RemapFailed:
			return notReady(ReasonDeviceUnhealthy, "%s: a memory row could not be remapped: replace the device", name)
		case device.RemapPending:
			return notReady(ReasonResetRequired, "%s: a memory row waits to be remapped: reset the device", name)
		case device.MIGPending:
			return notReady(ReasonResetRequired, "%s: the MIG mode changes with the next reset", name)
		}
		if xid, sick := p.fault(device.UUID); sick {
			return notReady(ReasonDeviceUnhealthy, "%s: XID %d", name, xid)
		}
	}
	return ready("")
}

// fault returns the last critical fault of a device, or of one that the driver could not name.
func (p *GPU) fault(uuid string) (xid uint64, sick bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if xid, sick = p.faults[uuid]; !sick {
		xid, sick = p.faults[""]
	}
	return xid, sick
}
