// Package systemdtest runs a systemd that tests can tell what to do: the few methods and signals of
// org.freedesktop.systemd1 that the agent uses, on a private message bus. Start from Start.
package systemdtest

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync"

	systemddbus "github.com/coreos/go-systemd/v22/dbus"
	"github.com/godbus/dbus/v5"
)

const (
	busName       = "org.freedesktop.systemd1"
	managerPath   = dbus.ObjectPath("/org/freedesktop/systemd1")
	managerIface  = "org.freedesktop.systemd1.Manager"
	unitIface     = "org.freedesktop.systemd1.Unit"
	propertyIface = "org.freedesktop.DBus.Properties"
)

// Systemd is a service manager whose units have the states that the test sets. It is safe for concurrent use.
type Systemd struct {
	address string
	daemon  *exec.Cmd
	conn    *dbus.Conn

	mu    sync.Mutex
	units map[string]string
}

// Start starts the bus and the manager on it. It needs the program dbus-daemon. The caller closes it.
func Start(ctx context.Context) (*Systemd, error) {
	daemon := exec.CommandContext(ctx, "dbus-daemon", "--session", "--nofork", "--nopidfile", "--print-address")
	stdout, err := daemon.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start message bus: %w", err)
	}
	if err := daemon.Start(); err != nil {
		return nil, fmt.Errorf("start message bus: %w", err)
	}
	s := &Systemd{daemon: daemon, units: map[string]string{}}
	line, err := bufio.NewReader(io.LimitReader(stdout, 4096)).ReadString('\n')
	if err != nil {
		_ = s.Close()
		return nil, fmt.Errorf("read the address of the message bus: %w", err)
	}
	s.address = strings.TrimSpace(line)
	if s.conn, err = dbus.Connect(s.address); err != nil {
		_ = s.Close()
		return nil, fmt.Errorf("connect to the message bus: %w", err)
	}
	if err := s.serve(); err != nil {
		_ = s.Close()
		return nil, err
	}
	return s, nil
}

func (s *Systemd) serve() error {
	if err := s.conn.Export(manager{}, managerPath, managerIface); err != nil {
		return fmt.Errorf("export the manager: %w", err)
	}
	if err := s.conn.ExportSubtree(&properties{s}, managerPath+"/unit", propertyIface); err != nil {
		return fmt.Errorf("export the units: %w", err)
	}
	reply, err := s.conn.RequestName(busName, dbus.NameFlagDoNotQueue)
	if err != nil {
		return fmt.Errorf("own %s: %w", busName, err)
	}
	if reply != dbus.RequestNameReplyPrimaryOwner {
		return fmt.Errorf("own %s: somebody else does", busName)
	}
	return nil
}

// Address is what DBUS_SYSTEM_BUS_ADDRESS has to be for this systemd to be the system's.
func (s *Systemd) Address() string { return s.address }

// Set gives a unit an active state and sends the signal that systemd sends.
func (s *Systemd) Set(unit, active string) error {
	s.mu.Lock()
	s.units[unit] = active
	s.mu.Unlock()
	changed := map[string]dbus.Variant{"ActiveState": dbus.MakeVariant(active)}
	if err := s.conn.Emit(unitPath(unit), propertyIface+".PropertiesChanged", unitIface, changed, []string{}); err != nil {
		return fmt.Errorf("send signal of %s: %w", unit, err)
	}
	return nil
}

// Close stops the bus and all that is connected to it.
func (s *Systemd) Close() error {
	if s.conn != nil {
		_ = s.conn.Close()
	}
	if err := s.daemon.Process.Kill(); err != nil {
		return fmt.Errorf("stop message bus: %w", err)
	}
	_ = s.daemon.Wait() // killed, and so an error
	return nil
}

func unitPath(unit string) dbus.ObjectPath {
	return managerPath + "/unit/" + dbus.ObjectPath(systemddbus.PathBusEscape(unit))
}

// manager answers what a subscriber calls.
type manager struct{}

// Subscribe accepts the subscription: signals go to everybody anyway.
func (manager) Subscribe() *dbus.Error { return nil }

// properties answers for every unit below one path.
type properties struct{ systemd *Systemd }

// GetAll returns the states of the unit that the message was sent to.
func (p *properties) GetAll(message dbus.Message, _ string) (map[string]dbus.Variant, *dbus.Error) {
	path, _ := message.Headers[dbus.FieldPath].Value().(dbus.ObjectPath)
	p.systemd.mu.Lock()
	defer p.systemd.mu.Unlock()
	load, active := "not-found", "inactive"
	for unit, state := range p.systemd.units {
		if unitPath(unit) == path {
			load, active = "loaded", state
		}
	}
	return map[string]dbus.Variant{"LoadState": dbus.MakeVariant(load), "ActiveState": dbus.MakeVariant(active)}, nil
}
