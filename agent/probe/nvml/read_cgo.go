//go:build linux && cgo

package nvml

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
)

// Read asks the library, the first of Libraries that is there or, where path is not empty, that one. It may never
// return: call it in a process that can be killed.
func Read(path string) Report { return read(find(path)) }

// Supported says whether this build can load the library.
const Supported = true

// find chooses the library.
func find(path string) nvml.Interface {
	if path != "" {
		return nvml.New(nvml.WithLibraryPath(path))
	}
	for _, candidate := range Libraries {
		if _, err := os.Stat(candidate); err == nil {
			return nvml.New(nvml.WithLibraryPath(candidate))
		}
	}
	// The name that the linker looks up.
	return nvml.New()
}

func read(lib nvml.Interface) Report {
	switch ret := lib.Init(); ret {
	case nvml.SUCCESS:
	case nvml.ERROR_LIBRARY_NOT_FOUND:
		return Report{Outcome: OutcomeLibraryNotFound}
	case nvml.ERROR_DRIVER_NOT_LOADED:
		return Report{Outcome: OutcomeDriverNotLoaded}
	default:
		return Report{Outcome: OutcomeFailed, Error: fmt.Sprintf("initialise NVML: code %d", ret)}
	}
	defer shutdown(lib)
	report := Report{Outcome: OutcomeOK}
	var ret nvml.Return
	if report.DriverVersion, ret = lib.SystemGetDriverVersion(); ret != nvml.SUCCESS {
		return Report{Outcome: OutcomeFailed, Error: fmt.Sprintf("read driver version: code %d", ret)}
	}
	count, ret := lib.DeviceGetCount()
	if ret != nvml.SUCCESS {
		return Report{Outcome: OutcomeFailed, Error: fmt.Sprintf("count devices: code %d", ret)}
	}
	for i := range min(count, maxReportDevices) {
		report.Devices = append(report.Devices, readDevice(lib, i))
	}
	return report
}

// readDevice leaves out what a device does not have: NOT_SUPPORTED is an answer.
func readDevice(lib nvml.Interface, index int) Device {
	out := Device{Index: index}
	device, ret := lib.DeviceGetHandleByIndex(index)
	if ret != nvml.SUCCESS {
		out.Error = fmt.Sprintf("open: code %d", ret)
		return out
	}
	if out.UUID, ret = device.GetUUID(); ret != nvml.SUCCESS {
		out.Error = fmt.Sprintf("read UUID: code %d", ret)
		return out
	}
	uncorrected, ret := device.GetTotalEccErrors(nvml.MEMORY_ERROR_TYPE_UNCORRECTED, nvml.VOLATILE_ECC)
	if unexpected(ret) {
		out.Error = fmt.Sprintf("read ECC errors: code %d", ret)
	} else if ret == nvml.SUCCESS {
		out.UncorrectedECC = uncorrected
	}
	_, _, pending, failed, ret := device.GetRemappedRows()
	if unexpected(ret) {
		out.Error = fmt.Sprintf("read remapped rows: code %d", ret)
	} else if ret == nvml.SUCCESS {
		out.RemapPending, out.RemapFailed = pending, failed
	}
	current, next, ret := device.GetMigMode()
	if unexpected(ret) {
		out.Error = fmt.Sprintf("read MIG mode: code %d", ret)
	} else if ret == nvml.SUCCESS {
		out.MIGPending = current != next
	}
	return out
}

// shutdown and free give back what the process takes with it anyway.
func shutdown(lib nvml.Interface) { _ = lib.Shutdown() }

func free(set nvml.EventSet) { _ = set.Free() }

// failed is the error of a call. The library's own text needs the library, and it may be what is sick.
func failed(what string, ret nvml.Return) error { return fmt.Errorf("%s: code %d", what, int(ret)) }

func unexpected(ret nvml.Return) bool {
	return ret != nvml.SUCCESS && ret != nvml.ERROR_NOT_SUPPORTED
}

// eventWait is how long one wait for an event lasts, in milliseconds.
const eventWait = 5000

// Follow writes one line of JSON an Event until ctx ends or the library fails.
func Follow(ctx context.Context, path string, w io.Writer) error { return follow(ctx, find(path), w) }

func follow(ctx context.Context, lib nvml.Interface, w io.Writer) error {
	if ret := lib.Init(); ret != nvml.SUCCESS {
		return failed("initialise NVML", ret)
	}
	defer shutdown(lib)
	set, ret := lib.EventSetCreate()
	if ret != nvml.SUCCESS {
		return failed("make event set", ret)
	}
	defer free(set)
	count, ret := lib.DeviceGetCount()
	if ret != nvml.SUCCESS {
		return failed("count devices", ret)
	}
	for i := range count {
		device, ret := lib.DeviceGetHandleByIndex(i)
		if ret != nvml.SUCCESS {
			return failed(fmt.Sprintf("open device %d", i), ret)
		}
		// A device that sends none of these is left alone.
		if ret := device.RegisterEvents(nvml.EventTypeXidCriticalError|nvml.EventTypeDoubleBitEccError, set); unexpected(ret) {
			return failed(fmt.Sprintf("register for events of device %d", i), ret)
		}
	}
	encoder := json.NewEncoder(w)
	for ctx.Err() == nil {
		data, ret := set.Wait(eventWait)
		switch ret {
		case nvml.ERROR_TIMEOUT:
			continue
		case nvml.SUCCESS:
		default:
			return failed("wait for event", ret)
		}
		event := Event{}
		if data.EventType == nvml.EventTypeXidCriticalError {
			event.XID = data.EventData
		}
		if data.Device != nil {
			if uuid, ret := data.Device.GetUUID(); ret == nvml.SUCCESS {
				event.UUID = uuid
			}
		}
		if err := encoder.Encode(event); err != nil {
			return fmt.Errorf("write event: %w", err)
		}
	}
	return nil
}
