package gates

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/ext"

	"headstart.dev/gates/v1alpha1"
)

// expressionCost bounds one evaluation, in CEL's units; a field read costs one. It is the limit that Kubernetes has for
// one expression of a CRD. Source: kubernetes apiserver/pkg/apis/cel/config.go@v0.37.2 (PerCallLimit).
const expressionCost = 1_000_000

// listsVersion leaves out distinct, as the sets extension is left out: each compares everything with everything in one step
// that nothing interrupts. Comprehensions say the same and can be interrupted: a.all(x, x in b).
const listsVersion = 1

// Where the cost falls short, time does: comparing two large values is charged after it was done, once for each step of a
// comprehension. Steps are counted in expressionLook. An honest expression takes microseconds.
const (
	expressionTime = 250 * time.Millisecond
	expressionLook = 100
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
	program cel.Program

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
	env, err := cel.NewEnv(cel.Variable("object", cel.DynType), cel.OptionalTypes(), ext.Strings(), ext.Lists(ext.ListsVersion(listsVersion)))
	if err != nil {
		return nil, fmt.Errorf("make CEL environment: %w", err)
	}
	ast, issues := env.Compile(r.Expression)
	if err := issues.Err(); err != nil {
		return nil, fmt.Errorf("parse object.expression %q: %w", r.Expression, err)
	}
	if t := ast.OutputType(); !t.IsExactType(cel.BoolType) && !t.IsExactType(cel.DynType) {
		return nil, fmt.Errorf("parse object.expression %q: it gives %s, want bool: compare it, as in object.data.ready == 'true'", r.Expression, t)
	}
	if out.program, err = env.Program(ast, cel.CostLimit(expressionCost), cel.InterruptCheckFrequency(expressionLook)); err != nil {
		return nil, fmt.Errorf("plan object.expression %q: %w", r.Expression, err)
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

func (r *objectRequirement) holds(content map[string]any) error {
	ctx, cancel := context.WithTimeout(context.Background(), expressionTime)
	defer cancel()
	value, _, err := r.program.ContextEval(ctx, map[string]any{"object": content})
	if ctx.Err() != nil && err != nil {
		return fmt.Errorf("evaluate expression: it takes more than %v on this object: look at less of it", expressionTime)
	}
	if err != nil {
		return fmt.Errorf("evaluate expression: %w", err)
	}
	holds, ok := value.Value().(bool)
	if !ok {
		return fmt.Errorf("evaluate expression: it gave %v, want true or false", value.Value())
	}
	if !holds {
		return errors.New("the expression is false")
	}
	return nil
}
