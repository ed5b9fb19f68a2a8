package inspect

import (
	"fmt"
	"slices"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"

	"headstart.dev/readiness"
)

// LeaseName is the name of the lease that a controller leads by, in whatever namespace it runs.
const LeaseName = "headstart-controller"

// leaseGrace is added to the time that a lease holds: the clocks of the controller and of the API server are two.
const leaseGrace = 10 * time.Second

// Controller is whether anybody carries the rules and the policies out. The zero value is one of which nothing is known.
type Controller struct {
	// Absent says why nobody does: "" where a controller lives, or where that is not known.
	Absent string
}

// ReadController says whether one of the leases is held by a controller that lives. now is the API server's time.
func ReadController(leases []coordinationv1.Lease, now time.Time) Controller {
	var dead []string
	for i := range leases {
		why := deadLease(&leases[i], now)
		if why == "" {
			return Controller{}
		}
		dead = append(dead, why)
	}
	if len(dead) == 0 {
		return Controller{Absent: "there is no lease " + LeaseName + " in any namespace (one with --leader-elect=false has none and is not seen)"}
	}
	return Controller{Absent: strings.Join(dead, "; ")}
}

// deadLease says why nobody leads by the lease; "" where somebody does.
func deadLease(lease *coordinationv1.Lease, now time.Time) string {
	name := lease.Namespace + "/" + lease.Name
	spec := lease.Spec
	if spec.HolderIdentity == nil || *spec.HolderIdentity == "" || spec.RenewTime == nil || spec.LeaseDurationSeconds == nil {
		return "nobody holds the lease " + name
	}
	holds := time.Duration(*spec.LeaseDurationSeconds)*time.Second + leaseGrace
	if silence := now.Sub(spec.RenewTime.Time); silence > holds {
		return fmt.Sprintf("the lease %s was last renewed %s ago, by %s", name, age(spec.RenewTime.Time, now), clean(*spec.HolderIdentity))
	}
	return ""
}

// View is how a cluster looks at one moment.
type View struct {
	Now        time.Time
	Controller Controller
	// Unseen are rules that no controller has taken up, though one is alive: see Overlooked.
	Unseen []RuleKey
}

// RuleKey names a rule: forms may share names.
type RuleKey struct {
	Form readiness.Form
	Name string
}

// patience is how long a controller may take to look at a new object: it writes statuses once a second at most.
const patience = 30 * time.Second

// Overlooked says of a rule or a policy that no controller has looked at it, by its age and status.observedGeneration: the
// controllers that run were not told to carry out such ones.
func (v View) Overlooked(created time.Time, observed int64) bool {
	return observed == 0 && v.Now.Sub(created) > patience
}

// Notice is what to know before anything else; "" where controllers do all that there is to do.
func (v View) Notice() string { return v.notice(v.Unseen) }

func (v View) notice(unseen []RuleKey) string {
	if v.Controller.Absent != "" {
		return "no controller is alive: " + v.Controller.Absent + ". Nothing is held, released or lifted until one runs"
	}
	if len(unseen) == 0 {
		return ""
	}
	var names []string
	for _, key := range unseen {
		names = append(names, fmt.Sprintf("%s (%s)", key.Name, key.Form))
	}
	return fmt.Sprintf("no controller has taken up %s: is one started with --rules=native,guide,upstream, whichever it is, and --controllers=readiness? Until then they hold and release nothing", some(names))
}

// acts says whether somebody carries the rule out.
func (v View) acts(rule RuleKey) bool {
	return v.Controller.Absent == "" && !slices.Contains(v.Unseen, rule)
}
