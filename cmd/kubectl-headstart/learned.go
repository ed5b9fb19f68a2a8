package main

import (
	"context"
	"fmt"
	"io"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"headstart.dev/prepull/learn"
	prepullv1alpha1 "headstart.dev/prepull/v1alpha1"
)

// shownLearned is how many images of a ranking are shown beside those that are prepulled.
const shownLearned = 5

// writeLearned prints which images each PrepullPolicy with learn has seen pods start with. It is the last part of a
// status: whoever may not read it is warned and has the rest.
func (c *cluster) writeLearned(ctx context.Context, out io.Writer, warn func(string), now time.Time) error {
	list, err := c.core.CoreV1().ConfigMaps(metav1.NamespaceAll).List(ctx, metav1.ListOptions{LabelSelector: learn.Label + "=true"})
	if err != nil {
		warn(fmt.Sprintf("what policies learned is not shown: %v", err))
		return nil
	}
	for i := range list.Items {
		cm := &list.Items[i]
		policy := metav1.GetControllerOf(cm)
		if policy == nil || policy.Kind != "PrepullPolicy" {
			continue
		}
		if err := c.writeRanking(ctx, out, warn, policy.Name, cm, now); err != nil {
			return err
		}
	}
	return nil
}

func (c *cluster) writeRanking(ctx context.Context, out io.Writer, warn func(string), name string, cm *corev1.ConfigMap, now time.Time) error {
	obj, err := c.dynamic.Resource(prepullv1alpha1.GroupVersion.WithResource("prepullpolicies")).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		warn(fmt.Sprintf("what PrepullPolicy %q learned is not shown: %v", name, err))
		return nil
	}
	top, _, err := unstructured.NestedInt64(obj.Object, "spec", "learn", "top")
	if err != nil {
		return fmt.Errorf("read PrepullPolicy %q: %w", name, err)
	}
	text, _, err := unstructured.NestedString(obj.Object, "spec", "learn", "window")
	if err != nil {
		return fmt.Errorf("read PrepullPolicy %q: %w", name, err)
	}
	span, err := time.ParseDuration(text)
	if err != nil {
		return fmt.Errorf("read spec.learn.window of PrepullPolicy %q: %w", name, err)
	}
	window, err := learn.Decode(cm.BinaryData[learn.Key], span)
	if err != nil {
		warn(fmt.Sprintf("what PrepullPolicy %q learned cannot be read: %v", name, err))
		return nil
	}
	ranked := window.Rank(now)
	ranked = ranked[:min(len(ranked), int(top)+shownLearned)]
	if _, err := fmt.Fprintf(out, "\nPrepullPolicy %s learned in %s (* is prepulled, if it fits)\n", name, span); err != nil {
		return fmt.Errorf("print ranking: %w", err)
	}
	return learn.WriteTable(out, ranked, int(top))
}
