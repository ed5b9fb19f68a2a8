package gates

import (
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"headstart.dev/gates/v1alpha1"
	"headstart.dev/prepull"
	"headstart.dev/readiness"
)

func TestPullTargets(t *testing.T) {
	type fleet map[string]string // node to CPU; "+" before it: warm; "!" before it: its pull has failed; "-": no agent
	cases := map[string]struct {
		nodes  fleet
		pods   int
		pull   Pull
		chosen []string
		want   []string
	}{
		"the emptiest first, as many as the pods need": {
			nodes: fleet{"a": "1", "b": "4", "c": "2"}, pods: 5, pull: Pull{Least: 1, Most: 10}, want: []string{"b", "c"},
		},
		"at most K":                           {nodes: fleet{"a": "1", "b": "1", "c": "1"}, pods: 3, pull: Pull{Least: 1, Most: 2}, want: []string{"a", "b"}},
		"at least minNodes":                   {nodes: fleet{"a": "8", "b": "8", "c": "8"}, pods: 1, pull: Pull{Least: 2, Most: 10}, want: []string{"a", "b"}},
		"warm nodes with room suffice":        {nodes: fleet{"a": "+4", "b": "4"}, pods: 4, pull: Pull{Least: 1, Most: 10}},
		"what warm nodes hold is not pulled":  {nodes: fleet{"a": "+2", "b": "4", "c": "4"}, pods: 5, pull: Pull{Least: 1, Most: 10}, want: []string{"b"}},
		"warm nodes count towards minNodes":   {nodes: fleet{"a": "+8", "b": "8", "c": "8"}, pods: 1, pull: Pull{Least: 2, Most: 10}, want: []string{"b"}},
		"two warm nodes are minNodes":         {nodes: fleet{"a": "+8", "b": "+8", "c": "8"}, pods: 1, pull: Pull{Least: 2, Most: 10}},
		"a full warm node is none":            {nodes: fleet{"a": "+0", "b": "2"}, pods: 1, pull: Pull{Least: 1, Most: 10}, want: []string{"b"}},
		"a node that is too small is none":    {nodes: fleet{"a": "0", "b": "2"}, pods: 9, pull: Pull{Least: 1, Most: 10}, want: []string{"b"}},
		"a node without an agent cannot pull": {nodes: fleet{"a": "-8", "b": "2"}, pods: 1, pull: Pull{Least: 1, Most: 10}, want: []string{"b"}},
		"one that failed comes last":          {nodes: fleet{"a": "!8", "b": "2"}, pods: 1, pull: Pull{Least: 1, Most: 10}, want: []string{"b"}},
		"one that failed is better than none": {nodes: fleet{"a": "!8"}, pods: 1, pull: Pull{Least: 1, Most: 10}, want: []string{"a"}},
		"who was chosen stays":                {nodes: fleet{"a": "8", "b": "2"}, pods: 1, pull: Pull{Least: 1, Most: 10}, chosen: []string{"b"}, want: []string{"b"}},
		"who was chosen and is warm by now stays while others pull": {
			nodes: fleet{"a": "+1", "b": "2"}, pods: 3, pull: Pull{Least: 1, Most: 10}, chosen: []string{"a", "b"}, want: []string{"a", "b"},
		},
		"who was chosen and is gone does not": {nodes: fleet{"b": "2"}, pods: 1, pull: Pull{Least: 1, Most: 10}, chosen: []string{"a"}, want: []string{"b"}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			f := NewFleet()
			for node, cpu := range tc.nodes {
				mark := cpu[0]
				var warm []string
				switch mark {
				case '+':
					warm = append(warm, app)
				case '!', '-':
				default:
					mark, cpu = 0, " "+cpu
				}
				object := makeNode(t, node, cpu[1:], warm...)
				switch mark {
				case '!':
					text, err := prepull.Inventory{Failed: []string{app}}.Encode()
					require.NoError(t, err)
					object.Annotations[readiness.AnnotationImages] = text
				case '-':
					delete(object.Annotations, readiness.AnnotationImages)
				}
				f.SetNode(ReadNode(object))
			}
			pod := makePod(t, NewShapes(), "p", "1")
			require.Equal(t, tc.want, f.PullTargets(pod.Shape, tc.pods, tc.pull, tc.chosen))
		})
	}
}

func TestPullIsAskedForByThePolicy(t *testing.T) {
	cases := map[string]struct {
		images v1alpha1.ImagesRequirement
		want   Pull
		ok     bool
	}{
		"not unless it says so": {v1alpha1.ImagesRequirement{MinNodes: 1}, Pull{}, false},
		"ten nodes by default":  {v1alpha1.ImagesRequirement{MinNodes: 1, Pull: true}, Pull{Least: 1, Most: 10}, true},
		"more where more must be warm": {
			v1alpha1.ImagesRequirement{MinNodes: 20, Pull: true}, Pull{Least: 20, Most: 20}, true,
		},
		"as many as it says": {v1alpha1.ImagesRequirement{MinNodes: 1, Pull: true, MaxPullNodes: 3}, Pull{Least: 1, Most: 3}, true},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			policy, err := Compile(&v1alpha1.GatePolicy{Spec: v1alpha1.GatePolicySpec{Requires: []v1alpha1.Requirement{{Images: &tc.images}}}})
			require.NoError(t, err)
			got, ok := policy.Pull()
			require.Equal(t, tc.want, got)
			require.Equal(t, tc.ok, ok)
		})
	}
}

func TestNamesArePulledWithTheirWholeDigest(t *testing.T) {
	spec := corev1.PodSpec{Containers: []corev1.Container{{Image: "nginx:1.29@" + someDigest}, {Image: "app"}, {Image: "NO IMAGE"}}}
	require.Equal(t, []string{"docker.io/library/app:latest", "docker.io/library/nginx@" + someDigest}, namesOf(&spec))
}
