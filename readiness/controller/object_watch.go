package controller

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	ctrl "sigs.k8s.io/controller-runtime"

	"headstart.dev/internal/predicate"
	"headstart.dev/readiness"
)

// objectWatcher watches the objects that rules name, each by its name, and keeps of them whether the expression holds.
type objectWatcher struct {
	log    logr.Logger
	engine *Engine
	client dynamic.Interface
	mapper meta.RESTMapper
}

func newObjectWatcher(mgr ctrl.Manager, rc *rest.Config, e *Engine) (*objectWatcher, error) {
	rc = rest.CopyConfig(rc)
	// Custom resources are JSON only.
	rc.ContentConfig = rest.ContentConfig{}
	client, err := dynamic.NewForConfig(rc)
	if err != nil {
		return nil, fmt.Errorf("make client for objects: %w", err)
	}
	return &objectWatcher{log: e.log, engine: e, client: client, mapper: mgr.GetRESTMapper()}, nil
}

// objectSeparator is in no name, and in no expression that the API server lets through.
const objectSeparator = "\x00"

// objectWatch names the watch of an object and its expression.
func objectWatch(o *readiness.Object) watchKey {
	return watchKey{kind: watchObject, namespace: o.Namespace, selector: strings.Join([]string{o.APIVersion, o.Kind, o.Name, o.Expression}, objectSeparator)}
}

// object is what objectWatch was made of.
func (k watchKey) object() readiness.Object {
	part := strings.SplitN(k.selector, objectSeparator, 4)
	return readiness.Object{APIVersion: part[0], Kind: part[1], Namespace: k.namespace, Name: part[2], Expression: part[3]}
}

// How often a kind is looked for that the cluster does not serve: its CRD may come later.
const (
	firstKindLook = 500 * time.Millisecond
	lastKindLook  = time.Minute
)

// watch follows the object until ctx ends. One whose kind is not served does not exist.
func (o *objectWatcher) watch(ctx context.Context, key watchKey, synced func(), asked func(error)) {
	want := key.object()
	holds := func(map[string]any) error { return nil }
	if want.Expression != "" {
		program, err := predicate.Compile(want.Expression)
		if err != nil {
			// The rule was refused for it.
			return
		}
		holds = program.Holds
	}
	var resource dynamic.ResourceInterface
	for wait := firstKindLook; resource == nil; wait = min(2*wait, lastKindLook) {
		var err error
		if resource, err = o.resource(&want); err == nil {
			break
		}
		o.log.V(1).Info("object cannot be looked for", "object", want.String(), "error", err.Error())
		o.engine.setObject(key, readiness.ObjectState{Known: true, Problem: err.Error()})
		synced()
		if !pause(ctx, wait) {
			return
		}
	}
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			options.FieldSelector = fields.OneTermEqualSelector(metav1.ObjectNameField, want.Name).String()
			return resource.List(ctx, options)
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			options.FieldSelector = fields.OneTermEqualSelector(metav1.ObjectNameField, want.Name).String()
			return resource.Watch(ctx, options)
		},
	}
	observe := func(in *unstructured.Unstructured, known bool) { o.engine.setObject(key, stateOf(in, known, holds)) }
	feed(ctx, lw, &unstructured.Unstructured{}, sink[*unstructured.Unstructured]{
		kind: "objects", strip: func(in *unstructured.Unstructured) *unstructured.Unstructured { return in },
		observe: observe,
		replace: func(list []*unstructured.Unstructured) {
			if len(list) == 0 {
				o.engine.setObject(key, readiness.ObjectState{Known: true})
			}
			for _, in := range list {
				observe(in, true)
			}
		},
		synced: synced,
		asked:  asked,
	})
}

func stateOf(in *unstructured.Unstructured, known bool, holds func(map[string]any) error) readiness.ObjectState {
	s := readiness.ObjectState{Known: true, Found: known && in.GetDeletionTimestamp() == nil}
	if !s.Found {
		return s
	}
	if err := holds(in.Object); err != nil {
		s.Problem = err.Error()
		return s
	}
	s.Holds = true
	return s
}

// resource finds where the object's kind is served.
func (o *objectWatcher) resource(want *readiness.Object) (dynamic.ResourceInterface, error) {
	gv, err := schema.ParseGroupVersion(want.APIVersion)
	if err != nil {
		return nil, fmt.Errorf("look for %s: %w", want, err)
	}
	mapping, err := o.mapper.RESTMapping(gv.WithKind(want.Kind).GroupKind(), gv.Version)
	if err != nil {
		return nil, fmt.Errorf("look for %s: %w", want, err)
	}
	if mapping.Scope.Name() != meta.RESTScopeNameNamespace {
		return o.client.Resource(mapping.Resource), nil
	}
	if want.Namespace == "" {
		return nil, fmt.Errorf("look for %s: a %s has a namespace: write it", want, want.Kind)
	}
	return o.client.Resource(mapping.Resource).Namespace(want.Namespace), nil
}

// setObject takes over how an object is.
func (e *Engine) setObject(key watchKey, s readiness.ObjectState) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.objects[key] == s {
		return
	}
	e.objects[key] = s
	e.decideAll()
}

// objectState is readiness.Facts.Objects; e.mu is held.
func (e *Engine) objectState(o *readiness.Object) readiness.ObjectState {
	return e.objects[objectWatch(o)]
}

// understood adds to the conversion of a rule what only this package can see: whether its expressions compile.
func understood[T any](convert func(T) (*readiness.Rule, error)) func(T) (*readiness.Rule, error) {
	return func(in T) (*readiness.Rule, error) {
		rule, err := convert(in)
		if err != nil {
			return nil, err
		}
		for i := range rule.Objects {
			if text := rule.Objects[i].Expression; text != "" {
				if _, err := predicate.Compile(text); err != nil {
					return nil, fmt.Errorf("spec.objects[%d]: %w", i, err)
				}
			}
		}
		return rule, nil
	}
}
