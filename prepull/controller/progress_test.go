package controller

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"headstart.dev/prepull"
	"headstart.dev/prepull/turn"
	"headstart.dev/prepull/v1alpha1"
)

var noon = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)

var pulledImages = []v1alpha1.ImageStatus{{Image: "r.example/a:v1", Digest: "sha256:1111111111111111aaaa"}, {Image: "r.example/b:v1"}}

func has(names ...string) prepull.Inventory {
	var inv prepull.Inventory
	for _, name := range names {
		inv.Warm = append(inv.Warm, prepull.InventoryImage{Name: name, Digest: "1111111111111111"})
	}
	return inv
}

// standing returns nodes that are ready, pulling, failed and without an agent, count of each.
func mixed(f *fleet, count int) []*member {
	var out []*member
	add := func(kind string, agent bool, inv prepull.Inventory) {
		for i := range count {
			n := &member{name: fmt.Sprintf("%s-%d", kind, i), agent: agent, failed: map[string]bool{}}
			for _, name := range inv.Failed {
				n.failed[name] = true
			}
			f.nodes[n.name] = n
			f.index.Set(n.name, inv)
			out = append(out, n)
		}
	}
	add("ready", true, has("r.example/a:v1", "r.example/b:v1"))
	add("pulling", true, has("r.example/a:v1"))
	half := has("r.example/b:v1")
	half.Failed = []string{"r.example/a:v1"}
	add("failed", true, half)
	add("silent", false, prepull.Inventory{})
	return out
}

func TestMeasure(t *testing.T) {
	f := newFleet()
	nodes := mixed(f, 5)
	cases := map[string]struct {
		maxNodes int32
		limits   pace
		before   *v1alpha1.Turn
		want     v1alpha1.NodeCounts
		having   []int32
		wantTurn bool
	}{
		"all nodes, nobody waits": {
			limits: pace{slots: 100, patience: time.Minute},
			want:   v1alpha1.NodeCounts{Matched: 20, Ready: 5, Pulling: 5, Failed: 5}, having: []int32{10, 10},
		},
		"fewer slots than nodes that pull": {
			limits: pace{slots: 3, patience: time.Minute}, wantTurn: true,
			want: v1alpha1.NodeCounts{Matched: 20, Ready: 5, Pulling: 5, Failed: 5}, having: []int32{10, 10},
		},
		"slots are for those that pull": {
			limits: pace{slots: 5, patience: time.Minute},
			want:   v1alpha1.NodeCounts{Matched: 20, Ready: 5, Pulling: 5, Failed: 5}, having: []int32{10, 10},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got := measure("uid", nodes, wantsOf(pulledImages, v1alpha1.ModeAuto), tc.maxNodes, f.index, tc.limits, tc.before, map[string]time.Time{}, noon)
			require.Equal(t, tc.want, got.counts)
			require.Equal(t, tc.having, got.having)
			require.Equal(t, tc.wantTurn, got.turn != nil)
		})
	}

	few := measure("uid", nodes, wantsOf(pulledImages, v1alpha1.ModeAuto), 7, f.index, pace{}, nil, map[string]time.Time{}, noon)
	require.Equal(t, int32(7), few.counts.Matched, "only nodes with an agent are chosen")
	require.Equal(t, few.counts.Matched, few.counts.Ready+few.counts.Pulling+few.counts.Failed)
}

func TestNodeThatHangsLosesItsSlot(t *testing.T) {
	f := newFleet()
	nodes := mixed(f, 4)
	holding := map[string]time.Time{}
	limits := pace{slots: 2, patience: time.Minute}
	first := measure("uid", nodes, wantsOf(pulledImages, v1alpha1.ModeAuto), 0, f.index, limits, nil, holding, noon)
	require.Len(t, holding, 2)
	require.Equal(t, noon.Add(time.Minute), first.expires, "it is looked again when that would help")

	later := measure("uid", nodes, wantsOf(pulledImages, v1alpha1.ModeAuto), 0, f.index, limits, first.turn, holding, noon.Add(time.Minute))
	require.Nil(t, later.turn, "the two that hang make room for the two that wait")
	require.Equal(t, int32(4), later.counts.Pulling, "they still count as what they are")
}

func TestDoorStaysWhileMostSlotsAreInUse(t *testing.T) {
	line := func(busy int) []turn.Node {
		var out []turn.Node
		for place := range int64(8) {
			out = append(out, turn.Node{Place: place, Busy: place < int64(busy)})
		}
		return out
	}
	before := &v1alpha1.Turn{Members: turn.Last, Open: 10}
	require.Equal(t, int64(10), calm(before, line(7), 11, 8))
	require.Equal(t, int64(14), calm(before, line(6), 14, 8))
	require.Equal(t, int64(5), calm(before, line(7), 5, 8), "a door that has to close does")
	require.Equal(t, int64(11), calm(nil, line(7), 11, 8))
}

func TestWholeImagesAreNotThereWhileTheyAreLazy(t *testing.T) {
	f := newFleet()
	n := &member{name: "n1", agent: true}
	inv := has("r.example/b:v1")
	inv.Lazy = has("r.example/a:v1").Warm
	f.index.Set("n1", inv)
	for mode, want := range map[v1alpha1.Mode]standing{v1alpha1.ModeAuto: ready, v1alpha1.ModeLazy: ready, v1alpha1.ModeEager: pulling} {
		require.Equal(t, want, look(n, wantsOf(pulledImages, mode), f.index), mode)
	}
}
