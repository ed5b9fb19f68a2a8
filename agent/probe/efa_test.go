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
	f.write(filepath.Join(f.SysDir, "class/infiniband", fmt.Sprintf("rdmap%ds27", i), "ports/1/state"), state)
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
	missing("0 of 2 EFAs work: 0 active ports, 0 device files")
	f.port(0, "4: ACTIVE")
	f.port(1, "1: DOWN")
	f.verbs(0)
	f.verbs(1)
	missing("1 of 2 EFAs work: 1 active ports, 2 device files")
	f.port(1, "4: ACTIVE")
	require.Equal(t, probe.True, look(t, f, time.Second).Status)
	f.MinDevices = 3
	missing("2 of 3")
}

func TestEFAWhereThereIsNone(t *testing.T) {
	f := newFabric(t, 0)
	require.Equal(t, probe.ReasonNotFound, look(t, f, time.Second).Reason)
	f.MinDevices = 1
	require.Equal(t, probe.ReasonDevicesMissing, look(t, f, time.Second).Reason)
}

func TestEFAIsNotHeldUpByAFIFO(t *testing.T) {
	f := newFabric(t, 1)
	f.verbs(0)
	dir := filepath.Join(f.SysDir, "class/infiniband/rdmap0s27/ports/1")
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
