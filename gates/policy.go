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
	// Deadline is how long a pod waits at most, counted from its creation or from when the last gate of others went.
	Deadline time.Duration
	// Hold keeps the gate when the deadline has come.
	Hold bool
	// Placement says how pods are steered.
	Placement v1alpha1.Placement

	// Overflow says what happens where waiting for nodes cannot help.
	Overflow v1alpha1.Overflow
	// Provokes says that capacity comes because pods wait.
	Provokes bool

	requirements []requirement
	gang         *v1alpha1.GangRequirement
	// broken is why requirements could not be read; there are none then, and nothing but the deadline lifts the gate.
	broken error
	// leaving says that its object is gone, deleted that its pods go too.
	leaving, deleted bool
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
	p.Overflow, p.Provokes = spec.Overflow, spec.WarmPool != nil
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

// CompileDeadline reads of a policy that cannot be compiled what it says of time: whoever gets a policy wrong must not hold
// pods for ever by it.
func CompileDeadline(policy *v1alpha1.GatePolicy, broken error) *Policy {
	timeOnly := policy.DeepCopy()
	timeOnly.Spec.Requires, timeOnly.Spec.Placement = nil, v1alpha1.PlacementNone
	p, err := Compile(timeOnly)
	if err != nil {
		p = &Policy{Name: policy.Name, UID: policy.UID, Generation: policy.Generation, GateName: policy.Spec.GateName, Deadline: DefaultDeadline}
	}
	p.broken = broken
	p.requirements = []requirement{brokenRequirement{broken}}
	return p
}

// Leaving is the policy when its object has just gone: whoever replaces a policy deletes it first, so pods go on waiting by
// it for a moment. It has nobody pull images any more.
func (p *Policy) Leaving() *Policy {
	out := *p
	out.leaving = true
	return &out
}

// AfterDeletion is the policy once its object is gone: pods that wait by it are let go, unless it says Hold.
func (p *Policy) AfterDeletion() *Policy {
	out := *p
	out.deleted = true
	out.Generation = -1
	return &out
}

// Broken says that the policy is not in force but for its deadline.
func (p *Policy) Broken() bool { return p.broken != nil }

// Deleted says that the policy is there no more but for the pods that wait by it.
func (p *Policy) Deleted() bool { return p.deleted }

// brokenRequirement is what a policy requires that could not be read: it never holds.
type brokenRequirement struct{ err error }

func (brokenRequirement) dependencies(*Pod) []Dependency { return nil }

func (r brokenRequirement) unmet(*Pod, Facts) []Unmet {
	return []Unmet{{Dependency: Dependency{Kind: KindPolicy}, Problem: "the policy cannot be carried out: " + r.err.Error()}}
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
		if source, ok := p.sizeSource(pod); ok {
			out = append(out, source)
		}
	}
	return out
}
