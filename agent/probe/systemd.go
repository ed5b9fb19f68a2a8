package probe

import "context"

// ReasonUnitNotActive means that a systemd unit is in another state than active.
const ReasonUnitNotActive = "UnitNotActive"

// Units knows the units of this node's service manager.
type Units interface {
	// State returns the load state (loaded, not-found, ...) and the active state (active, failed, ...) of a unit.
	State(ctx context.Context, unit string) (load, active string, err error)
	// Watch calls wake whenever the unit changes, until ctx ends.
	Watch(ctx context.Context, unit string, wake func()) error
}

// Systemd is ready while Unit is active.
type Systemd struct {
	Unit  string
	Units Units
}

// Check asks once.
func (p *Systemd) Check(ctx context.Context) Result {
	load, active, err := p.Units.State(ctx, p.Unit)
	switch {
	case err != nil && (isTimeout(err) || ctx.Err() != nil):
		return notReady(ReasonTimeout, "systemd did not answer in time")
	case err != nil:
		return notReady(ReasonUnreachable, "%v", err)
	case load == "not-found":
		return notReady(ReasonNotFound, "there is no unit %s", p.Unit)
	case active != "active":
		return notReady(ReasonUnitNotActive, "%s is %s", p.Unit, active)
	}
	return ready("%s is active", p.Unit)
}

// Watch follows the unit's own signals.
func (p *Systemd) Watch(ctx context.Context, wake func()) error {
	return p.Units.Watch(ctx, p.Unit, wake)
}
