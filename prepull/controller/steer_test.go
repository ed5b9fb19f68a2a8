package controller

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"headstart.dev/prepull"
	"headstart.dev/prepull/turn"
	"headstart.dev/prepull/v1alpha1"
)

// steered is a controller with one policy for nodes of pool a, and one node of it.
func steered() (*Controller, *policy, *member) {
	c := &Controller{fleet: newFleet(), byName: map[string]*policy{}}
	p := &policy{}
	p.setObject(&v1alpha1.PrepullPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: "web", UID: "uid", Generation: 1},
		Spec:       v1alpha1.PrepullPolicySpec{NodeSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"pool": "a"}}},
		Status:     v1alpha1.PrepullPolicyStatus{ObservedGeneration: 1, Images: pulledImages},
	}, noon)
	p.setSteering(noon)
	c.byName["web"] = p
	n := &member{name: "n1", agent: true, labels: map[string]string{"pool": "a"}}
	c.fleet.nodes[n.name] = n
	c.fleet.index.Set(n.name, has("r.example/a:v1", "r.example/b:v1"))
	return c, p, n
}

const webLabel = "prepull.headstart.dev/web"

func TestRelabel(t *testing.T) {
	labelled := func(n *member) { n.labels[webLabel] = "true" }
	cases := map[string]struct {
		change func(*Controller, *policy, *member)
		want   map[string]any
	}{
		"a node with all images is labelled": {want: map[string]any{webLabel: "true"}},
		"and that once":                      {change: func(_ *Controller, _ *policy, n *member) { labelled(n) }, want: map[string]any{}},
		"another value is put right":         {change: func(_ *Controller, _ *policy, n *member) { n.labels[webLabel] = "no" }, want: map[string]any{webLabel: "true"}},
		"a node that lost an image loses it": {
			change: func(c *Controller, _ *policy, n *member) { labelled(n); c.fleet.index.Set("n1", has("r.example/a:v1")) },
			want:   map[string]any{webLabel: nil},
		},
		"a node of another pool loses it": {
			change: func(_ *Controller, _ *policy, n *member) { labelled(n); n.labels["pool"] = "b" },
			want:   map[string]any{webLabel: nil},
		},
		"a node beyond maxNodes is none of it": {
			change: func(_ *Controller, p *policy, n *member) {
				labelled(n)
				p.obj.Status.Turn = &v1alpha1.Turn{Members: turn.Place("uid", "n1") - 1}
				p.setSteering(noon)
			},
			want: map[string]any{webLabel: nil},
		},
		"a policy with no image leads nowhere": {
			change: func(_ *Controller, p *policy, n *member) { labelled(n); p.obj.Status.Images = nil; p.setSteering(noon) },
			want:   map[string]any{webLabel: nil},
		},
		"images that are left out are not asked for": {
			change: func(c *Controller, p *policy, _ *member) {
				c.fleet.index.Set("n1", has("r.example/a:v1"))
				p.obj.Status.Images = []v1alpha1.ImageStatus{pulledImages[0], {Image: "r.example/b:v1", LeftOut: "too large"}}
				p.setSteering(noon)
			},
			want: map[string]any{webLabel: "true"},
		},
		"labels of no policy go, whoever put them there": {
			change: func(_ *Controller, _ *policy, n *member) {
				labelled(n)
				n.labels["prepull.headstart.dev/gone"] = "true"
			},
			want: map[string]any{"prepull.headstart.dev/gone": nil},
		},
		"a policy that is being deleted leads nowhere": {
			change: func(_ *Controller, p *policy, n *member) {
				labelled(n)
				p.obj.DeletionTimestamp = &metav1.Time{Time: noon}
			},
			want: map[string]any{webLabel: nil},
		},
		"a list that is being made changes nothing": {
			change: func(c *Controller, p *policy, n *member) {
				labelled(n)
				c.fleet.index.Set("n1", prepull.Inventory{})
				p.obj.Generation = 2
				p.setSteering(noon)
			},
			want: map[string]any{},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			c, p, n := steered()
			if tc.change != nil {
				tc.change(c, p, n)
			}
			change, again := c.relabel(n, noon)
			require.Equal(t, tc.want, change)
			require.Zero(t, again)
		})
	}
}

func TestNodeHasAWhileToTakeOverANewList(t *testing.T) {
	c, p, n := steered()
	n.labels[webLabel] = "true"
	moved := []v1alpha1.ImageStatus{{Image: "r.example/a:v1", Digest: "sha256:2222222222222222aaaa"}}
	p.obj.Status.Images = moved
	require.True(t, p.setSteering(noon))
	change, again := c.relabel(n, noon.Add(time.Second))
	require.Empty(t, change)
	require.Equal(t, noon.Add(steerGrace), again)

	change, again = c.relabel(n, noon.Add(steerGrace))
	require.Equal(t, map[string]any{webLabel: nil}, change, "it takes too long")
	require.Zero(t, again)

	delete(n.labels, webLabel)
	change, again = c.relabel(n, noon.Add(time.Second))
	require.Empty(t, change, "a node that had none gets none before it has the images")
	require.Equal(t, noon.Add(steerGrace), again)
}

func TestAnswerToAWriteIsNotUndoneByAnOlderEvent(t *testing.T) {
	f := newFleet()
	obj := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Name: "n1", ResourceVersion: "10"}}
	changed, err := f.set(obj)
	require.NoError(t, err)
	require.True(t, changed)
	f.nodes["n1"].labels, f.nodes["n1"].version = map[string]string{webLabel: "true"}, "12"
	older := obj.DeepCopy()
	older.ResourceVersion, older.Labels = "11", map[string]string{"a": "b"}
	changed, err = f.set(older)
	require.NoError(t, err)
	require.False(t, changed)
	require.Equal(t, map[string]string{webLabel: "true"}, f.nodes["n1"].labels)
}
