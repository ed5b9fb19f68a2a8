// Package systemd asks systemd over D-Bus and tells it how the agent is. Where there is no systemd (a container, a test)
// every question is an error at once.
package systemd

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/coreos/go-systemd/v22/dbus"
)

// questionTimeout bounds a question: systemd answers from memory.
const questionTimeout = 2 * time.Second

// Notify tells the service manager, if there is one.
func Notify(state string) error {
	_, err := daemon.SdNotify(false, state)
	return err
}

// Watch tells systemd's watchdog, where the unit has one, that the agent lives, until ctx ends. alive is asked twice in each
// period; an agent in which it blocks is ended and started anew by systemd.
func Watch(ctx context.Context, alive func()) {
	period, err := daemon.SdWatchdogEnabled(false)
	if err != nil || period <= 0 {
		return
	}
	ticker := time.NewTicker(period / 2)
	defer ticker.Stop()
	for {
		alive()
		// A notification that is lost is made up for by the next one.
		_ = Notify("WATCHDOG=1")
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// Times are the milestones of a boot.
type Times struct {
	// Userspace is when systemd was started, Finish when everything was up; zero while it is not.
	Userspace, Finish time.Time
}

// BootTimes asks systemd for the milestones of this boot.
func BootTimes(ctx context.Context) (Times, error) {
	ctx, cancel := context.WithTimeout(ctx, questionTimeout)
	defer cancel()
	conn, err := dbus.NewWithContext(ctx)
	if err != nil {
		return Times{}, fmt.Errorf("connect to systemd: %w", err)
	}
	defer conn.Close()
	var times Times
	for name, field := range map[string]*time.Time{"UserspaceTimestamp": &times.Userspace, "FinishTimestamp": &times.Finish} {
		text, err := conn.GetManagerProperty(name)
		if err != nil {
			return Times{}, fmt.Errorf("ask systemd for %s: %w", name, err)
		}
		if *field, err = parseTimestamp(text); err != nil {
			return Times{}, fmt.Errorf("ask systemd for %s: %w", name, err)
		}
	}
	return times, nil
}

// parseTimestamp reads "@t 1700000000000000", microseconds since 1970; 0 is the zero time.
func parseTimestamp(text string) (time.Time, error) {
	micros, err := strconv.ParseInt(strings.TrimPrefix(text, "@t "), 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("read timestamp %q: %w", text, err)
	}
	if micros == 0 {
		return time.Time{}, nil
	}
	return time.UnixMicro(micros), nil
}
