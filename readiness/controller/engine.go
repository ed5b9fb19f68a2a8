package controller

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"headstart.dev/readiness"
)

// Engine holds the model of all nodes and rules and decides what is to be written. All methods are safe for concurrent
// use. It does no I/O: watches call Observe..., writers call next and done.
type Engine struct {
	log logr.Logger
	now func() time.Time
	// local is this machine's clock, which never jumps: budgets are counted by it.
	local   func() time.Time
	metrics *metrics
	// upstream are upstream's metrics; nil where its rules are not read.
	upstream *upstreamMetrics
	// adopted tells that an upstream rule has found its taint on a node; nil to tell nobody.
	adopted func(*corev1.Node, *readiness.Rule)
	// unclaimedTold tells that a node carries a taint that no rule names; nil to tell nobody.
	unclaimedTold func(*corev1.Node, string)

	mu    sync.Mutex
	nodes map[string]*node
	// common is what all nodes' facts have in common.
	common  readiness.Facts
	rules   []*readiness.Rule
	byUID   map[types.UID]*ruleEntry
	retired []readiness.Claim
	// unseen are the forms whose rules are not known yet, each with why; pending are claims of the ledger that such a rule
	// may make still.
	unseen  map[readiness.Form]string
	pending []pendingClaim
	// recalled says that the ledger has been read, and settleAt when claims must be looked at again.
	recalled bool
	settleAt time.Time
	// daemonSets is keyed by namespace, then name.
	daemonSets map[string]map[string]*readiness.DaemonSetSpec
	// pods is keyed by node name; a node may come after its pods.
	pods map[string]map[podKey]readiness.Pod
	// drivers is keyed by node name.
	drivers map[string]csiNode
	// buried are the marks of what was known of Nodes that are gone, by name, while their pods and CSINodes remain.
	buried map[string]readiness.Marks
	// slices are the ResourceSlices of nodes, objects the objects that rules name.
	slices  deviceIndex
	objects map[watchKey]readiness.ObjectState
	// deletionsKnown says that the NodeClaims which were deleted within their rules' windows are known, those of an earlier
	// controller too: none is deleted before.
	deletionsKnown bool
	// synced are the watches whose first list has come, and failing why one cannot be opened; watchEvent tells that other
	// watches are wanted now.
	synced     map[watchKey]bool
	failing    map[watchKey]string
	watchEvent chan struct{}
	dirtyRules map[types.UID]struct{}
	ruleEvent  chan struct{}
	queue      queue
	wakes      wakes
	// claims are NodeClaims to be deleted.
	claims chan claim
	// claimEvent tells that the ledger is out of date.
	claimEvent chan struct{}
	// leading is true on the replica that writes.
	leading bool
	// leadSince is since when, by the API server's clock.
	leadSince time.Time
	// progress is when a write last ended, or when the queue was last empty.
	progress time.Time
}

// ruleEntry is a rule with what the engine counts of it.
type ruleEntry struct {
	rule   *readiness.Rule
	counts Counts
	source ruleSource
	// invalid says why the rule is not understood as it is now; "" where it is. The last good one stays in force.
	invalid string
	// stub says that there is no good one: rule has a name and a UID. unknown says that only its taint, selector and timeout
	// are known, from the ledger.
	stub, unknown bool
	// generation is the one that was seen last.
	generation int64
	// blind says what of it cannot be looked at, and trouble what is in the way of looking; looked that this was found out.
	blind   readiness.Blind
	trouble string
	looked  bool
	// timedOut are nodes whose time is up and of whom nobody has been told.
	timedOut timedOut
	// runsExec says that the agent of some node was seen to run a command for the rule's probe. Until then nothing says that
	// any agent does, and no node is held for it.
	runsExec bool
	// deletions and reholds are what the rule's budget counts, by Node UID.
	deletions, reholds readiness.Brake
}

// Counts are the numbers of a rule's status.
type Counts struct {
	Matched, Held, Released, TimedOut, WouldHold int32
	// Refused are the nodes that wait for a probe which their agent does not run.
	Refused int32
	// Failing are the nodes that cannot be written.
	Failing int32
	// Braked are the nodes that are not held again, or whose NodeClaim is not deleted, because the budget is used up.
	Braked int32
}

// newEngine makes an empty engine. now is the API server's time as well as it is known.
func newEngine(log logr.Logger, now func() time.Time, m *metrics) *Engine {
	e := &Engine{
		log: log, now: now, local: time.Now, metrics: m,
		nodes: map[string]*node{}, byUID: map[types.UID]*ruleEntry{},
		daemonSets: map[string]map[string]*readiness.DaemonSetSpec{},
		pods:       map[string]map[podKey]readiness.Pod{}, drivers: map[string]csiNode{}, buried: map[string]readiness.Marks{},
		failing: map[watchKey]string{}, unseen: map[readiness.Form]string{},
		claims: make(chan claim, claimQueue), claimEvent: make(chan struct{}, 1),
		objects: map[watchKey]readiness.ObjectState{},
		synced:  map[watchKey]bool{}, watchEvent: make(chan struct{}, 1),
		dirtyRules: map[types.UID]struct{}{}, ruleEvent: make(chan struct{}, 1),
		progress: time.Now(),
	}
	e.common = readiness.Facts{
		DaemonSets: e.daemonSetsOf, LiveRule: e.liveRule, Named: e.named, NamedLabel: e.namedLabel, Startup: e.startup, Blind: e.blindTo,
	}
	e.queue.init()
	e.wakes.init()
	return e
}

// ObserveNode takes over a Node, as stripNode left it, and decides what it needs.
func (e *Engine) ObserveNode(in stripped) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.observe(in)
}

func (e *Engine) observe(in stripped) {
	n := e.nodes[in.Name]
	if n == nil {
		n = &node{name: in.Name, wakeIndex: -1, facts: e.common}
		n.facts.Pods = podList(e.pods[in.Name])
		n.facts.CSIDrivers, n.facts.CSINode = e.drivers[in.Name].drivers, e.drivers[in.Name].facts
		n.facts.OldNode = e.buried[in.Name]
		delete(e.buried, in.Name)
		n.facts.Objects = e.objectState
		n.facts.Lasting = n.lasting
		e.nodes[in.Name] = n
	}
	n.observe(in, e.now())
	n.facts.Devices = e.slices.devices(n.facts.Node)
	e.decide(n)
}

// ForgetNode drops a Node that was deleted.
func (e *Engine) ForgetNode(name string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.forgetNode(name)
}

func (e *Engine) forgetNode(name string) {
	n := e.nodes[name]
	if n == nil {
		return
	}
	for _, s := range slices.Clone(n.states) {
		e.count(n, s.rule, ruleState{state: readiness.StateUnbound})
	}
	e.wakes.cancel(n)
	e.queue.remove(n)
	delete(e.nodes, name)
	if marks := n.facts.Remains(); len(marks) > 0 {
		e.buried[name] = marks
	}
}

// ReplaceNodes takes over a complete list.
func (e *Engine) ReplaceNodes(list []stripped) {
	e.mu.Lock()
	defer e.mu.Unlock()
	there := make(map[string]bool, len(list))
	for _, in := range list {
		there[in.Name] = true
		if n := e.nodes[in.Name]; n != nil {
			// A list is the truth even where versions went back: an etcd that was restored.
			n.version, n.wrote = 0, 0
		}
		e.observe(in)
	}
	for name := range e.nodes {
		if !there[name] {
			e.forgetNode(name)
		}
	}
}

// decide evaluates all rules about the node, counts, and queues it where something is to be written. e.mu is held.
func (e *Engine) decide(n *node) {
	if n.facts.Node == nil {
		return
	}
	change, next := e.plan(n)
	e.wakes.cancel(n)
	if !next.IsZero() {
		e.wakes.set(n, next)
	}
	switch {
	case change.Urgency == readiness.UrgencyNone:
		n.dueSince = time.Time{}
		e.queue.remove(n)
	case !e.leading || n.active:
		// The leader decides for itself when it begins to lead; a writer, when it has ended.
	default:
		e.offer(n, &change)
	}
}

// offer queues a node, now or when it may be written again.
func (e *Engine) offer(n *node, change *readiness.Change) {
	now := e.now()
	if change.Urgency == readiness.UrgencyRelease && n.dueSince.IsZero() {
		n.dueSince = now
	}
	if at := n.writable(change); now.Before(at) {
		e.queue.remove(n)
		e.wakes.set(n, at)
		return
	}
	e.queue.push(n, change.Urgency)
}

// flipInterval is the least time between two writes of a node that flips.
const flipInterval = time.Second

// writable says from when the node may be written: at once while it starts, at most once a second from when it was held
// again, and never before a failure's backoff is over.
func (n *node) writable(change *readiness.Change) time.Time {
	at := n.notBefore
	spaced := n.reheld || change.Rehold || change.Urgency == readiness.UrgencyLabel
	if spaced && !n.lastWrite.IsZero() {
		if next := n.lastWrite.Add(flipInterval); next.After(at) {
			at = next
		}
	}
	return at
}

// plan evaluates and counts; next is when time alone will change the outcome.
func (e *Engine) plan(n *node) (readiness.Change, time.Time) {
	now := e.now()
	decisions := make([]readiness.Decision, 0, len(e.rules))
	var next time.Time
	n.dropLeft()
	n.reholds = n.reholds[:0]
	for _, r := range e.rules {
		begin := time.Now()
		d := e.evaluate(n, r, now)
		if r.Form == readiness.FormUpstream && d.State != readiness.StateUnbound {
			e.upstream.evaluated(r, time.Since(begin), now)
		}
		next = earlier(next, d.Recheck)
		if d.State == readiness.StateUnbound && !d.Stray() {
			e.count(n, r.UID, ruleState{state: d.State})
			continue
		}
		n.noteFirst(r, now)
		decisions = append(decisions, d)
	}
	e.countAll(n, decisions)
	n.anew = false
	retired := e.enforcedClaims()
	for i := range retired {
		next = earlier(next, retired[i].Recheck(n.facts.Node, now))
	}
	for i := range e.pending {
		// Whose it is will be known when the rules of its form are: until then it stays.
		if r := e.pending[i].Rule; e.pending[i].Covers(n.facts.Node) {
			decisions = append(decisions, readiness.Decision{Rule: r, State: readiness.StateForeign})
		}
	}
	change, err := readiness.Plan(&n.facts, decisions, retired, now)
	if err != nil {
		e.log.Error(err, "cannot plan node", "node", n.name)
	}
	return change, earlier(next, e.lookForUnclaimed(n, now))
}

// evaluate asks one rule, within its budget.
func (e *Engine) evaluate(n *node, r *readiness.Rule, now time.Time) readiness.Decision {
	d := readiness.Evaluate(r, &n.facts, now)
	n.noteLasting(&d)
	old, _ := n.states.get(r.UID)
	d.Again = d.State == readiness.StateHeld && !n.anew && (old.again || old.state == readiness.StateReleased)
	d.Braked = e.restrain(n, &d, now)
	if d.State != readiness.StateSuspended {
		n.noteHold(r, d.State)
	}
	return d
}

// earlier is the earlier of two times, of which zero is never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

func (e *Engine) markRule(uid types.UID) {
	e.dirtyRules[uid] = struct{}{}
	select {
	case e.ruleEvent <- struct{}{}:
	default:
	}
}

// liveRule says whether the rule exists, as far as that is known.
func (e *Engine) liveRule(uid types.UID) bool { return e.byUID[uid] != nil || len(e.unseen) > 0 }

func (e *Engine) daemonSetsOf(namespace string) []*readiness.DaemonSetSpec {
	if namespace == readiness.AllDaemonSets {
		var all []*readiness.DaemonSetSpec
		for _, ns := range slices.Sorted(maps.Keys(e.daemonSets)) {
			all = append(all, e.daemonSetsOf(ns)...)
		}
		return all
	}
	return slices.SortedFunc(maps.Values(e.daemonSets[namespace]), func(a, b *readiness.DaemonSetSpec) int {
		return strings.Compare(a.Name, b.Name)
	})
}

// Lead begins or ends writing: everything is decided afresh from the warm model.
func (e *Engine) Lead(leading bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.leading, e.leadSince = leading, e.now()
	e.progress = time.Now()
	if !leading {
		e.queue.clear()
		return
	}
	e.recallReholds()
	e.decideAll()
	for uid := range e.byUID {
		e.markRule(uid)
	}
}

func (e *Engine) decideAll() {
	for _, n := range e.nodes {
		e.decide(n)
	}
}

// waiting says how many nodes are to be written, and when a write last ended.
func (e *Engine) waiting() (nodes int, progress time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.queue.size, e.progress
}
