package main

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"

	gatesv1alpha1 "headstart.dev/gates/v1alpha1"
	"headstart.dev/readiness"
	"headstart.dev/readiness/compat/guide"
	"headstart.dev/readiness/compat/upstream"
	"headstart.dev/readiness/inspect"
	readinessv1alpha1 "headstart.dev/readiness/v1alpha1"
)

// pageSize keeps answers of large clusters small.
const pageSize = 500

// cluster reads what the commands report on. It writes nothing.
type cluster struct {
	core    kubernetes.Interface
	dynamic dynamic.Interface
	// watching has no time limit.
	watching  kubernetes.Interface
	namespace string
	clock     *serverClock
}

// which says which nodes: the one of a name, or those that a selector of labels selects.
type which struct{ name, selector string }

// nodes lists them, and says as of which resource version.
func (c *cluster) nodes(ctx context.Context, of which) ([]corev1.Node, string, error) {
	if of.name != "" {
		node, err := c.core.CoreV1().Nodes().Get(ctx, of.name, metav1.GetOptions{})
		if err != nil {
			return nil, "", fmt.Errorf("get node %q: %w", of.name, err)
		}
		return []corev1.Node{*node}, node.ResourceVersion, nil
	}
	var out []corev1.Node
	options := metav1.ListOptions{Limit: pageSize, LabelSelector: of.selector}
	for {
		list, err := c.core.CoreV1().Nodes().List(ctx, options)
		if err != nil {
			return nil, "", fmt.Errorf("list nodes: %w", err)
		}
		out = append(out, list.Items...)
		if options.Continue = list.Continue; options.Continue == "" {
			return out, list.ResourceVersion, nil
		}
	}
}

// view says how the cluster looks now: by its clock, and with a controller that lives or without.
func (c *cluster) view(ctx context.Context, warn func(string)) inspect.View {
	options := metav1.ListOptions{FieldSelector: "metadata.name=" + inspect.LeaseName}
	leases, err := c.core.CoordinationV1().Leases(metav1.NamespaceAll).List(ctx, options)
	if apierrors.IsForbidden(err) {
		leases, err = c.core.CoordinationV1().Leases(usualNamespace).List(ctx, options)
	}
	view := inspect.View{Now: c.clock.now()}
	if err != nil {
		warn(fmt.Sprintf("whether a controller is alive is not known: %v", err))
		return view
	}
	view.Controller = inspect.ReadController(leases.Items, view.Now)
	return view
}

// usualNamespace is where the controller runs, unless it was put elsewhere.
const usualNamespace = "headstart-system"

// facts are what all nodes are judged by.
type facts struct {
	rules []*readiness.Rule
	view  inspect.View
}

// facts reads the rules of all forms, in the form of the engine, and whether somebody carries them out. A rule that has no
// meaning is reported to warn and left out.
func (c *cluster) facts(ctx context.Context, warn func(string)) (facts, error) {
	f := facts{view: c.view(ctx, warn)}
	return f, errors.Join(
		rulesOf(ctx, c.dynamic, &f, readinessv1alpha1.GroupVersion, form[readinessv1alpha1.NodeReadinessRule]{
			readiness.FromNative, func(r *readinessv1alpha1.NodeReadinessRule) int64 { return r.Status.ObservedGeneration },
		}, warn),
		rulesOf(ctx, c.dynamic, &f, guide.GroupVersion, form[guide.NodeReadinessRule]{
			guide.Convert, func(r *guide.NodeReadinessRule) int64 { return r.Status.ObservedGeneration },
		}, warn),
		rulesOf(ctx, c.dynamic, &f, upstream.GroupVersion, form[upstream.NodeReadinessRule]{
			upstream.Convert, func(r *upstream.NodeReadinessRule) int64 { return r.Status.ObservedGeneration },
		}, warn),
	)
}

// form is how rules of a form are read.
type form[T any] struct {
	convert  func(*T) (*readiness.Rule, error)
	observed func(*T) int64
}

// rulesOf adds the rules of one form to the facts.
func rulesOf[T any](ctx context.Context, client dynamic.Interface, into *facts, of schema.GroupVersion, as form[T], warn func(string)) error {
	listed, err := listOf[T](ctx, client, of.WithResource(ruleResource))
	if apierrors.IsForbidden(err) && of.Group != readiness.Domain {
		warn(fmt.Sprintf("rules of %s are left out: %v", of.Group, err))
		return nil
	}
	if err != nil {
		return err
	}
	for i := range listed {
		rule, err := as.convert(&listed[i])
		if err != nil {
			warn(fmt.Sprintf("rule %s is not in force: %v", nameOf(&listed[i]), err))
			continue
		}
		into.rules = append(into.rules, rule)
		if into.view.Overlooked(rule.Created, as.observed(&listed[i])) {
			into.view.Unseen = append(into.view.Unseen, inspect.RuleKey{Form: rule.Form, Name: rule.Name})
		}
	}
	return nil
}

func nameOf(object any) string {
	if named, ok := object.(metav1.Object); ok {
		return named.GetName()
	}
	return ""
}

func (c *cluster) gatePolicies(ctx context.Context) ([]gatesv1alpha1.GatePolicy, error) {
	return list[gatesv1alpha1.GatePolicy](ctx, c.dynamic, "gatepolicies")
}

// list reads all objects of a resource of our group; none where the CRD is not installed.
func list[T any](ctx context.Context, client dynamic.Interface, resource string) ([]T, error) {
	return listOf[T](ctx, client, schema.GroupVersionResource{Group: readiness.Domain, Version: "v1alpha1", Resource: resource})
}

func listOf[T any](ctx context.Context, client dynamic.Interface, of schema.GroupVersionResource) ([]T, error) {
	var out []T
	options := metav1.ListOptions{Limit: pageSize}
	for {
		page, err := client.Resource(of).List(ctx, options)
		if apierrors.IsNotFound(err) || meta.IsNoMatchError(err) {
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", of.GroupResource(), err)
		}
		for i := range page.Items {
			var item T
			if err := runtime.DefaultUnstructuredConverter.FromUnstructured(page.Items[i].Object, &item); err != nil {
				return nil, fmt.Errorf("read %s %s: %w", of.GroupResource(), page.Items[i].GetName(), err)
			}
			out = append(out, item)
		}
		if options.Continue = page.GetContinue(); options.Continue == "" {
			return out, nil
		}
	}
}
