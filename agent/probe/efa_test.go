package probe_test

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"headstart.dev/agent/probe"
)

// fabric is the /sys and /dev of a machine with adapters on its PCI bus and no driver yet.
type fabric struct {
	*probe.EFA
	t *testing.T
}

func newFabric(t *testing.T, adapters int) fabric {
	t.Helper()
	root := t.TempDir()
	f := fabric{EFA: &probe.EFA{SysDir: filepath.Join(root, "sys"), DevDir: filepath.Join(root, "dev")}, t: t}
	require.NoError(t, os.MkdirAll(filepath.Join(f.DevDir, "infiniband"), 0o755))
	for i := range adapters {
		f.pci(i, "0x1d0f", "0xefa2")
	}
	f.pci(100, "0x1d0f", "0xec20") // an ENA, of the same vendor
	f.pci(101, "0x15b3", "0xefa2") // another vendor's
	return f
}

func (f fabric) write(path, content string) {
	f.t.Helper()
	require.NoError(f.t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(f.t, os.WriteFile(path, []byte(content+"\n"), 0o600))
}

func (f fabric) pci(slot int, vendor, device string) {
	f.t.Helper()
	dir := filepath.Join(f.SysDir, "bus/pci/devices", fmt.Sprintf("0000:%02x:1b.0", slot))
	f.write(filepath.Join(dir, "vendor"), vendor)
	f.write(filepath.Join(dir, "device"), device)
	f.write(filepath.Join(dir, "class"), "0x020000")
}

func (f fabric) port(i int, state string) {
	f.t.Helper()
	f.device(fmt.Sprintf("rdmap%ds27", i), "0x1d0f", i, state)
}

// device is an adapter that its driver has, with the device file that programs open.
func (f fabric) device(name, vendor string, verbs int, state string) {
	f.t.Helper()
	dir := filepath.Join(f.SysDir, "class/infiniband", name)
	f.write(filepath.Join(dir, "ports/1/state"), state)
	f.write(filepath.Join(dir, "device/vendor"), vendor)
	require.NoError(f.t, os.MkdirAll(filepath.Join(dir, fmt.Sprintf("device/infiniband_verbs/uverbs%d", verbs)), 0o755))
}

func (f fabric) verbs(i int) {
	f.t.Helper()
	f.write(filepath.Join(f.DevDir, "infiniband", fmt.Sprintf("uverbs%d", i)), "")
}

func TestEFA(t *testing.T) {
	f := newFabric(t, 2)
	missing := func(message string) {
		t.Helper()
		result := look(t, f, time.Second)
		require.Equal(t, probe.ReasonDevicesMissing, result.Reason)
		require.Contains(t, result.Message, message)
	}
	missing("0 of 2 EFAs work: the driver has 0, of which 0 have an active port")
	f.port(0, "4: ACTIVE")
	f.port(1, "1: DOWN")
	f.verbs(0)
	f.verbs(1)
	missing("1 of 2 EFAs work: the driver has 2, of which 1 have an active port; " + f.DevDir + "/infiniband holds 2 device files")
	f.port(1, "4: ACTIVE")
	require.Equal(t, probe.True, look(t, f, time.Second).Status)
	f.MinDevices = 3
	missing("2 of 3")
}

func TestEFAWhereThereIsNone(t *testing.T) {
	f := newFabric(t, 0)
	result := look(t, f, time.Second)
	require.Equal(t, probe.NotApplicable, result.Status)
	require.Equal(t, probe.ReasonNoDevices, result.Reason)
	f.MinDevices = 1
	require.Equal(t, probe.ReasonDevicesMissing, look(t, f, time.Second).Reason)
}

// A p4d has 4 EFAs, and two of Mellanox's adapters may be beside them.
func TestEFAOtherVendorsAdaptersDoNotMakeUpForMissingOnes(t *testing.T) {
	f := newFabric(t, 8)
	for i := range 6 {
		f.port(i, "4: ACTIVE")
		f.verbs(i)
	}
	for i := 6; i < 8; i++ {
		f.device(fmt.Sprintf("mlx5_%d", i), "0x15b3", i, "4: ACTIVE")
		f.verbs(i)
	}
	result := look(t, f, time.Second)
	require.Equal(t, probe.ReasonDevicesMissing, result.Reason)
	require.Contains(t, result.Message, "6 of 8")
	f.port(6, "4: ACTIVE")
	f.port(7, "4: ACTIVE")
	f.verbs(106) // of nobody
	require.NoError(t, os.Remove(filepath.Join(f.DevDir, "infiniband/uverbs6")))
	require.Contains(t, look(t, f, time.Second).Message, "7 of 8", "an adapter without its device file")
}

func TestEFAIsNotHeldUpByAFIFO(t *testing.T) {
	f := newFabric(t, 1)
	f.verbs(0)
	f.port(0, "")
	dir := filepath.Join(f.SysDir, "class/infiniband/rdmap0s27/ports/1")
	require.NoError(t, os.Remove(filepath.Join(dir, "state")))
	require.NoError(t, os.MkdirAll(dir, 0o755))
	require.NoError(t, syscall.Mkfifo(filepath.Join(dir, "state"), 0o600))
	require.Equal(t, probe.ReasonDevicesMissing, look(t, f, time.Second).Reason)
}

func TestEFADeviceFileIsSeenByAnEvent(t *testing.T) {
	f := newFabric(t, 1)
	f.port(0, "4: ACTIVE")
	results := start(t, f, eventsOnly)
	require.Equal(t, probe.ReasonDevicesMissing, next(t, results).Reason)
	f.verbs(0)
	require.Equal(t, probe.True, next(t, results).Status)
}
