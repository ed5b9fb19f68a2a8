package probe

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
)

// Neuron is ready when AWS's Neuron driver has every Inferentia or Trainium device that the PCI bus shows, and the kubelet
// has devices to hand out.
type Neuron struct {
	// MinDevices must work; 0 means as many as the PCI bus shows.
	MinDevices int
	// DevicePlugin says that a device plugin hands them to the kubelet; false where a DRA driver does.
	DevicePlugin bool
	// KubeletDir is the kubelet's root folder; SysDir is /sys.
	KubeletDir, SysDir string
}

// neuronDevices are Inferentia (1 and 2) and Trainium (1 to 3) on the PCI bus; their vendor is that of an EFA.
// Source: aws-neuron/aws-neuron-driver neuron_device.h and neuron_pci.c@2.24.
var neuronDevices = map[string]bool{
	"0x7064": true, "0x7065": true, "0x7066": true, "0x7067": true, // Inferentia
	"0x7264": true,                                                 // Inferentia2
	"0x7164": true, "0x7364": true, "0x7564": true, "0x7565": true, // Trainium, Trainium2, Trainium3
}

// neuronFile is one device in its class: /sys/class/neuron_device/neuron0.
var neuronFile = regexp.MustCompile(`^neuron[0-9]+$`)

// Check counts.
func (p *Neuron) Check(ctx context.Context) Result {
	want := p.MinDevices
	if want == 0 {
		var err error
		if want, err = countPCI(p.SysDir, efaVendor, func(device, _ string) bool { return neuronDevices[device] }); err != nil {
			return notReady(ReasonInvalid, "%v", err)
		}
		if want == 0 {
			return notApplicable(ReasonNoDevices, "the PCI bus shows no Neuron device")
		}
	}
	if _, err := os.Stat(filepath.Join(p.SysDir, "module/neuron")); err != nil {
		return notReady(ReasonDriverNotLoaded, "the Neuron kernel module is not loaded yet")
	}
	// A container sees the kernel's devices, and of /dev its own alone.
	files, err := os.ReadDir(filepath.Join(p.SysDir, "class/neuron_device"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return notReady(ReasonInvalid, "%v", err)
	}
	have := 0
	for _, file := range files {
		if neuronFile.MatchString(file.Name()) {
			have++
		}
	}
	if have < want {
		return notReady(ReasonDevicesMissing, "the driver has %d of %d Neuron devices", have, want)
	}
	if p.DevicePlugin {
		if result := checkAllocatable(ctx, p.KubeletDir, "aws.amazon.com/neuron"); result.Status != True {
			return result
		}
	}
	return ready("%d Neuron devices work", have)
}

// Watch sees plugins come; of devices sysfs sends no event.
func (p *Neuron) Watch(ctx context.Context, wake func()) error {
	return watchDirs(ctx, wake, filepath.Join(p.KubeletDir, "device-plugins"))
}
