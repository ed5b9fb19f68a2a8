package controller

import (
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/types"
)

func TestSurplusEmptiesWholeNodesFirst(t *testing.T) {
	load := func(node string, others int, replicas ...string) nodeLoad {
		l := nodeLoad{node: node, others: others}
		for _, name := range replicas {
			l.replicas = append(l.replicas, types.NamespacedName{Name: name})
		}
		return l
	}
	loads := []nodeLoad{load("busy", 2, "b1"), load("big", 0, "c1", "c2", "c3"), load("small", 0, "a1"), load("pair", 0, "d1", "d2")}
	cases := map[string]struct {
		n    int
		want []string
	}{
		"none":                                 {0, nil},
		"fewer than none":                      {-2, nil},
		"one: the smallest node":               {1, []string{"a1"}},
		"two: a node, and one beside work":     {2, []string{"a1", "b1"}},
		"three: two nodes":                     {3, []string{"a1", "d1", "d2"}},
		"five: two nodes, beside work, a part": {5, []string{"a1", "d1", "d2", "b1", "c1"}},
		"six: three nodes and not the work's":  {6, []string{"a1", "d1", "d2", "c1", "c2", "c3"}},
		"more than there are":                  {99, []string{"a1", "d1", "d2", "c1", "c2", "c3", "b1"}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, key := range surplus(loads, tc.n) {
				got = append(got, key.Name)
			}
			require.Equal(t, tc.want, got)
		})
	}
}
