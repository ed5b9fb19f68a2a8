package readiness_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"headstart.dev/readiness"
	"headstart.dev/readiness/compat/upstream"
)

// fakeUpstream stands for upstream's controller, whose module no proxy that the tests may use serves. It does to the API
// server what upstream v0.5.0 does: the lease that is not given back, the finalizer, taints by merge patch with the node's
// resourceVersion, the annotation of a completed bootstrap in the same patch, and a status that lists every node.
type fakeUpstream struct {
	client.Client

	t     *testing.T
	lease bool
	stop  context.CancelFunc
	done  chan struct{}
}

const (
	upstreamNamespace = "kube-system"
	// upstreamManager is the name of upstream's binary, which names its writes.
	upstreamManager = "manager"
	upstreamPeriod  = 50 * time.Millisecond
)

// startUpstream runs it until the test ends, or Stop.
func (e *env) startUpstream(lease bool) *fakeUpstream {
	e.t.Helper()
	ctx, stop := context.WithCancel(e.t.Context())
	f := &fakeUpstream{Client: client.WithFieldOwner(e.Client, upstreamManager), t: e.t, lease: lease, stop: stop, done: make(chan struct{})}
	go func() {
		defer close(f.done)
		for ctx.Err() == nil {
			if err := f.round(ctx, e.pool); err != nil && ctx.Err() == nil && !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
				e.t.Errorf("upstream: %v", err)
			}
			select {
			case <-ctx.Done():
			case <-time.After(upstreamPeriod):
			}
		}
	}()
	e.t.Cleanup(f.Stop)
	return f
}

// Stop kills it: the lease stays as it was.
func (f *fakeUpstream) Stop() {
	f.stop()
	<-f.done
}

func (f *fakeUpstream) round(ctx context.Context, pool string) error {
	if f.lease {
		if err := f.renew(ctx); err != nil {
			return err
		}
	}
	rules := &upstream.NodeReadinessRuleList{}
	if err := f.List(ctx, rules); err != nil {
		return err
	}
	nodes := &corev1.NodeList{}
	if err := f.List(ctx, nodes, client.MatchingLabels{"pool": pool}); err != nil {
		return err
	}
	for i := range rules.Items {
		if rule := &rules.Items[i]; strings.HasPrefix(rule.Name, pool) {
			if err := f.rule(ctx, rule, nodes.Items); err != nil {
				return err
			}
		}
	}
	return nil
}

func (f *fakeUpstream) renew(ctx context.Context) error {
	holder, now, seconds := "upstream-0", metav1.NowMicro(), int32(15)
	spec := coordinationv1.LeaseSpec{HolderIdentity: &holder, RenewTime: &now, AcquireTime: &now, LeaseDurationSeconds: &seconds}
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: upstreamNamespace, Name: "ba65f13e.readiness.node.x-k8s.io"}}
	err := f.Get(ctx, client.ObjectKeyFromObject(lease), lease)
	lease.Spec = spec
	if apierrors.IsNotFound(err) {
		return f.Create(ctx, lease)
	}
	if err != nil {
		return err
	}
	return f.Update(ctx, lease)
}

func (f *fakeUpstream) rule(ctx context.Context, rule *upstream.NodeReadinessRule, nodes []corev1.Node) error {
	finalized := slices.Contains(rule.Finalizers, upstream.Finalizer)
	selector, err := metav1.LabelSelectorAsSelector(&rule.Spec.NodeSelector)
	if err != nil {
		return err
	}
	base := rule.DeepCopy()
	if rule.DeletionTimestamp != nil {
		for i := range nodes {
			if err := f.taint(ctx, rule, &nodes[i], false); err != nil {
				return err
			}
		}
		rule.Finalizers = nil
		return f.Patch(ctx, rule, client.MergeFrom(base))
	}
	if !finalized {
		rule.Finalizers = append(rule.Finalizers, upstream.Finalizer)
		return f.Patch(ctx, rule, client.MergeFrom(base))
	}
	status := upstream.NodeReadinessRuleStatus{ObservedGeneration: rule.Generation}
	for i := range nodes {
		node := &nodes[i]
		if !selector.Matches(labels.Set(node.Labels)) {
			continue
		}
		once := rule.Spec.EnforcementMode == upstream.EnforcementModeBootstrapOnly
		if _, done := node.Annotations[bootstrapKey(rule)]; done && once {
			continue
		}
		unmet := unmetConditions(rule, node)
		if err := f.taint(ctx, rule, node, unmet); err != nil {
			return err
		}
		status.AppliedNodes = append(status.AppliedNodes, node.Name)
		status.NodeEvaluations = append(status.NodeEvaluations, upstream.NodeEvaluation{
			NodeName: node.Name, TaintStatus: upstream.TaintStatusPresent, LastEvaluationTime: metav1.Now(), ConditionResults: []upstream.ConditionEvaluationResult{},
		})
	}
	rule.Status = status
	return f.Status().Patch(ctx, rule, client.MergeFrom(base))
}

func unmetConditions(rule *upstream.NodeReadinessRule, node *corev1.Node) bool {
	for _, want := range rule.Spec.Conditions {
		met := slices.ContainsFunc(node.Status.Conditions, func(c corev1.NodeCondition) bool {
			return string(c.Type) == want.Type && c.Status == want.RequiredStatus
		})
		if !met {
			return true
		}
	}
	return false
}

// taint adds or removes the rule's taint where it must.
func (f *fakeUpstream) taint(ctx context.Context, rule *upstream.NodeReadinessRule, node *corev1.Node, on bool) error {
	base := node.DeepCopy()
	is := func(t corev1.Taint) bool { return readiness.SameTaint(&t, &rule.Spec.Taint) }
	had := slices.ContainsFunc(node.Spec.Taints, is)
	node.Spec.Taints = slices.DeleteFunc(node.Spec.Taints, is)
	if on {
		node.Spec.Taints = append(node.Spec.Taints, rule.Spec.Taint)
	}
	completes := !on && rule.DeletionTimestamp == nil && rule.Spec.EnforcementMode == upstream.EnforcementModeBootstrapOnly
	if had == on && !completes {
		return nil
	}
	if completes {
		metav1.SetMetaDataAnnotation(&node.ObjectMeta, bootstrapKey(rule), `{"rule-name":"`+rule.Name+`"}`)
	}
	return f.Patch(ctx, node, client.MergeFromWithOptions(base, client.MergeFromWithOptimisticLock{}))
}

// taintHistory records every change of a taint on the test's nodes, as the API server sends them.
type taintHistory struct {
	mu      chan struct{}
	changes map[string][]bool
}

// watchTaint records until the test ends.
func (e *env) watchTaint(key string) *taintHistory {
	e.t.Helper()
	h := &taintHistory{mu: make(chan struct{}, 1), changes: map[string][]bool{}}
	c, err := client.NewWithWatch(plane.Config(), client.Options{Scheme: scheme(e.t)})
	require.NoError(e.t, err)
	w, err := c.Watch(e.t.Context(), &corev1.NodeList{}, client.MatchingLabels{"pool": e.pool})
	require.NoError(e.t, err)
	e.t.Cleanup(w.Stop)
	go func() {
		for event := range w.ResultChan() {
			node, ok := event.Object.(*corev1.Node)
			if !ok {
				continue
			}
			h.mu <- struct{}{}
			changes := h.changes[node.Name]
			if has := hasTaint(node, key); len(changes) == 0 || changes[len(changes)-1] != has {
				h.changes[node.Name] = append(changes, has)
			}
			<-h.mu
		}
	}()
	return h
}

// of returns whether the node had the taint, from the first look on, one entry a change.
func (h *taintHistory) of(node string) []bool {
	h.mu <- struct{}{}
	defer func() { <-h.mu }()
	return slices.Clone(h.changes[node])
}
