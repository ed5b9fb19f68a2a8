package nodestatus

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"headstart.dev/readiness"
	"headstart.dev/readiness/compat/guide"
	"headstart.dev/readiness/v1alpha1"
)

// forms are the resources of which the agent runs probes: our own rules and those of the guide, which are the same.
var forms = []schema.GroupVersion{v1alpha1.GroupVersion, guide.GroupVersion}

// askGap is how long a resource that is not there is not asked for again, whatever the Node shows.
const askGap = 5 * time.Second

// RuleFollower follows the rules, connection after connection. Where there is no such resource, or we may not read it, it
// does not ask for ever, since an idle node asks nothing: it asks again when the Node shows that a rule governs it. A
// rule comes to every Node that it holds by a taint and in the controller's record, and both are in a watch that is
// there anyway.
type RuleFollower struct {
	log logr.Logger

	mu     sync.Mutex
	sign   string
	signed chan struct{} // closed and replaced when sign changes

	rulesMu sync.Mutex
	rules   [][]v1alpha1.NodeReadinessRule // of each form, as last seen: a new connection lists one form after the other
}

// NewRuleFollower returns one that has seen no Node yet.
func NewRuleFollower(log logr.Logger) *RuleFollower {
	return &RuleFollower{log: log, signed: make(chan struct{}), rules: make([][]v1alpha1.NodeReadinessRule, len(forms))}
}

// NodeSeen is to be called with every state of the Node.
func (f *RuleFollower) NodeSeen(node *corev1.Node) {
	sign := signOf(node)
	f.mu.Lock()
	defer f.mu.Unlock()
	if sign != f.sign {
		f.sign = sign
		close(f.signed)
		f.signed = make(chan struct{})
	}
}

// signOf renders what rules have put on a Node.
func signOf(node *corev1.Node) string {
	signs := []string{node.Annotations[readiness.AnnotationReadiness]}
	for _, taint := range node.Spec.Taints {
		if strings.HasPrefix(taint.Key, readiness.TaintPrefix) {
			signs = append(signs, taint.Key)
		}
	}
	slices.Sort(signs)
	return strings.Join(signs, "\n")
}

func (f *RuleFollower) next() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.signed
}

// Follow calls changed with every NodeReadinessRule, ours before the guide's and ordered by name, at first and whenever
// the spec of one changes, until ctx ends; never twice at once.
func (f *RuleFollower) Follow(ctx context.Context, config *rest.Config, changed func([]v1alpha1.NodeReadinessRule)) error {
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("make client: %w", err)
	}
	var group sync.WaitGroup
	for i, form := range forms {
		group.Go(func() {
			f.followForm(ctx, form.Group, client.Resource(form.WithResource("nodereadinessrules")), func(rules []v1alpha1.NodeReadinessRule, there bool) {
				f.rulesMu.Lock()
				defer f.rulesMu.Unlock()
				if !there && len(f.rules[i]) == 0 {
					return
				}
				f.rules[i] = rules
				changed(slices.Concat(f.rules...))
			})
		})
	}
	group.Wait()
	return nil
}

// followForm follows the rules of one resource until ctx ends. changed is told whether there is such a resource.
func (f *RuleFollower) followForm(
	ctx context.Context, group string, resource dynamic.ResourceInterface, changed func(rules []v1alpha1.NodeReadinessRule, there bool),
) {
	var retry backoff
	for {
		started, sign := time.Now(), f.next()
		err := followRules(ctx, resource, func(rules []v1alpha1.NodeReadinessRule) { changed(rules, true) })
		switch {
		case ctx.Err() != nil:
			return
		case apierrors.IsNotFound(err) || apierrors.IsForbidden(err):
			if apierrors.IsNotFound(err) {
				changed(nil, false) // and with it its rules are gone
			}
			f.log.V(1).Info("there are no readiness rules to read, asks again when the node shows signs of one", "group", group, "cause", err.Error())
			if !await(ctx, sign) || !pause(ctx, askGap-time.Since(started)) {
				return
			}
			continue
		}
		if time.Since(started) > stableWatch {
			retry.reset()
		}
		if !retry.wait(ctx) {
			return
		}
	}
}

// await returns false when ctx ended before the event.
func await(ctx context.Context, event <-chan struct{}) bool {
	select {
	case <-ctx.Done():
		return false
	case <-event:
		return true
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
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, &rule); err != nil || rule.Unreadable != "" {
		if ok && known.UID == object.GetUID() {
			return false // its last good form stays in force, in the controller too
		}
		delete(rules, object.GetName())
		return ok
	}
	rules[rule.Name] = rule
	return true
}

func byName(rules map[string]v1alpha1.NodeReadinessRule) []v1alpha1.NodeReadinessRule {
	return slices.SortedFunc(maps.Values(rules), func(a, b v1alpha1.NodeReadinessRule) int { return strings.Compare(a.Name, b.Name) })
}
