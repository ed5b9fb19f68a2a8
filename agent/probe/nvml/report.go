// Package nvml reads the GPUs of this machine through NVIDIA's management library. A sick driver hangs its caller for
// ever and a sick library crashes it, so everything here runs in a child process: the parent reads its Report as JSON. A
// build without cgo cannot load the library, and its Report says so. Start from Read.
package nvml

import (
	"encoding/json"
	"fmt"
)

// Libraries are where a driver is that runs in a container, as NVIDIA's operator does it, seen from the host and from
// the agent's own container. The linker does not look there.
var Libraries = []string{
	"/run/nvidia/driver/usr/lib64/libnvidia-ml.so.1",
	"/run/nvidia/driver/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1",
	"/run/nvidia/driver/usr/lib/aarch64-linux-gnu/libnvidia-ml.so.1",
}

// Outcome says how far the library was reached.
type Outcome string

// The outcomes, one for each thing that somebody has to do about it.
const (
	OutcomeOK              Outcome = "OK"
	OutcomeUnsupported     Outcome = "Unsupported"     // this build has no cgo
	OutcomeLibraryNotFound Outcome = "LibraryNotFound" // no driver is installed
	OutcomeDriverNotLoaded Outcome = "DriverNotLoaded" // it is installed, the kernel module is not loaded
	OutcomeFailed          Outcome = "Failed"          // Error says what
)

// Report is what the library says of the machine.
type Report struct {
	Outcome       Outcome  `json:"outcome"`
	Error         string   `json:"error,omitempty"`
	DriverVersion string   `json:"driverVersion,omitempty"`
	Devices       []Device `json:"devices,omitempty"`
}

// Device is one GPU. Error is set when the library knows the device and cannot read it.
type Device struct {
	Index int    `json:"index"`
	UUID  string `json:"uuid,omitempty"`
	Error string `json:"error,omitempty"`
	// UncorrectedECC counts memory errors since the driver was loaded that were not corrected.
	UncorrectedECC uint64 `json:"uncorrectedECC,omitempty"`
	// RemapPending means that a memory row waits for a reset to be replaced, RemapFailed that there is none to replace it.
	RemapPending bool `json:"remapPending,omitempty"`
	RemapFailed  bool `json:"remapFailed,omitempty"`
	// MIGPending means that the MIG mode changes with the next reset.
	MIGPending bool `json:"migPending,omitempty"`
}

// maxReportDevices is far more than any machine has.
const maxReportDevices = 1024

// Parse reads the output of the child process.
func Parse(raw []byte) (Report, error) {
	var report Report
	if err := json.Unmarshal(raw, &report); err != nil {
		return Report{}, fmt.Errorf("parse NVML report: %w", err)
	}
	if report.Outcome == "" || len(report.Devices) > maxReportDevices {
		return Report{}, fmt.Errorf("parse NVML report: outcome %q and %d devices are no report", report.Outcome, len(report.Devices))
	}
	return report, nil
}

// Event is one line of the output of Follow: a fault of a device.
type Event struct {
	UUID string `json:"uuid"`
	// XID is the driver's number of the fault; 0 for a double-bit ECC error.
	XID uint64 `json:"xid"`
}

// ignoredXIDs are faults of an application, not of the device. Source: NVIDIA/k8s-device-plugin
// internal/rm/health.go@v0.19.0.
var ignoredXIDs = map[uint64]bool{13: true, 31: true, 43: true, 45: true, 68: true, 109: true}

// Critical says whether a device that had this event can no longer be trusted.
func (e Event) Critical() bool { return !ignoredXIDs[e.XID] }
