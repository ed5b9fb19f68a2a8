package inspect

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"headstart.dev/gates"
	"headstart.dev/gates/v1alpha1"
)

// PodReport says what a pod waits for.
type PodReport struct {
	Namespace string    `json:"namespace"`
	Name      string    `json:"name"`
	Created   time.Time `json:"created"`
	// Notice says that no controller is alive; absent where one is.
	Notice string `json:"notice,omitempty"`
	// State is Gated, Pending (no gate is left, no node was found), or Scheduled.
	State string `json:"state"`
	Node  string `json:"node,omitempty"`
	Gates []Gate `json:"gates,omitempty"`
	// HeldNodes are nodes that wait behind a rule's taint which the pod does not tolerate: the pod may be waiting for them.
	HeldNodes []string `json:"heldNodes,omitempty"`
	// Warm says where its images are; absent once it is on a node.
	Warm *gates.Warmth `json:"warm,omitempty"`
	// Pulling are the nodes whose agents a GatePolicy has asked to fetch its images.
	Pulling []string `json:"pulling,omitempty"`
	// Scheduler is what the scheduler says of a pod that it cannot place.
	Scheduler string `json:"scheduler,omitempty"`
}

// Gate is one scheduling gate of a pod.
type Gate struct {
	Name string `json:"name"`
	// Policy lifts it; empty where no policy names the gate.
	Policy string `json:"policy,omitempty"`
	// Missing is what would lift the gate if it came, in the order of the policy.
	Missing []string `json:"missing,omitempty"`
	// Since is when the wait began: gates are on a pod from its creation.
	Since time.Time `json:"since,omitzero"`
	// Next is what follows once nothing is missing.
	Next string `json:"next,omitempty"`
	// Deadline is when the policy gives up waiting, and OnDeadline what it does then.
	Deadline   time.Time           `json:"deadline,omitzero"`
	OnDeadline v1alpha1.OnDeadline `json:"onDeadline,omitempty"`
	// Error says why the policy is not in force.
	Error string `json:"error,omitempty"`
	// Problem is what the controller says keeps it from carrying the policy out.
	Problem string `json:"problem,omitempty"`

	placement  v1alpha1.Placement
	hidden     bool
	unattended string
	inForce    *v1alpha1.GatePolicy
}

// The states of a pod.
const (
	PodGated     = "Gated"
	PodPending   = "Pending"
	PodScheduled = "Scheduled"
)

// Pod reports on one pod. facts must know the nodes and the objects that the pod refers to.
func (v View) Pod(pod *corev1.Pod, policies []v1alpha1.GatePolicy, facts gates.Facts, nodes []Node) (PodReport, error) {
	r := PodReport{Namespace: pod.Namespace, Name: pod.Name, Created: pod.CreationTimestamp.Time, Node: pod.Spec.NodeName, Notice: v.notice(nil)}
	if pod.Spec.NodeName != "" {
		r.State = PodScheduled
		return r, nil
	}
	compact, err := gates.NewShapes().Pod(pod)
	if err != nil {
		return r, err
	}
	r.State = PodPending
	if facts.Fleet != nil && len(compact.Images) > 0 {
		warm := facts.Fleet.Warmth(compact.Shape)
		r.Warm = &warm
	}
	pointers := make([]*v1alpha1.GatePolicy, 0, len(policies))
	for i := range policies {
		pointers = append(pointers, &policies[i])
	}
	judged := gates.Judge(pointers, nil)
	for _, gate := range pod.Spec.SchedulingGates {
		r.State = PodGated
		g := explainGate(gate.Name, compact, judged, facts, v.Now)
		if g.unattended = v.unattended(&g); g.unattended != "" {
			g.Deadline = time.Time{} // nobody keeps it
		}
		g.Since, g.Next = r.Created, r.next(gate.Name, compact.Gates, g.placement)
		r.Gates = append(r.Gates, g)
	}
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse && r.State == PodPending {
			r.Scheduler = clean(c.Message)
		}
	}
	for _, node := range nodes {
		if slices.ContainsFunc(node.Rules, func(e ruleState) bool { return e.Tainted && !tolerates(pod, e.Taint) }) {
			r.HeldNodes = append(r.HeldNodes, node.Name)
		}
	}
	return r, nil
}

// explainGate explains a gate by the policy that is in force for it, which need not be the first that names it.
func explainGate(name string, pod *gates.Pod, judged map[types.UID]gates.Judgement, facts gates.Facts, now time.Time) Gate {
	g := Gate{Name: name}
	for _, j := range judged {
		if j.InForce != nil && j.InForce.GateName == name {
			g.explain(j, pod, facts, gates.ClockOf(pod, func(gate string) bool { return holdsGate(judged, gate) }, now))
		}
	}
	return g
}

func holdsGate(judged map[types.UID]gates.Judgement, gate string) bool {
	for _, j := range judged {
		if j.InForce != nil && j.InForce.GateName == gate {
			return true
		}
	}
	return false
}

func (g *Gate) explain(j gates.Judgement, pod *gates.Pod, facts gates.Facts, clock gates.Clock) {
	policy := j.InForce
	g.Policy, g.placement, g.inForce = policy.Name, policy.Placement, j.Policy
	if policy.Broken() {
		g.Error = j.Message
	}
	verdict := policy.Evaluate(pod, facts, clock)
	for _, unmet := range verdict.Unmet {
		g.Missing = append(g.Missing, clean(unmet.String()))
	}
	g.Deadline, g.OnDeadline = verdict.Deadline, v1alpha1.OnDeadlineRelease
	if policy.Hold {
		g.OnDeadline = v1alpha1.OnDeadlineHold
	}
	g.hidden = verdict.WantsNodes() && facts.Fleet != nil && !facts.Fleet.CouldRunSoon(pod.Shape)
	if c := meta.FindStatusCondition(j.Policy.Status.Conditions, "Satisfiable"); c != nil && c.Status == metav1.ConditionFalse {
		g.Problem = clean(c.Message)
	}
}

// unattended says why nobody carries the gate's policy out; "" where somebody does.
func (v View) unattended(g *Gate) string {
	switch {
	case v.Controller.Absent != "":
		return "no controller is alive to lift it"
	case g.inForce != nil && v.Overlooked(g.inForce.CreationTimestamp.Time, g.inForce.Status.ObservedGeneration):
		return "no controller has taken it up: is one started with --controllers=gates?"
	}
	return ""
}

// next says what follows when a gate of the pod is lifted.
func (p *PodReport) next(gate string, all []string, placement v1alpha1.Placement) string {
	var others []string
	for _, other := range all {
		if other != gate {
			others = append(others, other)
		}
	}
	switch {
	case len(others) > 0 && placement == v1alpha1.PlacementRequired:
		return "it goes together with the pod's last gate; before it: " + strings.Join(others, ", ")
	case len(others) > 0:
		return "then the pod waits for its other gates: " + strings.Join(others, ", ")
	case placement == v1alpha1.PlacementRequired:
		return "then it runs on one of the warm nodes, and on no other"
	case placement == v1alpha1.PlacementPreferred && p.Warm != nil:
		return "then it is steered to a warm node with room, if there is one"
	}
	return "then the scheduler places the pod"
}

// tolerates says whether the pod tolerates the taint, given as key=value:effect.
func tolerates(pod *corev1.Pod, text string) bool {
	taint := parseTaint(text)
	return slices.ContainsFunc(pod.Spec.Tolerations, func(t corev1.Toleration) bool {
		return (t.Key == taint.Key || t.Key == "" && t.Operator == corev1.TolerationOpExists) &&
			(t.Operator == corev1.TolerationOpExists || t.Value == taint.Value) && (t.Effect == "" || t.Effect == taint.Effect)
	})
}

// Describe says in a line what holds the gate.
func (g *Gate) Describe(now time.Time) string {
	var text string
	switch {
	case g.Policy == "":
		return "no GatePolicy names this gate; whoever put it there has to lift it"
	case g.Error != "":
		text = fmt.Sprintf("policy %s cannot be carried out: %s", g.Policy, g.Error)
	case g.unattended != "" && len(g.Missing) == 0:
		return fmt.Sprintf("policy %s: everything holds, and %s", g.Policy, g.unattended)
	case g.unattended != "":
		text = fmt.Sprintf("policy %s names it, and %s", g.Policy, g.unattended)
	case len(g.Missing) == 0 && g.Problem != "":
		return fmt.Sprintf("policy %s: everything holds, but %s", g.Policy, g.Problem)
	case len(g.Missing) == 0:
		return fmt.Sprintf("policy %s: everything holds, it is about to be lifted", g.Policy)
	case g.OnDeadline == v1alpha1.OnDeadlineHold:
		text = fmt.Sprintf("policy %s holds it until everything is there", g.Policy)
	case g.Deadline.IsZero():
		text = fmt.Sprintf("policy %s; its deadline does not run while others hold the pod", g.Policy)
	default:
		text = fmt.Sprintf("policy %s lifts it at the latest %s", g.Policy, when(g.Deadline, now))
	}
	if g.Problem != "" {
		text += "; " + g.Problem
	}
	if g.hidden {
		text += "; no node could run the pod now or soon, and no autoscaler sees a gated pod"
	}
	return text
}
