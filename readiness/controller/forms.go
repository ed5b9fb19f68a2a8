package controller

import (
	"context"
	"fmt"
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
	"headstart.dev/readiness/compat/upstream"
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
	// beside is what the leader runs beside the rules of upstream's form; nil for the others.
	beside *upstreamForm

	// sight takes whether the rules are known: nil when they are, or there is no CRD.
	sight func(error)

	once sync.Once
	// synced is closed when it is known that there is no CRD, when its rules have been listed, or when that cannot be done.
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
		asked:   f.asked,
	})
	f.installed(ctx, false)
}

// markSynced says that the rules are known, or that there are none.
func (f *formWatch) markSynced() {
	f.sight(nil)
	f.once.Do(func() { close(f.synced) })
}

// asked takes the outcome of a request: rules of another form wait for no longer than until it is known that these cannot
// be read. What was known before stays known.
func (f *formWatch) asked(err error) {
	if err != nil {
		f.sight(err)
		f.once.Do(func() { close(f.synced) })
	}
}

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

// formMaker makes the watches of rules; all forms share its clients.
type formMaker struct {
	engine *Engine
	log    logr.Logger
	events *recorder
	client client.WithWatch
	crds   metadata.ResourceInterface
	guard  *upstreamGuard
}

// newFormMaker connects; rc is that of the watches.
func newFormMaker(rc *rest.Config, meta metadata.Interface, c *controller) (*formMaker, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{v1alpha1.AddToScheme, guide.AddToScheme, upstream.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, fmt.Errorf("register rule forms: %w", err)
		}
	}
	rc = rest.CopyConfig(rc)
	// Custom resources are JSON only.
	rc.ContentConfig = rest.ContentConfig{}
	withWatch, err := client.NewWithWatch(rc, client.Options{Scheme: scheme})
	if err != nil {
		return nil, fmt.Errorf("make client for rules: %w", err)
	}
	return &formMaker{
		engine: c.engine, log: c.log, events: c.events, client: withWatch,
		crds: meta.Resource(apiextensionsv1.SchemeGroupVersion.WithResource("customresourcedefinitions")),
	}, nil
}

// make makes the watch of one form.
func (m *formMaker) make(form readiness.Form) (*formWatch, error) {
	f := &formWatch{log: m.log, form: form, synced: make(chan struct{}), crds: m.crds}
	f.sight = func(err error) {
		if err == nil {
			m.engine.sawForm(form)
			return
		}
		m.engine.missForm(form, cannotList("rules of form "+string(form), err))
	}
	switch form {
	case readiness.FormNative:
		rules := m.native(v1alpha1.GroupVersion.String(), readiness.FromNative, func(name string) client.Object {
			return &v1alpha1.NodeReadinessRule{ObjectMeta: metav1.ObjectMeta{Name: name}}
		})
		f.crd, f.forget = "nodereadinessrules."+v1alpha1.GroupVersion.Group, func() { rules.replace(nil) }
		f.rules = watchRules(m.client, &rules.ruleSet, &v1alpha1.NodeReadinessRuleList{}, &v1alpha1.NodeReadinessRule{}, f.asked, func(r *v1alpha1.NodeReadinessRule) *v1alpha1.NodeReadinessRule { return r })
	case readiness.FormGuide:
		convert := func(r *v1alpha1.NodeReadinessRule) (*readiness.Rule, error) {
			return guide.Convert((*guide.NodeReadinessRule)(r))
		}
		rules := m.native(guide.GroupVersion.String(), convert, func(name string) client.Object {
			return &guide.NodeReadinessRule{ObjectMeta: metav1.ObjectMeta{Name: name}}
		})
		f.crd, f.forget = "nodereadinessrules."+guide.GroupVersion.Group, func() { rules.replace(nil) }
		f.rules = watchRules(m.client, &rules.ruleSet, &guide.NodeReadinessRuleList{}, &guide.NodeReadinessRule{}, f.asked, func(r *guide.NodeReadinessRule) *v1alpha1.NodeReadinessRule { return (*v1alpha1.NodeReadinessRule)(r) })
	case readiness.FormUpstream:
		rules := m.upstream()
		f.crd, f.forget = "nodereadinessrules."+upstream.GroupVersion.Group, func() { rules.replace(nil) }
		f.rules = watchRules(m.client, &rules.ruleSet, &upstream.NodeReadinessRuleList{}, &upstream.NodeReadinessRule{}, f.asked, rules.seen)
		f.beside = rules
	default:
		return nil, fmt.Errorf("rule form %q: write any of native, guide, upstream", form)
	}
	return f, nil
}

// native makes the source of a form that has the native schema.
func (m *formMaker) native(apiVersion string, convert func(*v1alpha1.NodeReadinessRule) (*readiness.Rule, error), target func(string) client.Object) *ruleForm {
	rules := &ruleForm{client: m.client, events: m.events, apiVersion: apiVersion, target: target}
	rules.ruleSet = ruleSet[*v1alpha1.NodeReadinessRule]{engine: m.engine, log: m.log, source: rules, convert: understood(convert), latest: map[types.UID]*v1alpha1.NodeReadinessRule{}}
	return rules
}

// upstream makes the source of upstream's rules.
func (m *formMaker) upstream() *upstreamForm {
	rules := &upstreamForm{client: m.client, events: m.events, guard: m.guard, changed: make(chan struct{}, 1), told: map[types.UID]string{}}
	rules.ruleSet = ruleSet[*upstream.NodeReadinessRule]{engine: m.engine, log: m.log, source: rules, convert: rules.convertRule, latest: map[types.UID]*upstream.NodeReadinessRule{}}
	m.guard.changed = rules.refresh
	return rules
}

// watchRules feeds rules of type T, seen as R, until ctx ends.
func watchRules[T, R client.Object](c client.WithWatch, rules *ruleSet[R], list client.ObjectList, expected T, asked func(error), as func(T) R) func(context.Context, func()) {
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
			observe: func(in T, known bool) { rules.observe(as(in), known) },
			replace: func(in []T) {
				all := make([]R, len(in))
				for i := range in {
					all[i] = as(in[i])
				}
				rules.replace(all)
			},
			synced: synced,
			asked:  asked,
		})
	}
}
