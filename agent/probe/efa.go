package probe

import (
	"context"
	"os"
	"path/filepath"
	"strings"
)

// ReasonDevicesMissing means that fewer devices work than must.
const ReasonDevicesMissing = "DevicesMissing"

// EFA is ready when enough Elastic Fabric Adapters have, each of them, an active port and a device file.
type EFA struct {
	// MinDevices must work; 0 means as many as the PCI bus shows.
	MinDevices int
	// SysDir and DevDir are /sys and /dev.
	SysDir, DevDir string
}

// efaVendor and efaDevices are how EFAs stand on the PCI bus. Source: linux drivers/infiniband/hw/efa/efa_main.c@v6.12.
const efaVendor = "0x1d0f"

var efaDevices = map[string]bool{"0xefa0": true, "0xefa1": true, "0xefa2": true, "0xefa3": true}

// Check counts.
func (p *EFA) Check(context.Context) Result {
	want := p.MinDevices
	if want == 0 {
		var err error
		if want, err = countPCI(p.SysDir, efaVendor, func(device, _ string) bool { return efaDevices[device] }); err != nil {
			return notReady(ReasonInvalid, "%v", err)
		}
		if want == 0 {
			return notApplicable(ReasonNoDevices, "the PCI bus shows no EFA")
		}
	}
	devices, err := filepath.Glob(filepath.Join(p.SysDir, "class/infiniband/*"))
	if err != nil {
		return notReady(ReasonInvalid, "%v", err)
	}
	found, active, working := 0, 0, 0
	for _, device := range devices {
		if attribute(filepath.Join(device, "device/vendor")) != efaVendor {
			continue // another vendor's adapter, which does not make up for ours
		}
		found++
		// "4: ACTIVE"
		if !strings.Contains(attribute(filepath.Join(device, "ports/1/state")), "ACTIVE") {
			continue
		}
		active++
		if p.hasDeviceFile(device) {
			working++
		}
	}
	if working < want {
		return notReady(ReasonDevicesMissing, "%d of %d EFAs work: the driver has %d, of which %d have an active port; %s holds %d device files",
			working, want, found, active, p.verbsDir(), p.countDeviceFiles())
	}
	return ready("%d EFAs are active", working)
}

// hasDeviceFile says whether programs can open an adapter.
func (p *EFA) hasDeviceFile(device string) bool {
	verbs, err := filepath.Glob(filepath.Join(device, "device/infiniband_verbs/uverbs*"))
	if err != nil {
		return false
	}
	for _, verb := range verbs {
		if _, err := os.Stat(filepath.Join(p.verbsDir(), filepath.Base(verb))); err == nil {
			return true
		}
	}
	return false
}

// countDeviceFiles counts the adapters' device files, of any vendor: where there are none, the folder is not mounted or
// ib_uverbs is not loaded.
func (p *EFA) countDeviceFiles() int {
	files, err := filepath.Glob(filepath.Join(p.verbsDir(), "uverbs*"))
	if err != nil {
		return 0
	}
	return len(files)
}

// verbsDir is where the device files appear.
func (p *EFA) verbsDir() string { return filepath.Join(p.DevDir, "infiniband") }

// Watch sees device files come.
func (p *EFA) Watch(ctx context.Context, wake func()) error {
	return watchDirs(ctx, wake, p.verbsDir())
}

// countPCI counts the devices of a vendor on the PCI bus that match.
func countPCI(sysDir, vendor string, match func(device, class string) bool) (int, error) {
	dirs, err := filepath.Glob(filepath.Join(sysDir, "bus/pci/devices/*"))
	if err != nil {
		return 0, err
	}
	count := 0
	for _, dir := range dirs {
		if attribute(filepath.Join(dir, "vendor")) == vendor &&
			match(attribute(filepath.Join(dir, "device")), attribute(filepath.Join(dir, "class"))) {
			count++
		}
	}
	return count, nil
}

// attribute reads one value of sysfs; one that is not there is "".
func attribute(path string) string {
	raw, err := readRegular(path, 4096)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(raw))
}
