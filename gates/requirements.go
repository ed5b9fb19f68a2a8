package gates

import (
	"fmt"
	"slices"

	"headstart.dev/gates/v1alpha1"
)

// referencesRequirement: everything that the pod names exists.
type referencesRequirement struct{}

func (referencesRequirement) dependencies(pod *Pod) []Dependency {
	out := make([]Dependency, 0, len(pod.references.Objects))
	for _, ref := range pod.references.Objects {
		out = append(out, ref.in(pod.Namespace))
	}
	return out
}

func (referencesRequirement) unmet(pod *Pod, facts Facts) []Unmet {
	var out []Unmet
	for _, ref := range pod.references.Objects {
		dependency := ref.in(pod.Namespace)
		is := existence(dependency, facts)
		if !is.There && ref.Kind == KindSecret && slices.Contains(pod.references.Pull, ref.Name) {
			is = pullSecret(pod, ref.Name, is, facts)
		}
		if is.Denied && ref.Kind.MayBeDenied() {
			continue
		}
		if !is.There {
			out = append(out, lacks(dependency, is))
			continue
		}
		for _, key := range pod.references.Keys {
			if key.objectRef == ref && is.NamesKnown && !slices.Contains(is.Names, key.Key) {
				out = append(out, Unmet{Dependency: dependency, Have: 1, Want: 1, Problem: fmt.Sprintf("it has no key %s", key.Key)})
			}
		}
	}
	return out
}

func existence(d Dependency, facts Facts) Existence {
	if d.Kind == KindObject {
		_, is := facts.Object(d)
		return is
	}
	return facts.Exists(d)
}

// pullSecret judges a missing Secret that is for pulls alone: one that came from the ServiceAccount is not waited for.
func pullSecret(pod *Pod, name string, missing Existence, facts Facts) Existence {
	for _, ref := range pod.references.Objects {
		if ref.Kind != KindServiceAccount {
			continue
		}
		account := facts.Exists(ref.in(pod.Namespace))
		if account.Unknown || slices.Contains(account.Names, name) {
			return account
		}
	}
	return missing
}

// imagesRequirement: all images of the pod are warm on enough nodes where it could run now.
type imagesRequirement struct {
	minNodes int
	// overflow lets the pod go when the warm nodes are full.
	overflow bool
	// pullNodes is on how many nodes agents fetch the images at most; 0 where none is asked to.
	pullNodes int
	// allow are the registries whose images agents may be asked for.
	allow []string
}

func newImagesRequirement(r *v1alpha1.ImagesRequirement, overflow v1alpha1.Overflow) imagesRequirement {
	out := imagesRequirement{minNodes: max(int(r.MinNodes), 1), overflow: overflow == v1alpha1.OverflowRelease, allow: r.Allow}
	switch {
	case !r.Pull:
	case r.MaxPullNodes > 0:
		out.pullNodes = int(r.MaxPullNodes)
	default:
		out.pullNodes = max(defaultPullNodes, out.minNodes)
	}
	return out
}

func (imagesRequirement) dependencies(pod *Pod) []Dependency {
	out := make([]Dependency, 0, len(pod.Images))
	for _, image := range pod.Images {
		out = append(out, Dependency{Kind: KindImage, Name: image})
	}
	return out
}

func (r imagesRequirement) unmet(pod *Pod, facts Facts) []Unmet {
	if len(pod.Images) == 0 || facts.Fleet.holds(pod) {
		return nil
	}
	have := facts.Fleet.withRoom(pod.Shape, r.minNodes)
	if have >= r.minNodes || (r.overflow && len(facts.Fleet.warmNodes(pod.Shape)) >= r.minNodes) {
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

// nodesRequirement: enough nodes where the pod could run have a condition.
type nodesRequirement struct {
	condition string
	min       int
}

func (r nodesRequirement) dependencies(*Pod) []Dependency {
	return []Dependency{{Kind: KindNodeCondition, Name: r.condition}}
}

func (r nodesRequirement) unmet(pod *Pod, facts Facts) []Unmet {
	have := facts.Fleet.withCondition(pod.Shape, r.condition)
	if have >= r.min {
		return nil
	}
	return []Unmet{{Dependency: Dependency{Kind: KindNodeCondition, Name: r.condition}, Have: have, Want: r.min}}
}

// serviceRequirement: a Service has ready endpoints.
type serviceRequirement struct {
	namespace, name string
	min             int
}

func (r serviceRequirement) dependency(pod *Pod) Dependency {
	d := Dependency{Kind: KindService, Namespace: r.namespace, Name: r.name}
	if d.Namespace == "" {
		d.Namespace = pod.Namespace
	}
	return d
}

func (r serviceRequirement) dependencies(pod *Pod) []Dependency {
	return []Dependency{r.dependency(pod)}
}

func (r serviceRequirement) unmet(pod *Pod, facts Facts) []Unmet {
	dependency := r.dependency(pod)
	have, is := facts.ReadyEndpoints(dependency)
	if is.Unknown {
		return []Unmet{lacks(dependency, is)}
	}
	if have >= r.min {
		return nil
	}
	return []Unmet{{Dependency: dependency, Have: have, Want: r.min}}
}
