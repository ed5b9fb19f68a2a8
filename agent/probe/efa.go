package probe

import (
	"context"
	"os"
	"path/filepath"
	"strings"
)

// ReasonDevicesMissing means that fewer devices work than must.
const ReasonDevicesMissing = "DevicesMissing"

// EFA is ready when enough Elastic Fabric Adapters have an active port and a device file.
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
			return notReady(ReasonNotFound, "the PCI bus shows no EFA: remove the probe, or set minDevices")
		}
	}
	ports, err := filepath.Glob(filepath.Join(p.SysDir, "class/infiniband/*/ports/1/state"))
	if err != nil {
		return notReady(ReasonInvalid, "%v", err)
	}
	active := 0
	for _, port := range ports {
		// "4: ACTIVE"
		if state, err := readRegular(port, 64); err == nil && strings.Contains(string(state), "ACTIVE") {
			active++
		}
	}
	verbs, err := filepath.Glob(filepath.Join(p.DevDir, "infiniband/uverbs*"))
	if err != nil {
		return notReady(ReasonInvalid, "%v", err)
	}
	if working := min(active, len(verbs)); working < want {
		return notReady(ReasonDevicesMissing, "%d of %d EFAs work: %d active ports, %d device files", working, want, active, len(verbs))
	}
	return ready("%d EFAs are active", active)
}

// Watch sees device files come.
func (p *EFA) Watch(ctx context.Context, wake func()) error {
	return watchDirs(ctx, wake, filepath.Join(p.DevDir, "infiniband"))
}

// countPCI counts the devices of a vendor on the PCI bus that match.
func countPCI(sysDir, vendor string, match func(device, class string) bool) (int, error) {
	dirs, err := filepath.Glob(filepath.Join(sysDir, "bus/pci/devices/*"))
	if err != nil {
		return 0, err
	}
	count := 0
	for _, dir := range dirs {
		attribute := func(name string) string {
			raw, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				return ""
			}
			return strings.TrimSpace(string(raw))
		}
		if attribute("vendor") == vendor && match(attribute("device"), attribute("class")) {
			count++
		}
	}
	return count, nil
}
