package nodestatus

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"headstart.dev/readiness/compat/guide"
	"headstart.dev/readiness/v1alpha1"
)

// forms are the resources of which the agent runs probes: our own rules and those of the guide, which are the same.
var forms = []schema.GroupVersion{v1alpha1.GroupVersion, guide.GroupVersion}

// FollowRules calls changed with every NodeReadinessRule, ours before the guide's and ordered by name, at first and
// whenever the spec of one changes, until ctx ends; never twice at once. It returns at once, and without an error, where
// there are no such resources or we may not read them: a question for ever would be one too many of an idle node.
func FollowRules(ctx context.Context, config *rest.Config, changed func([]v1alpha1.NodeReadinessRule)) error {
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("make client: %w", err)
	}
	var mu sync.Mutex
	parts := make([][]v1alpha1.NodeReadinessRule, len(forms))
	var group sync.WaitGroup
	for i, form := range forms {
		group.Go(func() {
			followForm(ctx, client.Resource(form.WithResource("nodereadinessrules")), func(rules []v1alpha1.NodeReadinessRule) {
				mu.Lock()
				defer mu.Unlock()
				parts[i] = rules
				changed(slices.Concat(parts...))
			})
		})
	}
	group.Wait()
	return nil
}

// followForm follows the rules of one resource until ctx ends, or until it is known that there is none to follow.
func followForm(ctx context.Context, resource dynamic.ResourceInterface, changed func([]v1alpha1.NodeReadinessRule)) {
	var retry backoff
	for {
		started := time.Now()
		err := followRules(ctx, resource, changed)
		if ctx.Err() != nil || apierrors.IsNotFound(err) || apierrors.IsForbidden(err) {
			return
		}
		if time.Since(started) > stableWatch {
			retry.reset()
		}
		if !retry.wait(ctx) {
			return
		}
	}
}

// followRules lists and then follows the rules until the stream ends.
func followRules(ctx context.Context, resource dynamic.ResourceInterface, changed func([]v1alpha1.NodeReadinessRule)) error {
	requestCtx, cancel := context.WithTimeout(ctx, requestTimeout)
	list, err := resource.List(requestCtx, metav1.ListOptions{})
	cancel()
	if err != nil {
		return fmt.Errorf("list rules: %w", err)
	}
	rules := map[string]v1alpha1.NodeReadinessRule{}
	for i := range list.Items {
		take(rules, &list.Items[i])
	}
	changed(byName(rules))
	stream, err := resource.Watch(ctx, metav1.ListOptions{ResourceVersion: list.GetResourceVersion(), AllowWatchBookmarks: true})
	if err != nil {
		return fmt.Errorf("watch rules: %w", err)
	}
	defer stream.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case event, open := <-stream.ResultChan():
			if !open {
				return nil
			}
			object, ok := event.Object.(*unstructured.Unstructured)
			switch {
			case event.Type == watch.Error:
				return apierrors.FromObject(event.Object)
			case !ok || event.Type == watch.Bookmark:
			case event.Type == watch.Deleted:
				delete(rules, object.GetName())
				changed(byName(rules))
			default:
				// The status of a rule changes every second while nodes come; only a new generation is a new spec.
				if take(rules, object) {
					changed(byName(rules))
				}
			}
		}
	}
}

// take decodes one rule, and says whether it has another spec than before. One that does not decode is left out.
func take(rules map[string]v1alpha1.NodeReadinessRule, object *unstructured.Unstructured) bool {
	known, ok := rules[object.GetName()]
	if ok && known.UID == object.GetUID() && known.Generation == object.GetGeneration() {
		return false
	}
	var rule v1alpha1.NodeReadinessRule
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, &rule); err != nil {
		delete(rules, object.GetName())
		return ok
	}
	rules[rule.Name] = rule
	return true
}

func byName(rules map[string]v1alpha1.NodeReadinessRule) []v1alpha1.NodeReadinessRule {
	return slices.SortedFunc(maps.Values(rules), func(a, b v1alpha1.NodeReadinessRule) int { return strings.Compare(a.Name, b.Name) })
}
