package gates

import (
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"headstart.dev/gates/v1alpha1"
)

// DefaultDeadline is how long a pod waits when its policy does not say.
const DefaultDeadline = 5 * time.Minute

// Policy is a GatePolicy, compiled. It is immutable.
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
}

// requirement is one compiled entry of spec.requires.
type requirement interface {
	// dependencies lists what a pod waits for by it.
	dependencies(pod *Pod) []Dependency
	// unmet lists what is missing; empty when the requirement holds.
	unmet(pod *Pod, facts Facts) []Unmet
}

// Compile reads a policy. The error says which field is wrong and what to write instead.
func Compile(policy *v1alpha1.GatePolicy) (*Policy, error) {
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
		compiled, err := compileRequirement(&spec.Requires[i])
		if err != nil {
			return nil, fmt.Errorf("compile spec.requires[%d]: %w", i, err)
		}
		p.requirements = append(p.requirements, compiled)
	}
	return p, nil
}

func compileRequirement(r *v1alpha1.Requirement) (requirement, error) {
	switch {
	case r.Images != nil:
		return imagesRequirement{minNodes: max(int(r.Images.MinNodes), 1)}, nil
	case r.References != nil:
		return referencesRequirement{}, nil
	default:
		return nil, fmt.Errorf("want one of images, references")
	}
}

// NeedsFleet says whether the policy cannot be evaluated without knowing the nodes.
func (p *Policy) NeedsFleet() bool {
	if p.Placement != v1alpha1.PlacementNone {
		return true
	}
	for _, r := range p.requirements {
		if _, ok := r.(imagesRequirement); ok {
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
	return out
}

type referencesRequirement struct{}

func (referencesRequirement) dependencies(pod *Pod) []Dependency {
	out := make([]Dependency, 0, len(pod.references))
	for _, ref := range pod.references {
		out = append(out, ref.in(pod.Namespace))
	}
	return out
}

func (referencesRequirement) unmet(pod *Pod, facts Facts) []Unmet {
	var out []Unmet
	for _, ref := range pod.references {
		if dependency := ref.in(pod.Namespace); !facts.Exists(dependency) {
			out = append(out, Unmet{Dependency: dependency, Want: 1})
		}
	}
	return out
}

type imagesRequirement struct{ minNodes int }

func (imagesRequirement) dependencies(pod *Pod) []Dependency {
	out := make([]Dependency, 0, len(pod.Images))
	for _, image := range pod.Images {
		out = append(out, Dependency{Kind: KindImage, Name: image})
	}
	return out
}

func (r imagesRequirement) unmet(pod *Pod, facts Facts) []Unmet {
	have := facts.Fleet.withRoom(pod.Shape, r.minNodes)
	if have >= r.minNodes || len(pod.Images) == 0 {
		return nil
	}
	// Name the image that is warm on the fewest nodes: that is the one to look after.
	rarest := pod.Images[0]
	for _, image := range pod.Images {
		if len(facts.Fleet.warm[image]) < len(facts.Fleet.warm[rarest]) {
			rarest = image
		}
	}
	return []Unmet{{
		Dependency: Dependency{Kind: KindImage, Name: rarest}, Have: have, Want: r.minNodes,
		Seen: len(facts.Fleet.warm[rarest]),
	}}
}
