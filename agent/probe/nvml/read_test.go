//go:build linux && cgo

package nvml

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/dgxa100"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/server"
	"github.com/stretchr/testify/require"
)

// dgx is a DGX A100 of go-nvml's mock, with the calls that the mock leaves out.
func dgx() *server.Server {
	machine := dgxa100.New()
	for _, d := range machine.Devices {
		device, ok := d.(*server.Device)
		if !ok {
			continue
		}
		device.GetTotalEccErrorsFunc = func(nvml.MemoryErrorType, nvml.EccCounterType) (uint64, nvml.Return) { return 0, nvml.SUCCESS }
		device.GetRemappedRowsFunc = func() (int, int, bool, bool, nvml.Return) { return 0, 0, false, false, nvml.SUCCESS }
		device.GetMigModeFunc = func() (int, int, nvml.Return) { return 0, 0, nvml.SUCCESS }
	}
	return machine
}

func first(machine *server.Server) *server.Device {
	device, _ := machine.Devices[0].(*server.Device)
	return device
}

func TestReadADGXA100(t *testing.T) {
	report := read(dgx())
	require.Equal(t, OutcomeOK, report.Outcome)
	require.Len(t, report.Devices, 8)
	require.NotEmpty(t, report.DriverVersion)
	for _, device := range report.Devices {
		require.NotEmpty(t, device.UUID)
		require.Empty(t, device.Error)
	}
	raw, err := json.Marshal(report)
	require.NoError(t, err)
	parsed, err := Parse(raw)
	require.NoError(t, err)
	require.Equal(t, report, parsed)
}

func TestReadTellsOutcomesApart(t *testing.T) {
	for ret, want := range map[nvml.Return]Outcome{
		nvml.ERROR_LIBRARY_NOT_FOUND: OutcomeLibraryNotFound,
		nvml.ERROR_DRIVER_NOT_LOADED: OutcomeDriverNotLoaded,
		nvml.ERROR_UNKNOWN:           OutcomeFailed,
	} {
		machine := dgx()
		machine.InitFunc = func() nvml.Return { return ret }
		require.Equal(t, want, read(machine).Outcome)
	}
}

func TestReadADeviceThatIsSick(t *testing.T) {
	machine := dgx()
	device := first(machine)
	device.GetTotalEccErrorsFunc = func(nvml.MemoryErrorType, nvml.EccCounterType) (uint64, nvml.Return) { return 2, nvml.SUCCESS }
	device.GetRemappedRowsFunc = func() (int, int, bool, bool, nvml.Return) { return 0, 1, true, true, nvml.SUCCESS }
	device.GetMigModeFunc = func() (int, int, nvml.Return) { return 0, 1, nvml.SUCCESS }
	got := read(machine).Devices[0]
	require.Equal(t, uint64(2), got.UncorrectedECC)
	require.True(t, got.RemapPending)
	require.True(t, got.RemapFailed)
	require.True(t, got.MIGPending)
}

func TestReadADeviceThatLacksAFeature(t *testing.T) {
	machine := dgx()
	device := first(machine)
	device.GetTotalEccErrorsFunc = func(nvml.MemoryErrorType, nvml.EccCounterType) (uint64, nvml.Return) {
		return 9, nvml.ERROR_NOT_SUPPORTED
	}
	device.GetRemappedRowsFunc = func() (int, int, bool, bool, nvml.Return) { return 0, 0, true, true, nvml.ERROR_NOT_SUPPORTED }
	device.GetMigModeFunc = func() (int, int, nvml.Return) { return 0, 1, nvml.ERROR_NOT_SUPPORTED }
	uuid, _ := device.GetUUID()
	require.Equal(t, Device{Index: 0, UUID: uuid}, read(machine).Devices[0])
}

func TestEventsOfApplicationsAreNotCritical(t *testing.T) {
	for _, xid := range []uint64{13, 31, 43, 45, 68, 109} {
		require.False(t, Event{XID: xid}.Critical(), xid)
	}
	require.True(t, Event{XID: 79}.Critical())
	require.True(t, Event{}.Critical(), "a double-bit ECC error has no XID")
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"outcome":"OK","driverVersion":"570.00","devices":[{"index":0,"uuid":"GPU-1"}]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		report, err := Parse(raw)
		if err != nil {
			return
		}
		out, err := json.Marshal(report)
		require.NoError(t, err)
		_, err = Parse(out)
		require.NoError(t, err)
		require.False(t, bytes.ContainsRune(out, '\n'))
	})
}
