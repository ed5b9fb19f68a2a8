package nodewatch

import corev1 "k8s.io/api/core/v1"

// follower is a Handler whose type is forgotten.
type follower interface {
	read(in *corev1.Node) any
	set(view any)
	gone(name string)
	// replace takes the views at index, and, by name, the Nodes that were known and are not in the list.
	replace(index int, list []*item, gone map[string]map[string]string)
}

type typed[T any] struct{ h Handler[T] }

func (t typed[T]) read(in *corev1.Node) any { return t.h.Read(in) }

func (t typed[T]) set(view any) {
	if v, ok := view.(T); ok {
		t.h.Set(v)
	}
}

func (t typed[T]) gone(name string) { t.h.Delete(name) }

func (t typed[T]) replace(index int, list []*item, gone map[string]map[string]string) {
	if t.h.Replace == nil {
		for name := range gone {
			t.h.Delete(name)
		}
		for _, one := range list {
			t.set(one.views[index])
		}
		return
	}
	views := make([]T, 0, len(list))
	for _, one := range list {
		if v, ok := one.views[index].(T); ok {
			views = append(views, v)
		}
	}
	t.h.Replace(views)
}
