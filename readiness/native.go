package readiness

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"headstart.dev/readiness/v1alpha1"
)

// defaultTimeout is api.md's: without it a rule that cannot be met makes a node cost money for ever.
const defaultTimeout = 10 * time.Minute

// FromNative makes the engine's form of a headstart.dev/v1alpha1 rule, with all defaults set. It fails with an error
// that names the field where the API server let something through that has no meaning.
func FromNative(in *v1alpha1.NodeReadinessRule) (*Rule, error) {
	if in.Unreadable != "" {
		return nil, errors.New(in.Unreadable)
	}
	spec := &in.Spec
	r := &Rule{
		Name: in.Name, UID: in.UID, Form: FormNative, Generation: in.Generation, Created: in.CreationTimestamp.Time,
		Continuous:      spec.Mode == v1alpha1.ModeContinuous,
		AnyOf:           spec.ConditionPolicy == v1alpha1.ConditionPolicyAnyOf,
		CSIDrivers:      spec.CSIDrivers,
		Taint:           nativeTaint(in.Name, &spec.Taint),
		Timeout:         defaultTimeout,
		OnTimeout:       spec.OnTimeout,
		RearmOnReboot:   spec.RearmOnReboot,
		EnforceExisting: spec.ExistingNodes == v1alpha1.ExistingNodesEnforce,
		DryRun:          spec.DryRun,
		Suspended:       spec.Suspend,
	}
	if r.OnTimeout == "" {
		r.OnTimeout = v1alpha1.TimeoutRelease
	}
	if spec.ReadinessTimeout != nil {
		r.Timeout = spec.ReadinessTimeout.Duration
	}
	if r.Timeout <= 0 {
		return nil, fmt.Errorf("spec.readinessTimeout: %s is not longer than 0s", r.Timeout)
	}
	var err error
	if r.Selector, err = selector("spec.nodeSelector", spec.NodeSelector); err != nil {
		return nil, err
	}
	if r.Selector != nil && r.Selector.Empty() {
		return nil, fmt.Errorf("spec.nodeSelector: empty, which would hold every node: for all Linux nodes write matchLabels {kubernetes.io/os: linux}")
	}
	if err := checkNames(spec, &r.Taint); err != nil {
		return nil, err
	}
	if r.Budget, err = newBudget(spec.Budget, r.Continuous); err != nil {
		return nil, err
	}
	if err := r.addRequirements(spec); err != nil {
		return nil, err
	}
	return r, r.addDamping(spec.Damping)
}

// errRequiresNothing refuses a rule that would release every node at once.
var errRequiresNothing = errors.New("spec: the rule requires nothing: write one of requiredDaemonSets, conditions, csiDrivers, resources, resourceSlices, objects")

func (r *Rule) addRequirements(spec *v1alpha1.NodeReadinessRuleSpec) error {
	if err := r.addDaemonSets(spec); err != nil {
		return err
	}
	for i := range spec.Conditions {
		r.Conditions = append(r.Conditions, nativeCondition(&spec.Conditions[i]))
	}
	for _, want := range spec.Resources {
		if want.Min.IsZero() {
			want.Min = resource.MustParse("1")
		}
		if want.Min.Sign() < 0 {
			return fmt.Errorf("spec.resources: min %s of %s is not above 0", want.Min.String(), want.Name)
		}
		r.Resources = append(r.Resources, Resource{Name: corev1.ResourceName(want.Name), Min: want.Min})
	}
	for _, want := range spec.ResourceSlices {
		r.Devices = append(r.Devices, Devices{Driver: want.Driver, Min: int(max(1, want.Min))})
	}
	for i := range spec.Objects {
		o := &spec.Objects[i]
		r.Objects = append(r.Objects, Object{APIVersion: o.APIVersion, Kind: o.Kind, Namespace: o.Namespace, Name: o.Name, Expression: strings.TrimSpace(o.Expression)})
	}
	if len(r.DaemonSets)+len(r.Conditions)+len(r.CSIDrivers)+len(r.Resources)+len(r.Devices)+len(r.Objects) == 0 {
		return errRequiresNothing
	}
	return nil
}

func (r *Rule) addDamping(in *v1alpha1.Damping) error {
	if in == nil {
		return nil
	}
	if in.HoldAfter != nil {
		r.HoldAfter = in.HoldAfter.Duration
	}
	if in.ReleaseAfter != nil {
		r.ReleaseAfter = in.ReleaseAfter.Duration
	}
	if r.HoldAfter < 0 || r.ReleaseAfter < 0 {
		return fmt.Errorf("spec.damping: holdAfter %s and releaseAfter %s may not be negative", r.HoldAfter, r.ReleaseAfter)
	}
	return nil
}

func (r *Rule) addDaemonSets(spec *v1alpha1.NodeReadinessRuleSpec) error {
	for i := range spec.RequiredDaemonSets {
		in := &spec.RequiredDaemonSets[i]
		sel, err := selector(fmt.Sprintf("spec.requiredDaemonSets[%d].selector", i), in.Selector)
		if err != nil {
			return err
		}
		ds := DaemonSet{Namespace: in.Namespace, Name: in.Name, Selector: sel, Except: in.Except}
		ds.Report = ds.reportCondition()
		if in.ReadinessProbe != nil {
			if err := ds.addProbe(in.ReadinessProbe); err != nil {
				return fmt.Errorf("spec.requiredDaemonSets[%d].readinessProbe: %w", i, err)
			}
		}
		r.DaemonSets = append(r.DaemonSets, ds)
	}
	for i := range spec.OptionalDaemonSets {
		in := &spec.OptionalDaemonSets[i]
		sel, err := selector(fmt.Sprintf("spec.optionalDaemonSets[%d].selector", i), in.Selector)
		if err != nil {
			return err
		}
		r.Optional = append(r.Optional, DaemonSet{Namespace: in.Namespace, Name: in.Name, Selector: sel, ReadyLabel: in.ReadyLabel})
	}
	return nil
}

func nativeTaint(rule string, in *v1alpha1.RuleTaint) corev1.Taint {
	t := corev1.Taint{Key: in.Key, Value: in.Value, Effect: in.Effect}
	if t.Key == "" {
		t.Key = TaintPrefix + rule
	}
	if t.Value == "" {
		t.Value = DefaultTaintValue
	}
	if t.Effect == "" {
		t.Effect = corev1.TaintEffectNoSchedule
	}
	return t
}

func nativeCondition(in *v1alpha1.RequiredCondition) Condition {
	c := Condition{Type: corev1.NodeConditionType(in.Type), Required: in.RequiredStatus, Default: in.DefaultStatus}
	if c.Required == "" {
		c.Required = corev1.ConditionTrue
	}
	if in.MaxAge != nil {
		c.MaxAge = in.MaxAge.Duration
	}
	return c
}

// selector compiles a label selector; nil stays nil.
func selector(field string, in *metav1.LabelSelector) (labels.Selector, error) {
	if in == nil {
		return nil, nil //nolint:nilnil // absent is a value of its own here: bound by annotation, found by name
	}
	out, err := metav1.LabelSelectorAsSelector(in)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", field, err)
	}
	return out, nil
}

// ProbeCondition is the type of the condition by which the agent reports the probe of that name: my-agent becomes
// headstart.dev/MyAgentReady.
func ProbeCondition(name string) corev1.NodeConditionType {
	var b strings.Builder
	up := true
	for _, c := range name {
		if !unicode.IsLetter(c) && !unicode.IsDigit(c) {
			up = true
			continue
		}
		if up {
			c = unicode.ToUpper(c)
		}
		up = false
		b.WriteRune(c)
	}
	return corev1.NodeConditionType(Domain + "/" + b.String() + "Ready")
}
