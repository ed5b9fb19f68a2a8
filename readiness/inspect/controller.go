package inspect

import (
	"fmt"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
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
}

// Notice is what to know before anything else; "" where a controller lives.
func (v View) Notice() string {
	if v.Controller.Absent == "" {
		return ""
	}
	return "no controller is alive: " + v.Controller.Absent + ". Nothing is held, released or lifted until one runs"
}
