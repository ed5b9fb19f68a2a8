package gates

import (
	"fmt"
	"strings"
	"time"
)

// Facts are what is known of the cluster at one moment.
type Facts struct {
	// Exists says whether an object is there and not being deleted.
	Exists func(Dependency) bool
	// Object returns an object that an expression looks at, unless it is missing or being deleted.
	Object func(Dependency) (Object, bool)
	// ReadyEndpoints counts the ready endpoints of a Service.
	ReadyEndpoints func(Dependency) int
	// Gang says what is known of a gang and of who has its gate; it is asked only for policies that require one.
	Gang func(name Dependency, gate string) Gang
	// Fleet knows the nodes.
	Fleet *Fleet
}

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
)

// Verdict is what a policy says of a pod at one moment.
type Verdict struct {
	Outcome Outcome
	// Unmet lists what is missing, in the order of the policy; empty when everything holds.
	Unmet []Unmet
	// Deadline is when the policy gives up waiting; under Hold nothing happens then.
	Deadline time.Time
}

// Unmet is one thing that is missing.
type Unmet struct {
	Dependency Dependency
	// Have of Want are there. For an image: nodes where the pod could run now.
	Have, Want int
	// Seen counts the nodes on which an image is warm at all, whether the pod could run there or not.
	Seen int
	// Problem says why an object that is there does not do.
	Problem string
}

// String says what is missing, for a person.
func (u Unmet) String() string {
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
		return fmt.Sprintf("the %d members of the gang do not fit on the nodes together", u.Want)
	case KindObject:
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
// speaks for the whole gang: Lift is then the decision to lift the gate from all of its members.
//
//	requirements  deadline  onDeadline  outcome
//	hold          any       any         Lift
//	missing       to come   any         Wait
//	missing       past      Hold        Wait
//	missing       past      Release     Release
func (p *Policy) Evaluate(pod *Pod, facts Facts, now time.Time) Verdict {
	v := Verdict{Deadline: pod.Created.Add(p.Deadline)}
	if name, ok := p.Gang(pod); ok {
		v.Unmet = p.EvaluateGang(name, facts.Gang(name, p.GateName), facts, now)
	} else {
		v.Unmet = p.alone(pod, facts)
	}
	switch {
	case len(v.Unmet) == 0:
		v.Outcome = Lift
	case !p.Hold && !now.Before(v.Deadline):
		v.Outcome = Release
	default:
		v.Outcome = Wait
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
