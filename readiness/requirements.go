package readiness

import (
	"cmp"
	"encoding/json"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// ReasonCode says in one PascalCase word what is missing. The set is closed.
type ReasonCode string

// The codes of a Reason.
const (
	ReasonConditionMissing  ReasonCode = "ConditionMissing"
	ReasonConditionStatus   ReasonCode = "ConditionStatus"
	ReasonConditionStale    ReasonCode = "ConditionStale"
	ReasonDaemonSetMissing  ReasonCode = "DaemonSetPodMissing"
	ReasonDaemonSetNotReady ReasonCode = "DaemonSetPodNotReady"
	ReasonDaemonSetUnknown  ReasonCode = "DaemonSetUnknown"
	ReasonProbeNotReady     ReasonCode = "ProbeNotReady"
	ReasonCSIDriverMissing  ReasonCode = "CSIDriverMissing"
	ReasonCSIDriverUnknown  ReasonCode = "CSIDriverUnknown"
	ReasonResourceMissing   ReasonCode = "ResourceMissing"
	// ReasonNotObserved: what the rule asks about cannot be looked at.
	ReasonNotObserved      ReasonCode = "NotObserved"
	ReasonPodCondition     ReasonCode = "PodCondition"
	ReasonDevicesMissing   ReasonCode = "DevicesMissing"
	ReasonDevicesUnknown   ReasonCode = "DevicesUnknown"
	ReasonObjectMissing    ReasonCode = "ObjectMissing"
	ReasonObjectExpression ReasonCode = "ObjectExpression"
	ReasonObjectUnknown    ReasonCode = "ObjectUnknown"
	ReasonDamping          ReasonCode = "Damping"
)

// Reason is one thing that a rule still waits for on a node.
type Reason struct {
	Code ReasonCode `json:"code"`
	// Subject is what is waited for: a condition type, namespace/name of a DaemonSet, a driver, a resource.
	Subject string `json:"subject"`
	// Message is one line for a person.
	Message string `json:"message"`
}

// verdict is the outcome of checking a rule's requirements.
type verdict struct {
	unmet []Reason
	// expires is the first instant at which a report that counts now will be too old; zero for never.
	expires time.Time
}

func (v *verdict) miss(code ReasonCode, subject, format string, args ...any) {
	v.unmet = append(v.unmet, Reason{Code: code, Subject: subject, Message: fmt.Sprintf(format, args...)})
}

// until notes that the verdict must be looked at again at t.
func (v *verdict) until(t time.Time) {
	if v.expires.IsZero() || t.Before(v.expires) {
		v.expires = t
	}
}

// check compares the facts with everything that the rule requires. fresh says that only reports of the present boot
// count.
func check(r *Rule, f *Facts, fresh bool, now time.Time) verdict {
	var v verdict
	checkConditions(r, f, fresh, now, &v)
	for i := range r.DaemonSets {
		checkDaemonSet(&r.DaemonSets[i], r, f, fresh, &v)
		if probe := r.DaemonSets[i].ProbeCondition; probe != "" {
			checkProbe(&r.DaemonSets[i], f, fresh, &v)
		}
		if wait := r.DaemonSets[i].Wait; wait != nil {
			checkPodWait(wait, &r.DaemonSets[i], f, fresh, &v)
		}
	}
	checkDevices(r, f, &v)
	checkObjects(r, f, &v)
	for _, driver := range r.CSIDrivers {
		switch {
		case f.Partial:
			v.miss(ReasonCSIDriverUnknown, driver, "needs CSI driver %s in the node's CSINode, which was not looked at", driver)
		case !f.hasDriver(driver, fresh):
			v.miss(ReasonCSIDriverMissing, driver, "CSI driver %s is not registered in the node's CSINode", driver)
		}
	}
	for _, want := range r.Resources {
		if have := f.Node.Status.Allocatable[want.Name]; have.Cmp(want.Min) < 0 {
			v.miss(ReasonResourceMissing, string(want.Name), "%s of %s is allocatable, %s is needed", have.String(), want.Name, want.Min.String())
		} else if fresh && f.staleResource(want.Name) {
			v.miss(ReasonResourceMissing, string(want.Name), "%s of %s was allocatable before the node booted, and has not been reported anew", have.String(), want.Name)
		}
	}
	return v
}

func checkConditions(r *Rule, f *Facts, fresh bool, now time.Time, v *verdict) {
	var all verdict
	met := false
	for i := range r.Conditions {
		var one verdict
		checkCondition(&r.Conditions[i], f, fresh, now, &one)
		if len(one.unmet) == 0 {
			met = true
		}
		all.unmet = append(all.unmet, one.unmet...)
		if !one.expires.IsZero() {
			all.until(one.expires)
		}
	}
	if !all.expires.IsZero() {
		v.until(all.expires)
	}
	if r.AnyOf && met {
		return
	}
	v.unmet = append(v.unmet, all.unmet...)
}

func checkCondition(want *Condition, f *Facts, fresh bool, now time.Time, v *verdict) {
	status := cmp.Or(want.Default, corev1.ConditionUnknown)
	have := f.condition(want.Type)
	stale := false
	if have != nil {
		status = have.Status
		if fresh && !f.thisBoot(have) {
			stale = true
		}
		if since, ages := f.agesSince(want.Type, now); want.MaxAge > 0 && ages {
			expires := since.Add(want.MaxAge)
			stale = stale || !now.Before(expires)
			if !stale {
				v.until(expires)
			}
		}
	}
	if stale {
		status = corev1.ConditionUnknown
	}
	if status == want.Required {
		return
	}
	switch {
	case stale:
		v.miss(ReasonConditionStale, string(want.Type), "condition %s is %s, but its report is older than is allowed", want.Type, have.Status)
	case have == nil:
		v.miss(ReasonConditionMissing, string(want.Type), "condition %s has not been reported, %s is needed", want.Type, want.Required)
	default:
		v.miss(ReasonConditionStatus, string(want.Type), "condition %s is %s, %s is needed%s", want.Type, have.Status, want.Required, because(have))
	}
}

// agesSince says since when a report grows old, and whether it does at all.
//
// Most reporters repeat theirs, and age is the time since the last one. Our agent does not: it reports a change at once and
// is silent otherwise, because a heartbeat from each of thousands of nodes is what an idle cluster must not have. So its
// word holds while its node is there, which the API server knows from the node's lease: the age of a condition of ours runs
// from when Ready became Unknown, as the node lifecycle controller sets it when the lease is not renewed. That costs no
// request. An agent that ended while its node lives is its service manager's to start again.
func (f *Facts) agesSince(t corev1.NodeConditionType, now time.Time) (since time.Time, ages bool) {
	of := t
	if isOurs(t) {
		ready := f.condition(corev1.NodeReady)
		if ready == nil || ready.Status != corev1.ConditionUnknown {
			return time.Time{}, false
		}
		of = corev1.NodeReady
	}
	seen, known := f.Seen[of]
	if !known {
		return now, true
	}
	return seen, true
}

func because(have *corev1.NodeCondition) string {
	if have.Message == "" {
		return ""
	}
	return ": " + have.Message
}

func checkProbe(ds *DaemonSet, f *Facts, fresh bool, v *verdict) {
	have := f.condition(ds.ProbeCondition)
	if have != nil && have.Status == corev1.ConditionTrue && (!fresh || f.thisBoot(have)) {
		return
	}
	hint := ""
	if have == nil && ds.ExecProbe {
		hint = " (the agent runs an exec probe only with allowExec: true in its config)"
	}
	state := "has not been reported"
	if have != nil {
		state = "is " + string(have.Status) + because(have)
	}
	v.miss(ReasonProbeNotReady, string(ds.ProbeCondition), "the readinessProbe of DaemonSet %s has not passed: condition %s %s%s", ds, ds.ProbeCondition, state, hint)
}

// thisBoot says whether the report is of the boot that the node is in. The agent names the boot beside its conditions;
// for other reporters, one that was seen to report since the boot began is.
func (f *Facts) thisBoot(c *corev1.NodeCondition) bool {
	if boot, ok := agentBoot(f.Node); ok && isOurs(c.Type) {
		return boot == f.bootID()
	}
	if f.BootSeen.IsZero() {
		ready := f.condition(corev1.NodeReady)
		// Both times are the kubelet's machine's own clock.
		return ready == nil || !c.LastHeartbeatTime.Before(&ready.LastTransitionTime) || !c.LastTransitionTime.Before(&ready.LastTransitionTime)
	}
	seen, known := f.Seen[c.Type]
	return known && !seen.Before(f.BootSeen)
}

func isOurs(t corev1.NodeConditionType) bool {
	return len(t) > len(Domain)+1 && string(t[:len(Domain)+1]) == Domain+"/"
}

// agentBoot is the boot that the agent's last status patch was of, from the timeline that goes with it.
func agentBoot(node *corev1.Node) (string, bool) {
	text := node.Annotations[AnnotationTimeline]
	if text == "" || len(text) > 2*4096 {
		return "", false
	}
	var timeline struct {
		BootID string `json:"bootID"`
	}
	if err := json.Unmarshal([]byte(text), &timeline); err != nil || timeline.BootID == "" {
		return "", false
	}
	return timeline.BootID, true
}

func checkDaemonSet(ds *DaemonSet, r *Rule, f *Facts, fresh bool, v *verdict) {
	report := f.reported(ds, fresh)
	if f.Partial {
		if report == nil {
			v.miss(ReasonDaemonSetUnknown, ds.String(), "needs a Ready pod of DaemonSet %s on the node, which was not looked at%s", ds, f.toldOf(ds))
		}
		return
	}
	if ds.wildcard() {
		found := false
		for _, spec := range f.daemonSets(ds.Namespace) {
			if !ds.includes(spec.Namespace, spec.Name) || !f.fits(spec, r) {
				continue
			}
			found = true
			one := DaemonSet{Namespace: spec.Namespace, Name: spec.Name}
			checkPods(&one, f, fresh, nil, v)
		}
		if !found {
			v.miss(ReasonDaemonSetMissing, ds.String(), "no DaemonSet of %s belongs on the node: is the namespace spelled right", ds)
		}
		return
	}
	checkPods(ds, f, fresh, report, v)
}

// toldOf is what the agent says of a DaemonSet's pod that is not Ready.
func (f *Facts) toldOf(ds *DaemonSet) string {
	if have := f.condition(ds.Report); have != nil {
		return because(have)
	}
	return ""
}

func (f *Facts) daemonSets(namespace string) []*DaemonSetSpec {
	if f.DaemonSets == nil {
		return nil
	}
	return f.DaemonSets(namespace)
}

func checkPods(ds *DaemonSet, f *Facts, fresh bool, report *corev1.NodeCondition, v *verdict) {
	notReady := ""
	for i := range f.Pods {
		pod := &f.Pods[i]
		if pod.Terminating || !ds.owns(pod) {
			continue
		}
		if newer(report, pod) || pod.Ready && !f.stalePod(pod, fresh) {
			return
		}
		notReady = pod.Name
	}
	if notReady == "" {
		v.miss(ReasonDaemonSetMissing, ds.String(), "DaemonSet %s has no pod on the node", ds)
		return
	}
	v.miss(ReasonDaemonSetNotReady, ds.String(), "pod %s of DaemonSet %s is not Ready", notReady, ds)
}

// Owns says whether the pod is one of the DaemonSet's.
func (d *DaemonSet) Owns(pod *Pod) bool { return d.owns(pod) }

// owns is Owns.
func (d *DaemonSet) owns(pod *Pod) bool {
	if pod.Namespace != d.Namespace {
		return false
	}
	if d.Selector != nil {
		return d.Selector.Matches(labels.Set(pod.Labels))
	}
	return pod.DaemonSet == d.Name
}
