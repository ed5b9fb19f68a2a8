package readiness_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"headstart.dev/readiness"
	"headstart.dev/readiness/v1alpha1"
)

// modelDefault is how long the model-based test runs without HEADSTART_MODEL_TIME (10m at night).
const modelDefault = 60 * time.Second

// modelPatience is the rule's timeout. The rule holds on when it is over; a stray taint goes.
const modelPatience = 2 * time.Second

// model is the reference: what must be true of the test's one rule and its nodes once everything has settled. It knows
// the contract, not the engine.
type model struct {
	e    *env
	rng  *rand.Rand
	rule *v1alpha1.NodeReadinessRule
	ctl  *running
	// second is another controller that believes to lead, at times.
	second *running
	nodes  []*modelNode
	log    []string
	// claimed says that a controller has noted whose the rule's taint is. Nobody can tell that of a rule which was made and
	// deleted while no controller ran, so no node registers with its taint before.
	claimed bool
	// nonsense says that the rule has been edited to what nobody understands: its last good form is in force.
	nonsense bool
	// clock is a rule that nothing meets: its time-outs run whatever happens.
	clock *v1alpha1.NodeReadinessRule
	// blind says that the controller may not read CSINodes.
	blind bool
}

type modelNode struct {
	name  string
	ready bool
	bound bool
	// done says that the bootstrap was over at some settled moment, under the rule of today.
	done bool
	// before says that the node is older than the rule.
	before bool
	// wasReady says that the node was ready at some moment since all had settled, and unsure that it was, under no rule
	// that is known to have seen it: whether its bootstrap is over depends on who was faster.
	wasReady, unsure bool
	// forged says that somebody else wrote the node's record: what was done there is forgotten.
	forged bool
}

// tainted is what the contract says of the node, or nothing where it says none.
func (m *model) tainted(n *modelNode) (want, known bool) {
	switch {
	case m.rule == nil || !n.bound:
		return false, true
	case m.rule.Spec.DryRun || n.ready || n.done && !n.forged && m.rule.Spec.Mode == v1alpha1.ModeBootstrapOnly:
		return false, true
	case (n.unsure || n.forged) && m.rule.Spec.Mode == v1alpha1.ModeBootstrapOnly:
		return false, false
	case n.before:
		// Held where it was held before the rule was made anew; never newly. Either is right, so neither is asserted.
		return false, false
	default:
		return true, true
	}
}

var modelSteps = []struct {
	name string
	do   func(*model)
}{
	{"flip", func(m *model) { m.flip(m.pick()) }},
	{"flip", func(m *model) { m.flip(m.pick()) }},
	{"leave or enter the selector", func(m *model) {
		n := m.pick()
		n.bound = !n.bound
		m.e.setLabel(n.name, "pool", map[bool]any{true: m.e.pool, false: "elsewhere"}[n.bound])
	}},
	{"node made anew", func(m *model) { n := m.pick(); m.remake(n) }},
	{"taints replaced by hand", func(m *model) { m.setTaints(m.pick().name) }},
	{"taint added by hand", func(m *model) {
		if n := m.pick(); m.rule != nil && n.bound && !m.rule.Spec.DryRun && !n.before {
			m.setTaints(n.name, corev1.Taint{Key: m.key(), Value: "hand", Effect: corev1.TaintEffectNoSchedule})
		}
	}},
	{"controller restarted", func(m *model) { m.restart() }},
	{"controller restarted behind a failing API server", func(m *model) { m.restart(failingAPIServer()) }},
	{"second leader comes or goes", func(m *model) {
		if m.second != nil {
			m.second.Stop()
			m.second = nil
			return
		}
		m.second = m.e.startController()
	}},
	{"reboot", func(m *model) { m.e.boot(m.pick().name, fmt.Sprintf("boot-%d", m.e.seq.Add(1))) }},
	{"mode", func(m *model) {
		if m.rule == nil || m.nonsense {
			return
		}
		mode := v1alpha1.ModeContinuous
		if m.rule.Spec.Mode == mode {
			mode = v1alpha1.ModeBootstrapOnly
		}
		m.rule.Spec.Mode = mode
		m.e.changeRule(m.rule, map[string]any{"mode": mode})
	}},
	{"dry run", func(m *model) {
		if m.rule != nil && !m.nonsense {
			m.rule.Spec.DryRun, m.claimed = !m.rule.Spec.DryRun, false
			m.e.changeRule(m.rule, map[string]any{"dryRun": m.rule.Spec.DryRun})
		}
	}},
	{"rule deleted or made", func(m *model) { m.toggleRule() }},
	{"rule edited to nonsense, or mended", func(m *model) { m.toggleNonsense() }},
	{"somebody else's rule that nobody understands", func(m *model) { m.badRule() }},
	{"right taken or given back", func(m *model) { m.toggleRight() }},
	{"record forged", func(m *model) { m.forge(m.pick()) }},
}

func (m *model) restart(options ...option) {
	m.ctl.Stop()
	m.ctl = m.e.startController(options...)
}

func (m *model) key() string { return readiness.TaintPrefix + m.e.pool }

func (m *model) pick() *modelNode { return m.nodes[m.rng.IntN(len(m.nodes))] }

func (m *model) flip(n *modelNode) {
	n.ready = !n.ready
	n.wasReady = n.wasReady || n.ready
	m.report(n)
}

func (m *model) report(n *modelNode) {
	m.e.report(n.name, testCondition, map[bool]corev1.ConditionStatus{true: corev1.ConditionTrue, false: corev1.ConditionFalse}[n.ready])
}

func (m *model) remake(n *modelNode) {
	m.e.drop(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: n.name}})
	*n = modelNode{name: n.name, bound: true}
	m.create(n)
}

func (m *model) create(n *modelNode) {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: n.name, Labels: map[string]string{"pool": m.e.pool, "clock": m.e.pool, tenantLabel: "true"}}}
	node.Spec.Taints = []corev1.Taint{quarantine}
	if m.claimed && m.rng.IntN(2) == 0 {
		tainted(m.key())(node)
	}
	if m.clock != nil && m.rng.IntN(2) == 0 {
		tainted(taintKey(m.clock))(node)
	}
	require.NoError(m.e.t, m.e.Create(m.e.t.Context(), node))
}

func (m *model) toggleRule() {
	m.claimed, m.nonsense = false, false
	if m.rule != nil {
		m.e.drop(&v1alpha1.NodeReadinessRule{ObjectMeta: metav1.ObjectMeta{Name: m.rule.Name}})
		m.rule = nil
		return
	}
	// Creation times have whole seconds: every node of today is to be older than the rule.
	time.Sleep(1100 * time.Millisecond) //nolint:forbidigo // the API server's clock is not ours to turn
	m.rule = m.e.rule(func(r *v1alpha1.NodeReadinessRule) {
		r.Spec.Taint.Key = m.key()
		r.Spec.ReadinessTimeout, r.Spec.OnTimeout = &metav1.Duration{Duration: modelPatience}, v1alpha1.TimeoutHold
		all := intstr.FromString("100%")
		r.Spec.Budget = &v1alpha1.Budget{Reholds: &all}
	})
	for _, n := range m.nodes {
		n.before, n.done = true, false
	}
}

// remember notes what of the time since all had settled leaves open how a node must be.
func (m *model) remember(n *modelNode) {
	n.unsure = !n.ready && (n.unsure || n.wasReady && !n.done)
	n.wasReady = n.ready
}

// settle waits until every node is as the contract says.
func (m *model) settle() {
	if m.rule != nil && !m.rule.Spec.DryRun && !m.claimed {
		m.e.eventuallyClaimed(m.rule.Name)
		m.claimed = true
	}
	for _, n := range m.nodes {
		m.remember(n)
		m.settleApart(n)
		want, known := m.tainted(n)
		if !known {
			continue
		}
		m.e.eventually(n.name, fmt.Sprintf("taint=%t on %+v after %v", want, *n, m.log), func(node *corev1.Node) bool {
			return hasTaint(node, m.key()) == want
		})
		if m.rule != nil && n.bound && n.ready && !m.rule.Spec.DryRun {
			if !n.before {
				m.e.eventually(n.name, fmt.Sprintf("completion recorded on %+v after %v", *n, m.log), m.recorded)
				n.done = n.done || m.rule.Spec.Mode == v1alpha1.ModeBootstrapOnly
				n.forged = n.forged && !n.done
			}
		}
	}
}

// recorded says whether the node's record names the rule as done; a continuous rule needs no record.
func (m *model) recorded(node *corev1.Node) bool {
	rec, err := readiness.DecodeRecord(node)
	return err == nil && (m.rule.Spec.Mode == v1alpha1.ModeContinuous || rec.Rules[m.rule.UID].State == readiness.EntryDone)
}

func TestModel(t *testing.T) {
	limit := modelDefault
	if text := os.Getenv("HEADSTART_MODEL_TIME"); text != "" {
		var err error
		limit, err = time.ParseDuration(text)
		require.NoError(t, err)
	}
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("HEADSTART_MODEL_SEED"); text != "" {
		var err error
		seed, err = strconv.ParseUint(text, 10, 64)
		require.NoError(t, err)
	}
	t.Logf("seed %d (HEADSTART_MODEL_SEED repeats its events, not what is faster than what)", seed)
	m := &model{e: newEnv(t), rng: rand.New(rand.NewPCG(seed, 0))}
	m.begin()
	for i := range 4 {
		n := &modelNode{name: fmt.Sprintf("%s-n%d", m.e.pool, i), bound: true, before: true}
		m.nodes = append(m.nodes, n)
		m.create(n)
		t.Cleanup(func() { m.e.drop(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: n.name}}) })
	}
	m.toggleRule()
	m.ctl = m.e.startController()
	for begin := time.Now(); time.Since(begin) < limit; {
		for range 1 + m.rng.IntN(3) {
			step := modelSteps[m.rng.IntN(len(modelSteps))]
			m.log = append(m.log, step.name)
			step.do(m)
		}
		m.settle()
	}
	t.Logf("%d steps", len(m.log))
}
