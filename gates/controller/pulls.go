package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"headstart.dev/gates/v1alpha1"
	prepullv1alpha1 "headstart.dev/prepull/v1alpha1"
)

const (
	// pullPeriod is the least time between two looks at what should be pulled: an agent is told within a second too.
	pullPeriod = time.Second
	// pullRetry is when a write that failed is tried again.
	pullRetry = 5 * time.Second
	// pullPriority puts images that pods wait for before those that somebody may need.
	pullPriority = 100_000
	// labelManagedBy marks the PrepullPolicies that belong to GatePolicies; its value is Name.
	labelManagedBy = "app.kubernetes.io/managed-by"
)

// pulls keeps the PrepullPolicies by which agents fetch the images that pods wait for: one for each GatePolicy with
// images.pull, owned by it and deleted when no pod waits for images any more.
type pulls struct {
	// refused is told of each policy why it has something not pulled.
	refused  func(map[types.UID]string)
	client   client.Client
	live     client.Reader
	cache    cache.Cache
	waitlist *waitlist
	log      logr.Logger
	bell     bell
	opened   <-chan struct{}
	watching bool
}

// run keeps them until ctx ends.
func (p *pulls) run(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-p.opened:
	}
	p.bell.each(ctx, pullPeriod, func() time.Time {
		if err := p.reconcile(ctx); err != nil && ctx.Err() == nil {
			p.log.Error(err, "cannot have agents fetch images")
			return time.Now().Add(pullRetry)
		}
		return time.Time{}
	})
	return nil
}

func (p *pulls) reconcile(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patchTimeout)
	defer cancel()
	have, err := p.existing(ctx)
	if err != nil {
		return err
	}
	chosen := map[string][]string{}
	for i := range have {
		chosen[have[i].Name] = hostsOf(&have[i])
	}
	wishes := p.waitlist.pullWishes(chosen)
	p.refused(refusedPulls(wishes))
	wishes = wanted(wishes)
	var errs []error
	for i := range wishes {
		errs = append(errs, p.write(ctx, &wishes[i]))
	}
	for i := range have {
		if !slices.ContainsFunc(wishes, func(w pullWish) bool { return pullName(w.policy) == have[i].Name }) {
			errs = append(errs, p.remove(ctx, &have[i]))
		}
	}
	return errors.Join(errs...)
}

// wanted are the wishes for which there is something to do.
func wanted(wishes []pullWish) []pullWish {
	return slices.DeleteFunc(wishes, func(w pullWish) bool { return len(w.hosts) == 0 || len(w.images) == 0 })
}

// existing lists the PrepullPolicies that are ours. They are watched from the first on that is there or wished for; until
// then nothing is asked of the API server, but once at the start, for what an earlier run left.
func (p *pulls) existing(ctx context.Context) ([]prepullv1alpha1.PrepullPolicy, error) {
	var list prepullv1alpha1.PrepullPolicyList
	ours := client.MatchingLabels{labelManagedBy: Name}
	if p.live != nil {
		err := p.live.List(ctx, &list, ours)
		if err != nil && !meta.IsNoMatchError(err) {
			return nil, fmt.Errorf("list PrepullPolicies: %w", err)
		}
		if len(list.Items) == 0 {
			p.live = nil
		}
	}
	if !p.watching && len(list.Items) == 0 && len(wanted(p.waitlist.pullWishes(nil))) == 0 {
		return nil, nil
	}
	if !p.watching {
		informer, err := p.cache.GetInformer(ctx, &prepullv1alpha1.PrepullPolicy{})
		if err != nil {
			return nil, fmt.Errorf("watch PrepullPolicies (is deploy/crd/headstart.dev_prepullpolicies.yaml applied?): %w", err)
		}
		if _, err := informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{DeleteFunc: func(any) { p.bell.ring() }}); err != nil {
			return nil, fmt.Errorf("watch PrepullPolicies: %w", err)
		}
		p.watching, p.live = true, nil
	}
	if err := p.client.List(ctx, &list, ours); err != nil {
		return nil, fmt.Errorf("list PrepullPolicies: %w", err)
	}
	return list.Items, nil
}

// write makes a PrepullPolicy what it should be.
func (p *pulls) write(ctx context.Context, wish *pullWish) error {
	want := prepullPolicy(wish)
	err := retry.RetryOnConflict(retry.DefaultRetry, func() error {
		have := &prepullv1alpha1.PrepullPolicy{}
		err := p.client.Get(ctx, client.ObjectKeyFromObject(want), have)
		if apierrors.IsNotFound(err) {
			if err := p.client.Create(ctx, want.DeepCopy()); !apierrors.IsAlreadyExists(err) {
				return err
			}
			return nil // the cache is late
		}
		if err != nil || have.DeletionTimestamp != nil || (equality.Semantic.DeepEqual(have.Spec.NodeSelector, want.Spec.NodeSelector) && equality.Semantic.DeepEqual(have.Spec.Images, want.Spec.Images)) {
			return err
		}
		before := have.DeepCopy()
		have.Spec.NodeSelector, have.Spec.Images = want.Spec.NodeSelector, want.Spec.Images
		return p.client.Patch(ctx, have, client.MergeFrom(before))
	})
	if err != nil {
		return fmt.Errorf("write PrepullPolicy %s: %w", want.Name, err)
	}
	return nil
}

func (p *pulls) remove(ctx context.Context, policy *prepullv1alpha1.PrepullPolicy) error {
	if policy.DeletionTimestamp != nil {
		return nil
	}
	err := p.client.Delete(ctx, policy, client.Preconditions{UID: &policy.UID})
	if client.IgnoreNotFound(err) != nil && !apierrors.IsConflict(err) {
		return fmt.Errorf("delete PrepullPolicy %s: %w", policy.Name, err)
	}
	return nil
}

// prepullPolicy renders a wish. Its images are not required: headstart.dev/ImagesReady, and with it the startup taint of a
// node, is no matter of pods that came later.
func prepullPolicy(wish *pullWish) *prepullv1alpha1.PrepullPolicy {
	out := &prepullv1alpha1.PrepullPolicy{
		ObjectMeta: metav1.ObjectMeta{
			Name: pullName(wish.policy), Labels: map[string]string{labelManagedBy: Name},
			// No blockOwnerDeletion: setting it needs rights on the owner's finalizers, and nothing has to wait for this.
			OwnerReferences: []metav1.OwnerReference{{
				APIVersion: v1alpha1.GroupVersion.String(), Kind: "GatePolicy", Name: wish.policy.Name, UID: wish.policy.UID, Controller: new(true),
			}},
		},
		Spec: prepullv1alpha1.PrepullPolicySpec{
			NodeSelector: &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{
				{Key: corev1.LabelHostname, Operator: metav1.LabelSelectorOpIn, Values: wish.hosts},
			}},
			Mode: prepullv1alpha1.ModeAuto,
		},
	}
	for _, image := range wish.images {
		out.Spec.Images = append(out.Spec.Images, prepullv1alpha1.Image{Image: image, Priority: pullPriority})
	}
	return out
}

// hostsOf reads back which nodes a PrepullPolicy asks.
func hostsOf(policy *prepullv1alpha1.PrepullPolicy) []string {
	if policy.Spec.NodeSelector == nil {
		return nil
	}
	for _, e := range policy.Spec.NodeSelector.MatchExpressions {
		if e.Key == corev1.LabelHostname {
			return e.Values
		}
	}
	return nil
}
