package controller

import (
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	schedulinghelper "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"

	"headstart.dev/gates/v1alpha1"
	"headstart.dev/gates/warmpool"
	"headstart.dev/internal/resources"
)

// pool is what the model keeps of a WarmPool. Guarded by the model's lock.
type pool struct {
	key     types.NamespacedName
	backend v1alpha1.WarmPoolBackend
	target  target

	sizer *warmpool.Sizer
	// leads are from a replica asked for to warm on a node that was bought for it, refills from a replica taken to the
	// next one ready, coldStarts and warmStarts of the workload's own pods.
	leads, refills, coldStarts, warmStarts warmpool.Times

	demand, gated map[types.UID]int64 // what each pod asks for, in micro replicas
	demandSum     int64
	gatedSum      int64
	replicas      map[types.UID]*replica
	taken         []time.Time // replicas that were taken and not yet made up for
	consumed      int64
	cost          cost
	desired       int32
	waiting       map[types.UID]*nomination
	nudges        int64
}

// target is what decides which pods and nodes concern a pool.
type target struct {
	shape        resources.List
	nodeSelector map[string]string
	// workload chooses the pods whose demand counts; nil is every pod that the pool's nodes could be for.
	workload  labels.Selector
	namespace string
	warmth    warmth
	// nodeAffinity and tolerations further say on which nodes the room is that the pool is for.
	nodeAffinity *corev1.NodeAffinity
	tolerations  []corev1.Toleration
	required     nodeaffinity.RequiredNodeAffinity
}

func newTarget(namespace string, model replicaModel, warm warmth) target {
	t := target{
		shape: resources.New(model.shape), nodeSelector: model.template.NodeSelector, workload: model.pods, namespace: namespace, warmth: warm,
		tolerations: model.template.Tolerations,
	}
	if affinity := model.template.Affinity; affinity != nil && affinity.NodeAffinity != nil {
		t.nodeAffinity = affinity.NodeAffinity
		t.required = nodeaffinity.NewRequiredNodeAffinity(nil, &corev1.Affinity{NodeAffinity: t.nodeAffinity})
	}
	return t
}

// admits reports whether a node lets the pool's pods in now.
func (t *target) admits(n *nodeView) bool {
	_, untolerated := schedulinghelper.FindMatchingUntoleratedTaint(logr.Discard(), n.taints, t.tolerations, func(taint *corev1.Taint) bool {
		return taint.Effect != corev1.TaintEffectPreferNoSchedule
	}, true)
	return !untolerated
}

// replica is a pause pod.
type replica struct {
	ready, warm         bool
	sawCold             bool // it was seen before it was ready, so its start can be measured
	counted             bool // as consumed
	everReady, everWarm bool
	onNewerNode         bool
	unscheduled         string // what the scheduler says of it
}

// cost adds up what the pool has cost: the sum up to at, and what an hour costs since.
type cost struct {
	Sum     float64   `json:"sum"`
	At      time.Time `json:"at"`
	PerHour float64   `json:"perHour"`
}

// total is the cost until now.
func (c cost) total(now time.Time) float64 {
	if c.At.IsZero() || now.Before(c.At) {
		return c.Sum
	}
	return c.Sum + c.PerHour*now.Sub(c.At).Hours()
}

// change ends one price and begins another.
func (c *cost) change(now time.Time, perHour float64) {
	if perHour == c.PerHour {
		return
	}
	c.Sum, c.At, c.PerHour = c.total(now), now, perHour
}

func (p *pool) pausePods() bool { return p.backend == v1alpha1.BackendPausePods }

// lead is how early capacity is ordered. Whole seconds: the clock of the objects it is measured on has no finer.
func (p *pool) lead() time.Duration {
	return min(p.leads.Quantile(0.95, warmpool.DefaultLead), maxLead).Truncate(time.Second) + time.Second
}

// resize takes the size over. What a smaller pool does not miss is no longer owed: the replicas that it grows by one day
// make up for nothing.
func (p *pool) resize(desired int32) {
	p.desired = desired
	missing := max(0, int(desired-p.replicaCounts().ready))
	p.taken = p.taken[max(0, len(p.taken)-missing):]
}

// podChanged takes in a new or changed pod and reports whether the pool must look.
func (p *pool) podChanged(m *model, now time.Time, old, v *podView) bool {
	if v.replicaOf == p.key {
		return p.replicaChanged(m, now, v)
	}
	p.measureStart(m, now, old, v)
	changed := p.count(m, now, v)
	changed = p.nominate(m, now, v) || changed
	return changed || (!p.pausePods() && v.node != "" && p.hosts(m.nodes[v.node]))
}

// podGone takes in a deletion.
func (p *pool) podGone(m *model, now time.Time, v *podView, preempted bool) bool {
	if v.replicaOf == p.key {
		r := p.replicas[v.uid]
		if r == nil {
			return false
		}
		p.consume(now, r, preempted || v.preempted)
		delete(p.replicas, v.uid)
		return true
	}
	gone := *v
	gone.over = true
	changed := p.count(m, now, &gone)
	delete(p.demand, v.uid)
	delete(p.gated, v.uid)
	delete(p.waiting, v.uid)
	return changed || (!p.pausePods() && v.node != "" && p.hosts(m.nodes[v.node]))
}

func (p *pool) nodeChanged(m *model, now time.Time, v *nodeView, moved bool) bool {
	changed := !p.pausePods() && p.hosts(v)
	for _, pod := range m.on[v.name] {
		if pod.replicaOf == p.key {
			changed = p.replicaChanged(m, now, pod) || changed
		} else if moved {
			changed = p.count(m, now, pod) || changed
		}
	}
	return changed
}

// count brings a pod's share of the demand up to date and reports whether the sums changed.
func (p *pool) count(m *model, now time.Time, v *podView) bool {
	wants, waits := int64(0), int64(0)
	if !v.over && !v.daemon && v.replicaOf == (types.NamespacedName{}) {
		size := replicas(v.requests, p.target.shape)
		if p.asks(m, v) {
			wants = size
		}
		if p.provokes(m, v) {
			waits = size
		}
	}
	changed := false
	if difference := waits - p.gated[v.uid]; difference != 0 {
		p.gatedSum += difference
		set(p.gated, v.uid, waits)
		changed = true
	}
	if difference := wants - p.demand[v.uid]; difference != 0 {
		p.demandSum += difference
		set(p.demand, v.uid, wants)
		p.sizer.Observe(now, float64(p.demandSum)/micro, p.lead())
		changed = true
	}
	return changed
}

func set(counts map[types.UID]int64, uid types.UID, count int64) {
	if count == 0 {
		delete(counts, uid)
		return
	}
	counts[uid] = count
}

// asks reports whether a pod is of the workload that the pool is for: by the workload's selector, else by where it runs
// or says that it wants to.
func (p *pool) asks(m *model, v *podView) bool {
	if p.target.workload != nil {
		return v.key.Namespace == p.target.namespace && p.target.workload.Matches(labels.Set(v.labels))
	}
	if v.node != "" {
		return p.hosts(m.nodes[v.node])
	}
	return includes(v.nodeSelector, p.target.nodeSelector)
}

func (p *pool) hosts(n *nodeView) bool {
	if n == nil || !includes(n.labels, p.target.nodeSelector) {
		return false
	}
	if p.target.nodeAffinity == nil {
		return true
	}
	match, err := p.target.required.Match(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: n.name, Labels: n.labels}})
	return err == nil && match
}

// recount counts every pod anew, after the pool or the gates changed, and reports whether the sums changed.
func (p *pool) recount(m *model) bool {
	before, waited := p.demandSum, p.gatedSum
	p.demand, p.gated, p.demandSum, p.gatedSum = map[types.UID]int64{}, map[types.UID]int64{}, 0, 0
	for _, v := range m.pods {
		if v.over || v.daemon || v.replicaOf != (types.NamespacedName{}) {
			continue
		}
		size := replicas(v.requests, p.target.shape)
		if p.asks(m, v) {
			p.demand[v.uid] = size
			p.demandSum += size
		}
		if p.provokes(m, v) {
			p.gated[v.uid] = size
			p.gatedSum += size
		}
	}
	return before != p.demandSum || waited != p.gatedSum
}
