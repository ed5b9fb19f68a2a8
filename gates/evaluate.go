package gates

import (
	"fmt"
	"strings"
	"time"
)

// Facts are what is known of the cluster at one moment.
type Facts struct {
	// Exists says whether an object is there and not being deleted.
	Exists func(Dependency) Existence
	// Object returns an object that an expression looks at, unless it is missing or being deleted.
	Object func(Dependency) (Object, Existence)
	// ReadyEndpoints counts the ready endpoints of a Service.
	ReadyEndpoints func(Dependency) (int, Existence)
	// Gang says what is known of a gang and of who has its gate; it is asked only for policies that require one.
	Gang func(name Dependency, gate string) Gang
	// Fleet knows the nodes; FleetProblem says why it does not know them, and is empty where it does.
	Fleet        *Fleet
	FleetProblem string
}

// Existence says whether a thing is there.
type Existence struct {
	There bool
	// Unknown says that nobody could find out yet; Problem says why not, where it is known.
	Unknown bool
	Problem string
	// Denied says that nobody may find out.
	Denied bool
	// Names are the keys of a ConfigMap or a Secret, where they are known, and the pull secrets of a ServiceAccount.
	Names      []string
	NamesKnown bool
}

// There is the answer of who could find out.
func There(is bool) Existence { return Existence{There: is} }

// Outcome is what is to be done with a gate.
type Outcome string

// What is to be done with a gate.
const (
	// Wait: something is missing.
	Wait Outcome = "wait"
	// Lift: everything that the policy requires holds.
	Lift Outcome = "lifted"
	// Release: something is missing, but the deadline has come and the policy says to lift the gate then.
	Release Outcome = "deadline"
	// Overflow: nodes are missing and waiting cannot help: nobody brings any while the pod is gated.
	Overflow Outcome = "overflow"
	// Deleted: the policy was deleted, and says that pods do not wait for ever.
	Deleted Outcome = "deleted"
)

// Clock says when a pod's deadline is.
type Clock struct {
	Now time.Time
	// Since is when the last gate of others went, or the pod's creation.
	Since time.Time
	// Paused says that others hold the pod too: the time is theirs.
	Paused bool
}

// ClockOf reads a pod's clock without having watched it. ours says which gates a policy lifts.
func ClockOf(pod *Pod, ours func(gate string) bool, now time.Time) Clock {
	c := Clock{Now: now, Since: pod.Created}
	for _, gate := range pod.Gates {
		c.Paused = c.Paused || !ours(gate)
	}
	return c
}

// Verdict is what a policy says of a pod at one moment.
type Verdict struct {
	Outcome Outcome
	// Unmet lists what is missing, in the order of the policy; empty when everything holds.
	Unmet []Unmet
	// Deadline is when the policy gives up waiting; under Hold nothing happens then. Zero while the clock is paused.
	Deadline time.Time
}

// WantsNodes says that nothing but nodes is missing: room, warm images, conditions.
func (v *Verdict) WantsNodes() bool {
	for _, u := range v.Unmet {
		switch u.Dependency.Kind {
		case KindImage, KindNodeCondition, KindRoom:
		default:
			return false
		}
	}
	return len(v.Unmet) > 0
}

// Unreadable says that something cannot be read.
func (v *Verdict) Unreadable() bool {
	for _, u := range v.Unmet {
		if u.Unknown && u.Problem != "" {
			return true
		}
	}
	return false
}

// Known says that what is missing was really looked for.
func (v *Verdict) Known() bool {
	for _, u := range v.Unmet {
		if u.Unknown && u.Problem == "" {
			return false
		}
	}
	return true
}

// Unmet is one thing that is missing.
type Unmet struct {
	Dependency Dependency
	// Have of Want are there. For an image: nodes where the pod could run now.
	Have, Want int
	// Seen counts the nodes on which an image is warm at all, whether the pod could run there or not.
	Seen int
	// Problem says why an object that is there does not do, or why nobody can tell whether it is.
	Problem string
	// Unknown says that nobody could find out yet.
	Unknown bool
}

// lacks is what is missing when a thing is not there.
func lacks(d Dependency, e Existence) Unmet {
	return Unmet{Dependency: d, Want: 1, Unknown: e.Unknown, Problem: e.Problem}
}

// String says what is missing, for a person.
func (u Unmet) String() string {
	if u.Unknown {
		if u.Problem == "" {
			return u.Dependency.String() + " has not been looked for yet"
		}
		return u.Dependency.String() + " cannot be read: " + u.Problem
	}
	switch u.Dependency.Kind {
	case KindImage:
		if u.Seen == 0 {
			return fmt.Sprintf("image %s is warm on no node", u.Dependency.Name)
		}
		return fmt.Sprintf("image %s is warm on %d nodes, the pod could run now with all of its images warm on %d, want %d",
			u.Dependency.Name, u.Seen, u.Have, u.Want)
	case KindWarmLabel:
		return fmt.Sprintf("label %s is about to be set on a warm node", u.Dependency.Name)
	case KindLastGate:
		return "placement Required: the gate goes with the pod's last one, and it has others"
	case KindNodeCondition:
		return fmt.Sprintf("condition %s is True on %d nodes where the pod could run, want %d", u.Dependency.Name, u.Have, u.Want)
	case KindService:
		return fmt.Sprintf("%s has %d ready endpoints, want %d", u.Dependency, u.Have, u.Want)
	case KindGang:
		return fmt.Sprintf("%s has %d waiting members, want %d", u.Dependency, u.Have, u.Want)
	case KindRoom:
		return fmt.Sprintf("%d members of the gang do not fit on the nodes together", u.Want)
	case KindPolicy:
		return u.Problem
	case KindObject, KindConfigMap, KindSecret:
		if u.Have > 0 {
			return fmt.Sprintf("%s: %s", u.Dependency, u.Problem)
		}
	default: // an object that the pod refers to
	}
	return u.Dependency.String() + " does not exist"
}

// Describe joins what is missing to one line; at most three things are named.
func Describe(unmet []Unmet) string {
	var parts []string
	for i, u := range unmet {
		if i == 3 {
			parts = append(parts, fmt.Sprintf("and %d more", len(unmet)-i))
			break
		}
		parts = append(parts, u.String())
	}
	return strings.Join(parts, "; ")
}

// Evaluate says what is to be done with the policy's gate on this pod at this moment. Where the policy requires a gang it
// speaks for the whole gang: Lift is then the decision to lift the gate from all of its members. The deadline is looked at
// whatever else is not known.
//
//	requirements  deadline  onDeadline  outcome
//	hold          any       any         Lift
//	missing       to come   any         Wait
//	missing       past      Hold        Wait
//	missing       past      Release     Release
//	any           any       Release     Deleted, where the policy was
func (p *Policy) Evaluate(pod *Pod, facts Facts, clock Clock) Verdict {
	v := Verdict{Outcome: Wait}
	if !clock.Paused {
		v.Deadline = clock.Since.Add(p.Deadline)
	}
	switch {
	case p.deleted:
		v.Unmet = []Unmet{{Dependency: Dependency{Kind: KindPolicy, Name: p.Name}, Problem: fmt.Sprintf("GatePolicy %s was deleted", p.Name)}}
		if !p.Hold {
			v.Outcome = Deleted
		}
		return v
	case p.NeedsFleet() && facts.FleetProblem != "":
		v.Unmet = []Unmet{{Dependency: Dependency{Kind: KindFleet, Name: "the nodes and their pods"}, Unknown: true, Problem: facts.FleetProblem}}
	default:
		if name, ok := p.Gang(pod); ok {
			v.Unmet = p.EvaluateGang(name, facts.Gang(name, p.GateName), facts, clock.Now)
		} else {
			v.Unmet = p.alone(pod, facts)
		}
	}
	switch {
	case len(v.Unmet) == 0:
		v.Outcome = Lift
	case !p.Hold && !clock.Paused && !clock.Now.Before(v.Deadline):
		v.Outcome = Release
	}
	return v
}

// alone judges a pod without regard to its gang.
func (p *Policy) alone(pod *Pod, facts Facts) []Unmet {
	var out []Unmet
	for _, r := range p.requirements {
		out = append(out, r.unmet(pod, facts)...)
	}
	return out
}
