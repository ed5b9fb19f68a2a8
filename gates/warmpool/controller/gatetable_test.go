package controller

import (
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"headstart.dev/gates/v1alpha1"
)

func TestOnlyPodsThatAreOursToStartAskForCapacity(t *testing.T) {
	gates := func(names ...string) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			for _, name := range names {
				p.Spec.SchedulingGates = append(p.Spec.SchedulingGates, corev1.PodSchedulingGate{Name: name})
			}
		}
	}
	const ours, plain, queue = "example.com/ours", "example.com/plain", "kueue.x-k8s.io/admission"
	cases := map[string]struct {
		change func(*corev1.Pod)
		want   int64
	}{
		"our gate alone holds it":               {gates(ours), micro},
		"a gate of ours that brings nothing":    {gates(plain), 0},
		"two gates of ours":                     {gates(plain, ours), micro},
		"a queue holds it too":                  {gates(queue, ours), 0},
		"a pod that the nodes are not for":      {func(p *corev1.Pod) { gates(ours)(p); p.Spec.NodeSelector = map[string]string{"pool": "other"} }, 0},
		"a pod that asks for more of its nodes": {func(p *corev1.Pod) { gates(ours)(p); p.Spec.NodeSelector = map[string]string{"disk": "ssd"} }, micro},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			f := newFixture(nil)
			policy := func(gate string, pool *v1alpha1.WarmPoolReference) {
				f.setPolicy(types.UID(gate), &v1alpha1.GatePolicy{Spec: v1alpha1.GatePolicySpec{GateName: gate, WarmPool: pool}})
			}
			policy(plain, nil)
			policy(ours, &v1alpha1.WarmPoolReference{Namespace: poolKey.Namespace, Name: poolKey.Name})
			f.see("web", tc.change)
			require.Equal(t, tc.want, f.pool().gatedSum)
			f.setPolicy(types.UID(ours), nil)
			require.Zero(t, f.pool().gatedSum)
		})
	}
}
