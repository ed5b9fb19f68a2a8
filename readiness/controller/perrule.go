package controller

import (
	"slices"

	"k8s.io/apimachinery/pkg/types"
)

// perRule maps the UIDs of rules to what a node holds for each. A node is bound to a few, and a Go map of one entry has
// room for eight: with thousands of nodes that is most of what they take.
type perRule[T any] []ruleValue[T]

type ruleValue[T any] struct {
	rule  types.UID
	value T
}

func (p perRule[T]) index(rule types.UID) int {
	return slices.IndexFunc(p, func(v ruleValue[T]) bool { return v.rule == rule })
}

func (p perRule[T]) get(rule types.UID) (value T, ok bool) {
	if i := p.index(rule); i >= 0 {
		return p[i].value, true
	}
	return value, false
}

func (p *perRule[T]) set(rule types.UID, value T) {
	if i := p.index(rule); i >= 0 {
		(*p)[i].value = value
		return
	}
	*p = append(*p, ruleValue[T]{rule, value})
}

func (p *perRule[T]) remove(rule types.UID) {
	if i := p.index(rule); i >= 0 {
		*p = slices.Delete(*p, i, i+1)
	}
}
