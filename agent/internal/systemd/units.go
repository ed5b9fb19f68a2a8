package systemd

import (
	"context"
	"fmt"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
)

const (
	// reconnectDelay is how soon a lost connection is made anew: systemd drops them all when it re-executes itself.
	reconnectDelay = 250 * time.Millisecond
	// connectionCheck is how often a quiet connection is checked. go-systemd does not say when one has ended.
	connectionCheck = 10 * time.Second
	// signalBuffer holds the signals of a boot that starts everything at once; what does not fit is dropped.
	signalBuffer = 256
)

// Units reads the units of this node's systemd. The zero value works.
type Units struct{}

// State returns a unit's load state and active state.
func (Units) State(ctx context.Context, unit string) (load, active string, err error) {
	conn, err := dbus.NewWithContext(ctx)
	if err != nil {
		return "", "", fmt.Errorf("connect to systemd: %w", err)
	}
	defer conn.Close()
	properties, err := conn.GetUnitPropertiesContext(ctx, unit)
	if err != nil {
		return "", "", fmt.Errorf("ask systemd for %s: %w", unit, err)
	}
	var known [2]bool
	load, known[0] = properties["LoadState"].(string)
	active, known[1] = properties["ActiveState"].(string)
	if !known[0] || !known[1] {
		return "", "", fmt.Errorf("ask systemd for %s: it did not tell the state", unit)
	}
	return load, active, nil
}

// Watch calls wake with every change of a unit until ctx ends, over as many connections as that takes.
func (Units) Watch(ctx context.Context, unit string, wake func()) error {
	for {
		err := watchUnit(ctx, unit, wake)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // the end of ctx is the cause, and no failure
		}
		timer := time.NewTimer(reconnectDelay)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
		if err != nil {
			// Not there, or not there yet: the prober goes on by its timers meanwhile.
			continue
		}
		wake()
	}
}

// watchUnit follows one connection until it ends.
func watchUnit(ctx context.Context, unit string, wake func()) error {
	// The connection ends with its context, so that neither a bus that hangs nor a signal that never comes keeps it.
	connCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	conn, err := dbus.NewWithContext(connCtx)
	if err != nil {
		return fmt.Errorf("connect to systemd: %w", err)
	}
	defer conn.Close()
	updates, failures := make(chan *dbus.PropertiesUpdate, signalBuffer), make(chan error, 1)
	conn.SetPropertiesSubscriber(updates, failures)
	if err := conn.Subscribe(); err != nil {
		return fmt.Errorf("subscribe to systemd: %w", err)
	}
	wake()
	check := time.NewTicker(connectionCheck)
	defer check.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case update := <-updates:
			if update.UnitName == unit {
				wake()
			}
		case lost := <-failures:
			if lost != nil { // a full buffer: something was missed
				wake()
			}
		case <-check.C:
			if !conn.Connected() {
				return nil
			}
		}
	}
}
