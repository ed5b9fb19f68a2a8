package warm_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"headstart.dev/prepull"
	"headstart.dev/prepull/warm"
)

func digest(i int) string { return fmt.Sprintf("sha256:%016x%048x", i, 0) }

func name(i int) string { return fmt.Sprintf("registry.example/app-%d:v1", i) }

func present(images ...int) []prepull.InventoryImage {
	var list []prepull.InventoryImage
	for _, i := range images {
		list = append(list, prepull.InventoryImage{Name: name(i), Digest: prepull.DigestPrefix(digest(i))})
	}
	return list
}

func TestIndex(t *testing.T) {
	var x warm.Index
	require.Empty(t, x.Nodes())
	require.Empty(t, x.Nodes(warm.Want{Name: name(1)}))

	x.Set("a", prepull.Inventory{Warm: present(1, 2)})
	x.Set("b", prepull.Inventory{Warm: present(2), Lazy: present(1)})
	x.Set("c", prepull.Inventory{})

	cases := map[string]struct {
		wants []warm.Want
		want  []string
	}{
		"no image is on every node":             {want: []string{"a", "b", "c"}},
		"by name":                               {wants: []warm.Want{{Name: name(2)}}, want: []string{"a", "b"}},
		"by name and digest":                    {wants: []warm.Want{{Name: name(2), Digest: digest(2)}}, want: []string{"a", "b"}},
		"the tag has moved since":               {wants: []warm.Want{{Name: name(2), Digest: digest(3)}}},
		"all of several images":                 {wants: []warm.Want{{Name: name(1)}, {Name: name(2)}}, want: []string{"a"}},
		"lazy is not warm":                      {wants: []warm.Want{{Name: name(1)}}, want: []string{"a"}},
		"lazy where that is accepted":           {wants: []warm.Want{{Name: name(1), Lazy: true}}, want: []string{"a", "b"}},
		"an image that nobody has":              {wants: []warm.Want{{Name: name(9)}}},
		"one that nobody has among one that is": {wants: []warm.Want{{Name: name(2)}, {Name: name(9)}}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			require.ElementsMatch(t, tc.want, x.Nodes(tc.wants...))
			for _, node := range []string{"a", "b", "c"} {
				require.Equal(t, slices.Contains(tc.want, node), x.Has(node, tc.wants...), "node %s", node)
			}
			require.False(t, x.Has("unknown", tc.wants...))
		})
	}
}

// TestIndexAgreesWithAScan replays random changes and compares every answer with a look at every inventory.
func TestIndexAgreesWithAScan(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var x warm.Index
	fleet := map[string]prepull.Inventory{}
	for range 1500 {
		node := fmt.Sprintf("node-%d", random.IntN(150))
		if random.IntN(4) == 0 {
			x.Delete(node)
			delete(fleet, node)
		} else {
			inv := prepull.Inventory{}
			for i := range 8 {
				switch random.IntN(6) {
				case 0, 1, 2:
					inv.Warm = append(inv.Warm, present(i)...)
				case 3:
					inv.Lazy = append(inv.Lazy, present(i)...)
				}
			}
			x.Set(node, inv)
			fleet[node] = inv
		}
		wants := []warm.Want{
			{Name: name(random.IntN(8)), Lazy: random.IntN(2) == 0},
			{Name: name(random.IntN(8)), Digest: digest(random.IntN(8))},
		}[:random.IntN(3)]
		want := []string{}
		for node, inv := range fleet {
			if len(warm.Missing(inv, wants)) == 0 {
				want = append(want, node)
			}
		}
		require.ElementsMatch(t, want, x.Nodes(wants...))
	}
}

func TestIndexForgetsWhatNoNodeHas(t *testing.T) {
	var x warm.Index
	// A node that publishes ever new names must not fill the controller's memory.
	for i := range 1000 {
		x.Set("hostile", prepull.Inventory{Warm: present(i)})
	}
	require.Empty(t, x.Nodes(warm.Want{Name: name(5)}))
	require.Equal(t, []string{"hostile"}, x.Nodes(warm.Want{Name: name(999)}))
	x.Delete("hostile")
	require.Equal(t, 0, warm.Images(&x))
}

func TestMissingKeepsTheOrder(t *testing.T) {
	inv := prepull.Inventory{Warm: present(2)}
	wants := []warm.Want{{Name: name(3)}, {Name: name(2)}, {Name: name(1)}}
	require.Equal(t, []warm.Want{{Name: name(3)}, {Name: name(1)}}, warm.Missing(inv, wants))
	require.Len(t, wants, 3, "the caller's list stays")
}

// largeFleet is 5,000 nodes with 50 images each (100 in the whole fleet), 4,000 of which have all, and 50 wants.
func largeFleet(random *rand.Rand) (*warm.Index, []warm.Want) {
	x := &warm.Index{}
	for i := range 5000 {
		x.Set(fmt.Sprintf("ip-10-0-%d-%d.ec2.internal", i/256, i%256), prepull.Inventory{Warm: present(random.Perm(100)[:50]...)})
	}
	all := prepull.Inventory{Warm: present(random.Perm(100)...)}
	for i := range 4000 {
		x.Set(fmt.Sprintf("ip-10-0-%d-%d.ec2.internal", i/256, i%256), all)
	}
	var wants []warm.Want
	for i := range 50 {
		wants = append(wants, warm.Want{Name: name(i), Digest: digest(i)})
	}
	return x, wants
}

// TestIndexAnswersWithinAMillisecond takes the best of many answers: what others do on the machine is not the index's.
func TestIndexAnswersWithinAMillisecond(t *testing.T) {
	x, wants := largeFleet(rand.New(rand.NewPCG(3, 4)))
	best := time.Hour
	for range 100 {
		began := time.Now()
		nodes := x.Nodes(wants...)
		best = min(best, time.Since(began))
		require.GreaterOrEqual(t, len(nodes), 4000)
	}
	t.Logf("which of 5,000 nodes have these 50 images: %v", best)
	require.Less(t, best, time.Millisecond)
}

// BenchmarkIndex prints what one question costs in a large fleet, and what one node's change costs.
func BenchmarkIndex(b *testing.B) {
	random := rand.New(rand.NewPCG(3, 4))
	x, wants := largeFleet(random)
	b.Run("which nodes have these 50 images", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if n := len(x.Nodes(wants...)); n < 4000 {
				b.Fatal(n)
			}
		}
	})
	b.Run("which nodes have this image", func(b *testing.B) {
		for b.Loop() {
			x.Nodes(wants[0])
		}
	})
	b.Run("a node publishes anew", func(b *testing.B) {
		inv := prepull.Inventory{Warm: present(random.Perm(100)[:50]...)}
		for b.Loop() {
			x.Set("ip-10-0-18-1.ec2.internal", inv)
		}
	})
}
