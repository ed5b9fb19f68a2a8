package gates

import (
	"strings"
	"sync"

	"headstart.dev/gates/v1alpha1"
	"headstart.dev/internal/predicate"
)

// verdictsKept bounds how many results an expression remembers: one for each object that its pods' namespaces have.
const verdictsKept = 1024

// Object is an object that an expression looks at.
type Object struct {
	// Version changes whenever Content does.
	Version string
	Content map[string]any
}

// objectRequirement: an object exists and an expression over it is true.
type objectRequirement struct {
	apiVersion, kind, namespace, name string
	// program is nil when the object need only exist.
	program *predicate.Program

	mu       sync.Mutex
	verdicts map[Dependency]objectVerdict
}

// objectVerdict is what the expression gave for one version of an object: ten thousand pods ask the same question.
type objectVerdict struct {
	version string
	holds   bool
	problem string
}

func compileObject(r *v1alpha1.ObjectRequirement) (*objectRequirement, error) {
	out := &objectRequirement{
		apiVersion: r.APIVersion, kind: r.Kind, namespace: r.Namespace, name: r.Name, verdicts: map[Dependency]objectVerdict{},
	}
	if strings.TrimSpace(r.Expression) == "" {
		return out, nil
	}
	var err error
	if out.program, err = predicate.Compile(r.Expression); err != nil {
		return nil, err
	}
	return out, nil
}

func (r *objectRequirement) dependency(pod *Pod) Dependency {
	d := Dependency{Kind: KindObject, Type: r.apiVersion + "/" + r.kind, Namespace: r.namespace, Name: r.name}
	if d.Namespace == "" {
		d.Namespace = pod.Namespace
	}
	return d
}

func (r *objectRequirement) dependencies(pod *Pod) []Dependency {
	return []Dependency{r.dependency(pod)}
}

func (r *objectRequirement) unmet(pod *Pod, facts Facts) []Unmet {
	dependency := r.dependency(pod)
	object, is := facts.Object(dependency)
	if !is.There {
		return []Unmet{lacks(dependency, is)}
	}
	if r.program == nil {
		return nil
	}
	verdict := r.verdict(dependency, object)
	if verdict.holds {
		return nil
	}
	return []Unmet{{Dependency: dependency, Have: 1, Want: 1, Problem: verdict.problem}}
}

func (r *objectRequirement) verdict(dependency Dependency, object Object) objectVerdict {
	r.mu.Lock()
	defer r.mu.Unlock()
	if known, ok := r.verdicts[dependency]; ok && known.version == object.Version {
		return known
	}
	if len(r.verdicts) >= verdictsKept {
		clear(r.verdicts)
	}
	verdict := objectVerdict{version: object.Version}
	if err := r.holds(object.Content); err != nil {
		verdict.problem = err.Error()
	} else {
		verdict.holds = true
	}
	r.verdicts[dependency] = verdict
	return verdict
}

func (r *objectRequirement) holds(content map[string]any) error { return r.program.Holds(content) }
