package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"headstart.dev/readiness/v1alpha1"
)

const flipped = "headstart.dev/ImagesReady"

func nodeName(i int) string {
	return fmt.Sprintf("ip-10-%03d-%03d-%03d.eu-central-1.compute.internal", i>>16, i>>8&255, i&255)
}

func (b *bench) taints() []corev1.Taint {
	var out []corev1.Taint
	for i := range b.rules {
		out = append(out, corev1.Taint{Key: fmt.Sprintf("readiness.k8s.io/bench-%d", i), Value: "pending", Effect: corev1.TaintEffectNoSchedule})
	}
	return out
}

// realNode is of the size that nodes of a cloud have: about 20 labels, 20 conditions and 20 images.
func (b *bench) realNode(i int) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: nodeName(i), Labels: map[string]string{"pool": "bench"}, Annotations: map[string]string{
		"csi.volume.kubernetes.io/nodeid":                        fmt.Sprintf(`{"ebs.csi.aws.com":"i-%017x"}`, i),
		"volumes.kubernetes.io/controller-managed-attach-detach": "true",
	}}}
	for l := range 19 {
		n.Labels[fmt.Sprintf("topology.example.com/attribute-%02d", l)] = fmt.Sprintf("value-of-some-length-%d", (i*l)%7)
	}
	n.Spec.Taints = b.taints()
	n.Spec.ProviderID = fmt.Sprintf("aws:///eu-central-1a/i-%017x", i)
	return n
}

func (b *bench) realStatus() *corev1.NodeStatus {
	now := metav1.NewTime(time.Now().Truncate(time.Second))
	s := &corev1.NodeStatus{
		NodeInfo: corev1.NodeSystemInfo{BootID: "e4a7a1a0-3f5c-4f21-9d0b-000000000001", KubeletVersion: "v1.37.2", OSImage: "Amazon Linux 2023", KernelVersion: "6.12.0"},
		Allocatable: corev1.ResourceList{
			corev1.ResourceCPU: resource.MustParse("15890m"), corev1.ResourceMemory: resource.MustParse("28Gi"),
			corev1.ResourcePods: resource.MustParse("110"), corev1.ResourceEphemeralStorage: resource.MustParse("95551679124"),
		},
	}
	s.Capacity = s.Allocatable
	for c := range 19 {
		s.Conditions = append(s.Conditions, corev1.NodeCondition{
			Type: corev1.NodeConditionType(fmt.Sprintf("example.com/Condition%02d", c)), Status: corev1.ConditionTrue,
			Reason: "SomeReason", Message: "a message of the length that messages of conditions usually have",
			LastHeartbeatTime: now, LastTransitionTime: now,
		})
	}
	s.Conditions = append(s.Conditions, corev1.NodeCondition{Type: flipped, Status: corev1.ConditionFalse, Reason: "Pulling", LastHeartbeatTime: now, LastTransitionTime: now})
	for m := range 20 {
		repo := fmt.Sprintf("111122223333.dkr.ecr.eu-central-1.amazonaws.com/team/service-%02d", m)
		s.Images = append(s.Images, corev1.ContainerImage{Names: []string{
			fmt.Sprintf("%s@sha256:%064x", repo, m), fmt.Sprintf("%s:v1.%d.0", repo, m),
		}, SizeBytes: 123456789})
	}
	return s
}

// createFleet makes the nodes, tainted and not ready.
func (b *bench) createFleet(ctx context.Context) error {
	status, err := json.Marshal(map[string]any{"status": b.realStatus()})
	if err != nil {
		return err
	}
	return b.each(ctx, b.nodes, func(ctx context.Context, i int) error {
		if _, err := b.client.CoreV1().Nodes().Create(ctx, b.realNode(i), metav1.CreateOptions{}); err != nil {
			return err
		}
		return b.patch(ctx, i, types.StrategicMergePatchType, status, "status")
	})
}

// resetFleet makes every node what createFleet left.
func (b *bench) resetFleet(ctx context.Context) error {
	spec, err := json.Marshal(map[string]any{
		"metadata": map[string]any{
			"annotations": map[string]any{"headstart.dev/readiness": nil},
			"labels":      map[string]any{"headstart.dev/images-ready": nil},
		},
		"spec": map[string]any{"taints": b.taints()},
	})
	if err != nil {
		return err
	}
	return b.each(ctx, b.nodes, func(ctx context.Context, i int) error {
		if err := b.patch(ctx, i, types.StrategicMergePatchType, flipPatch(corev1.ConditionFalse), "status"); err != nil {
			return err
		}
		return b.patch(ctx, i, types.MergePatchType, spec)
	})
}

func flipPatch(status corev1.ConditionStatus) []byte {
	now := time.Now().UTC().Format(time.RFC3339)
	return fmt.Appendf(nil, `{"status":{"conditions":[{"type":%q,"status":%q,"reason":"Bench","lastHeartbeatTime":%q,"lastTransitionTime":%q}]}}`, flipped, status, now, now)
}

// createRules makes rules that all wait for the one condition, each with a taint of its own.
func (b *bench) createRules(ctx context.Context) error {
	for i, taint := range b.taints() {
		rule := &v1alpha1.NodeReadinessRule{
			TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "NodeReadinessRule"},
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("bench-%d", i)},
			Spec: v1alpha1.NodeReadinessRuleSpec{
				NodeSelector:     &metav1.LabelSelector{MatchLabels: map[string]string{"pool": "bench"}},
				Conditions:       []v1alpha1.RequiredCondition{{Type: flipped}},
				Taint:            v1alpha1.RuleTaint{Key: taint.Key},
				ReadinessTimeout: &metav1.Duration{Duration: time.Hour},
			},
		}
		if err := b.rulesClient.Create(ctx, rule); err != nil {
			return err
		}
	}
	return nil
}

// each runs f for 0..n-1 from as many writers as agents report at once, in order.
func (b *bench) each(ctx context.Context, n int, f func(context.Context, int) error) error {
	group, ctx := errgroup.WithContext(ctx)
	next := make(chan int)
	group.Go(func() error {
		defer close(next)
		for i := range n {
			select {
			case next <- i:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	for range writers {
		group.Go(func() error {
			for i := range next {
				if err := f(ctx, i); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}

// patch is a raw patch of a Node, answered with its metadata only.
func (b *bench) patch(ctx context.Context, i int, kind types.PatchType, body []byte, sub ...string) error {
	_, err := b.metadata.Patch(ctx, nodeName(i), kind, body, metav1.PatchOptions{}, sub...)
	return err
}
