// Package predicate evaluates CEL over one object, within bounds: users write the expression, and others the object. A
// Program is safe for concurrent use. Start from Compile.
package predicate

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/ext"
)

// cost bounds one evaluation, in CEL's units; a field read costs one. It is the limit that Kubernetes has for one
// expression of a CRD. Source: kubernetes apiserver/pkg/apis/cel/config.go@v0.37.2 (PerCallLimit).
const cost = 1_000_000

// listsVersion leaves out distinct, as the sets extension is left out: each compares everything with everything in one step
// that nothing interrupts. Comprehensions say the same and can be interrupted: a.all(x, x in b).
const listsVersion = 1

// Where the cost falls short, time does: comparing two large values is charged after it was done, once for each step of a
// comprehension. Steps are counted in look. An honest expression takes microseconds.
const (
	longest = 250 * time.Millisecond
	look    = 100
)

// Program is a compiled expression over the variable object.
type Program struct{ program cel.Program }

// Compile parses an expression and checks that it gives a bool, as far as can be told without an object.
func Compile(text string) (*Program, error) {
	env, err := cel.NewEnv(cel.Variable("object", cel.DynType), cel.OptionalTypes(), ext.Strings(), ext.Lists(ext.ListsVersion(listsVersion)))
	if err != nil {
		return nil, fmt.Errorf("make CEL environment: %w", err)
	}
	ast, issues := env.Compile(text)
	if err := issues.Err(); err != nil {
		return nil, fmt.Errorf("parse object.expression %q: %w", text, err)
	}
	if t := ast.OutputType(); !t.IsExactType(cel.BoolType) && !t.IsExactType(cel.DynType) {
		return nil, fmt.Errorf("parse object.expression %q: it gives %s, want bool: compare it, as in object.data.ready == 'true'", text, t)
	}
	program, err := env.Program(ast, cel.CostLimit(cost), cel.InterruptCheckFrequency(look))
	if err != nil {
		return nil, fmt.Errorf("plan object.expression %q: %w", text, err)
	}
	return &Program{program: program}, nil
}

// Holds returns nil where the expression is true of the object, and otherwise why it is not.
func (p *Program) Holds(object map[string]any) error {
	ctx, cancel := context.WithTimeout(context.Background(), longest)
	defer cancel()
	value, _, err := p.program.ContextEval(ctx, map[string]any{"object": object})
	if ctx.Err() != nil && err != nil {
		return fmt.Errorf("evaluate expression: it takes more than %v on this object: look at less of it", longest)
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
