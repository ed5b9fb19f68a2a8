package gates

import (
	"iter"
	"slices"
	"strings"
	"unique"
)

// names is a set of names without a line break: sorted, and each with a line break before and after it. Nodes have the
// same twenty conditions by the thousand, so it is kept once for all that have the same.
type names string

// newNames makes a set; list is sorted in place.
func newNames(list []string) names {
	if len(list) == 0 {
		return ""
	}
	slices.Sort(list)
	return names(unique.Make("\n" + strings.Join(list, "\n") + "\n").Value())
}

func (n names) has(name string) bool { return strings.Contains(string(n), "\n"+name+"\n") }

func (n names) size() int { return max(0, strings.Count(string(n), "\n")-1) }

// all yields the names in order.
func (n names) all() iter.Seq[string] {
	return func(yield func(string) bool) {
		for name := range strings.SplitSeq(strings.Trim(string(n), "\n"), "\n") {
			if name != "" && !yield(name) {
				return
			}
		}
	}
}
