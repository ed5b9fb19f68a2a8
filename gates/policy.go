package gates

import (
	"errors"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"headstart.dev/gates/v1alpha1"
)

// DefaultDeadline is how long a pod waits when its policy does not say.
const DefaultDeadline = 5 * time.Minute

// Policy is a GatePolicy, compiled. Its fields are immutable.
type Policy struct {
	Name string
	UID  types.UID
	// Generation is that of the spec it was compiled from.
	Generation int64
	// GateName is the gate that the policy lifts.
	GateName string
	// Deadline is how long a pod waits at most, counted from its creation.
	Deadline time.Duration
	// Hold keeps the gate when the deadline has come.
	Hold bool
	// Placement says how pods are steered.
	Placement v1alpha1.Placement

	requirements []requirement
	gang         *v1alpha1.GangRequirement
}

// requirement is one compiled entry of spec.requires that is judged for each pod alone.
type requirement interface {
	// dependencies lists what a pod waits for by it.
	dependencies(pod *Pod) []Dependency
	// unmet lists what is missing; empty when the requirement holds.
	unmet(pod *Pod, facts Facts) []Unmet
}

// Compile reads a policy. The error says which field is wrong and what to write instead.
func Compile(policy *v1alpha1.GatePolicy) (*Policy, error) {
	if policy.Unreadable != "" {
		return nil, errors.New(policy.Unreadable)
	}
	spec := &policy.Spec
	p := &Policy{
		Name: policy.Name, UID: policy.UID, Generation: policy.Generation, GateName: spec.GateName,
		Deadline: DefaultDeadline, Hold: spec.OnDeadline == v1alpha1.OnDeadlineHold, Placement: spec.Placement,
	}
	if spec.Deadline != nil {
		p.Deadline = spec.Deadline.Duration
	}
	if p.Placement == "" {
		p.Placement = v1alpha1.PlacementPreferred
	}
	for i := range spec.Requires {
		r := &spec.Requires[i]
		if r.Gang != nil {
			gang := *r.Gang
			p.gang = &gang
			continue
		}
		compiled, err := compileRequirement(r, spec.Overflow)
		if err != nil {
			return nil, fmt.Errorf("compile spec.requires[%d]: %w", i, err)
		}
		p.requirements = append(p.requirements, compiled)
	}
	if p.Placement == v1alpha1.PlacementRequired {
		p.requirements = append(p.requirements, steeringRequirement{})
	}
	return p, nil
}

func compileRequirement(r *v1alpha1.Requirement, overflow v1alpha1.Overflow) (requirement, error) {
	switch {
	case r.Images != nil:
		return newImagesRequirement(r.Images, overflow), nil
	case r.References != nil:
		return referencesRequirement{}, nil
	case r.Nodes != nil:
		return nodesRequirement{condition: r.Nodes.Condition, min: max(int(r.Nodes.Min), 1)}, nil
	case r.Object != nil:
		return compileObject(r.Object)
	case r.Service != nil:
		return serviceRequirement{namespace: r.Service.Namespace, name: r.Service.Name, min: max(int(r.Service.MinReadyEndpoints), 1)}, nil
	default:
		return nil, errors.New("want one of images, references, nodes, object, service, gang")
	}
}

// Labels says whether the policy leads pods by labels on nodes.
func (p *Policy) Labels() bool { return p.Placement == v1alpha1.PlacementRequired }

// NeedsFleet says whether the policy cannot be evaluated without knowing the nodes.
func (p *Policy) NeedsFleet() bool {
	if p.Placement != v1alpha1.PlacementNone || p.gang != nil {
		return true
	}
	for _, r := range p.requirements {
		switch r.(type) {
		case imagesRequirement, nodesRequirement:
			return true
		}
	}
	return false
}

// Dependencies lists what the pod waits for by this policy.
func (p *Policy) Dependencies(pod *Pod) []Dependency {
	var out []Dependency
	for _, r := range p.requirements {
		out = append(out, r.dependencies(pod)...)
	}
	if gang, ok := p.Gang(pod); ok {
		out = append(out, gang, Dependency{Kind: KindRoom})
	}
	return out
}

// Gang names the gang that the pod belongs to by this policy. ok is false when the policy asks for none. A pod without
// the label is in a gang of its own that never is complete. Policies of two gates have a gang each of the same pods: what
// holds for one gate says nothing of the other.
func (p *Policy) Gang(pod *Pod) (gang Dependency, ok bool) {
	if p.gang == nil {
		return gang, false
	}
	return Dependency{Kind: KindGang, Type: p.GateName, Namespace: pod.Namespace, Name: p.gang.Label + "=" + pod.Labels[p.gang.Label]}, true
}

// GangLabel is the key of the label whose value names a gang; empty when the policy asks for none.
func (p *Policy) GangLabel() string {
	if p.gang == nil {
		return ""
	}
	return p.gang.Label
}
