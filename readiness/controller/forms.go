package controller

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/go-logr/logr"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"headstart.dev/readiness"
	"headstart.dev/readiness/compat/guide"
	"headstart.dev/readiness/v1alpha1"
)

// formWatch reads the rules of one form from when its CRD is installed until it is gone: a CRD may come later, or never.
type formWatch struct {
	log  logr.Logger
	form readiness.Form
	crd  string
	crds metadata.ResourceInterface
	// rules watches the rules until ctx ends; forget drops them.
	rules  func(ctx context.Context, synced func())
	forget func()

	once sync.Once
	// synced is closed when it is known that there is no CRD, or when its rules have been listed.
	synced chan struct{}

	stop context.CancelFunc
	done chan struct{}
}

func (f *formWatch) run(ctx context.Context) {
	only := fields.OneTermEqualSelector("metadata.name", f.crd).String()
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.FieldSelector = only
			return f.crds.List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.FieldSelector = only
			return f.crds.Watch(ctx, o)
		},
	}
	feed(ctx, lw, &metav1.PartialObjectMetadata{}, sink[*metav1.PartialObjectMetadata]{
		kind:  "customresourcedefinitions",
		strip: func(o *metav1.PartialObjectMetadata) *metav1.PartialObjectMetadata { return o },
		observe: func(_ *metav1.PartialObjectMetadata, known bool) {
			f.installed(ctx, known)
		},
		replace: func(list []*metav1.PartialObjectMetadata) { f.installed(ctx, len(list) > 0) },
		synced:  func() {},
	})
	f.installed(ctx, false)
}

func (f *formWatch) markSynced() { f.once.Do(func() { close(f.synced) }) }

// installed begins or ends the watch of the rules. Called from one goroutine.
func (f *formWatch) installed(ctx context.Context, yes bool) {
	switch {
	case yes && f.stop == nil:
		ctx, stop := context.WithCancel(ctx)
		f.stop, f.done = stop, make(chan struct{})
		go func() {
			defer close(f.done)
			f.rules(ctx, f.markSynced)
		}()
	case !yes && f.stop != nil:
		f.stop()
		<-f.done
		f.stop = nil
		if ctx.Err() == nil {
			f.forget()
		}
	case !yes:
		if ctx.Err() == nil {
			f.log.Info("CRD of rules is not installed: they are read as soon as it is", "form", f.form, "crd", f.crd)
		}
		f.markSynced()
	}
}

// newForms makes the watches of the forms asked for.
func newForms(rc *rest.Config, meta metadata.Interface, e *Engine, log logr.Logger, events *recorder, forms []readiness.Form) ([]*formWatch, error) {
	if len(forms) == 0 {
		forms = []readiness.Form{readiness.FormNative}
	}
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{v1alpha1.AddToScheme, guide.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, fmt.Errorf("register rule forms: %w", err)
		}
	}
	rc = rest.CopyConfig(rc)
	// Custom resources are JSON only.
	rc.ContentConfig = rest.ContentConfig{}
	c, err := client.NewWithWatch(rc, client.Options{Scheme: scheme})
	if err != nil {
		return nil, fmt.Errorf("make client for rules: %w", err)
	}
	var out []*formWatch
	for _, form := range slices.Compact(slices.Sorted(slices.Values(forms))) {
		rules := &ruleForm{engine: e, log: log, client: c, events: events, latest: map[types.UID]*v1alpha1.NodeReadinessRule{}}
		f := &formWatch{
			log: log, form: form, synced: make(chan struct{}),
			crds:   meta.Resource(apiextensionsv1.SchemeGroupVersion.WithResource("customresourcedefinitions")),
			forget: func() { rules.replace(nil) },
		}
		switch form {
		case readiness.FormNative:
			f.crd, rules.apiVersion = "nodereadinessrules."+v1alpha1.GroupVersion.Group, v1alpha1.GroupVersion.String()
			rules.convert = readiness.FromNative
			rules.target = func(name string) client.Object {
				return &v1alpha1.NodeReadinessRule{ObjectMeta: metav1.ObjectMeta{Name: name}}
			}
			f.rules = watchRules(c, rules, &v1alpha1.NodeReadinessRuleList{}, &v1alpha1.NodeReadinessRule{}, func(r *v1alpha1.NodeReadinessRule) *v1alpha1.NodeReadinessRule { return r })
		case readiness.FormGuide:
			f.crd, rules.apiVersion = "nodereadinessrules."+guide.GroupVersion.Group, guide.GroupVersion.String()
			rules.convert = func(r *v1alpha1.NodeReadinessRule) (*readiness.Rule, error) {
				return guide.Convert((*guide.NodeReadinessRule)(r))
			}
			rules.target = func(name string) client.Object {
				return &guide.NodeReadinessRule{ObjectMeta: metav1.ObjectMeta{Name: name}}
			}
			f.rules = watchRules(c, rules, &guide.NodeReadinessRuleList{}, &guide.NodeReadinessRule{}, func(r *guide.NodeReadinessRule) *v1alpha1.NodeReadinessRule { return (*v1alpha1.NodeReadinessRule)(r) })
		case readiness.FormUpstream:
			return nil, fmt.Errorf("rule form %q: not in this build; run the upstream controller for those rules, with taint keys of their own", form)
		default:
			return nil, fmt.Errorf("rule form %q: write any of native, guide", form)
		}
		out = append(out, f)
	}
	return out, nil
}

// watchRules feeds rules of type T, seen as native ones, until ctx ends.
func watchRules[T client.Object](c client.WithWatch, rules *ruleForm, list client.ObjectList, expected T, native func(T) *v1alpha1.NodeReadinessRule) func(context.Context, func()) {
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			out, ok := list.DeepCopyObject().(client.ObjectList)
			if !ok {
				return nil, fmt.Errorf("list rules: %T is no list", list)
			}
			return out, c.List(ctx, out, &client.ListOptions{Raw: &o, Limit: o.Limit, Continue: o.Continue})
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			return c.Watch(ctx, list, &client.ListOptions{Raw: &o})
		},
	}
	return func(ctx context.Context, synced func()) {
		feed(ctx, lw, expected, sink[T]{
			kind: "rules", strip: func(in T) T { return in },
			observe: func(in T, known bool) { rules.observe(native(in), known) },
			replace: func(in []T) {
				all := make([]*v1alpha1.NodeReadinessRule, len(in))
				for i := range in {
					all[i] = native(in[i])
				}
				rules.replace(all)
			},
			synced: synced,
		})
	}
}
