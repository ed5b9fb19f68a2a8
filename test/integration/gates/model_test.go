package gates_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"headstart.dev/gates/v1alpha1"
	"headstart.dev/prepull"
	"headstart.dev/readiness"
)

// The model is a cluster of a few nodes in which random things happen: nodes come, go and get warm, pause pods fill
// them, pods of several priorities come behind gates of several policies, alone, in gangs and beside the gates of a queue,
// policies are edited, broken and deleted. A watcher that knows nothing of the controller's code looks at pods and nodes
// and says who is held although its twin without a gate would be running, or could be seen by an autoscaler.
const (
	modelTime = 25 * time.Second
	// modelSlack is the second that a gated pod may start later than its twin. How long the machine takes to answer is
	// added: the slowest look of the watcher, several times.
	modelSlack = time.Second
	modelLooks = 5
	modelNodes = 5
	modelQueue = "queue.example/model"
	modelImage = "registry.example/model:v1"
	modelGang  = "job-name"
)

// modelDeadline is that of all policies but one, which holds.
const modelDeadline = 15 * time.Second

type model struct {
	t         *testing.T
	c         client.Client
	random    *rand.Rand
	namespace string
	pause     string
	made      int
	// policies that are there, by gate; broken ones have been edited so that they cannot be carried out.
	policies map[string]*v1alpha1.GatePolicy
	nodes    []string
	history  []string
	// late says since when a rule has been broken for a pod.
	late map[string]time.Time
	slow time.Duration
}

func TestModelOfGates(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	duration := modelTime
	if text := os.Getenv("HEADSTART_MODEL_TIME"); text != "" {
		var err error
		duration, err = time.ParseDuration(text)
		require.NoError(t, err)
	}
	if text := os.Getenv("HEADSTART_MODEL_SEED"); text != "" {
		_, err := fmt.Sscan(text, &seed)
		require.NoError(t, err)
	}
	t.Logf("seed %d (HEADSTART_MODEL_SEED)", seed)
	c := newClient(t)
	startController(t, fastConfig())
	m := &model{
		t: t, c: c, random: rand.New(rand.NewPCG(seed, 0)), namespace: namespace(t, c), pause: pausePriority(t, c),
		policies: map[string]*v1alpha1.GatePolicy{}, late: map[string]time.Time{},
	}
	t.Cleanup(func() {
		require.NoError(t, c.DeleteAllOf(afterwards(t), &corev1.Pod{}, client.InNamespace(m.namespace)))
	})
	for range 2 {
		m.addNode()
	}
	for _, name := range []string{"model-images", "model-required", "model-gang"} {
		m.addPolicy(name)
	}
	for end := time.Now().Add(duration); time.Now().Before(end); {
		m.step()
		for range 3 {
			m.look(seed)
		}
	}
	// At the end nothing is held for longer than its deadline.
	eventually(t, func() bool {
		m.look(seed)
		return !slices.ContainsFunc(m.pods(), func(p corev1.Pod) bool { return m.heldByUs(&p) && !m.heldByQueue(&p) && m.gangOf(&p) == "" })
	}, "pods are held for ever; seed %d, %v", seed, m.history)
}

func (m *model) did(format string, args ...any) {
	m.history = append(m.history, fmt.Sprintf(format, args...))
	m.history = m.history[max(0, len(m.history)-40):]
}

// step does one random thing.
func (m *model) step() {
	switch m.random.IntN(14) {
	case 0:
		m.addNode()
	case 1:
		m.removeNode()
	case 2, 3:
		m.warmNode()
	case 4, 5:
		m.addPod(m.pause, "")
	case 6, 7, 8:
		m.addPod("", "", m.gate())
	case 9:
		m.addPod("", "", m.gate(), modelQueue)
	case 10:
		m.openQueue()
	case 11:
		m.addGang()
	case 12:
		m.removePod()
	case 13:
		m.editPolicy()
	}
}

func (m *model) gate() string {
	return []string{"example.com/model-images", "example.com/model-required"}[m.random.IntN(2)]
}

func (m *model) addNode() {
	if len(m.nodes) >= modelNodes {
		return
	}
	m.made++
	name := fmt.Sprintf("model-%s-%d", m.namespace, m.made)
	images := []prepull.InventoryImage{warm("registry.example/other:v1")}
	if m.random.IntN(2) == 0 {
		images = append(images, warm(modelImage))
	}
	node(m.t, m.c, name, capacity("3"), images...)
	m.nodes = append(m.nodes, name)
	m.did("node %s", name)
}

// removeNode deletes a node and what ran there, as the controllers that do not run here would.
func (m *model) removeNode() {
	if len(m.nodes) == 0 {
		return
	}
	at := m.random.IntN(len(m.nodes))
	name := m.nodes[at]
	m.nodes = slices.Delete(m.nodes, at, at+1)
	m.did("no node %s", name)
	m.try(m.c.Delete(m.t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}))
	for _, pod := range m.pods() {
		if pod.Spec.NodeName == name {
			m.try(m.c.Delete(m.t.Context(), &pod, client.GracePeriodSeconds(0)))
		}
	}
}

func (m *model) warmNode() {
	if len(m.nodes) > 0 {
		name := m.nodes[m.random.IntN(len(m.nodes))]
		m.did("warm %s", name)
		setWarm(m.t, m.c, name, warm(modelImage))
	}
}

func (m *model) addPod(class, gang string, gates ...string) {
	m.made++
	b := makePod(m.namespace, fmt.Sprintf("p%d", m.made), gates...).image(modelImage).cpu("1")
	if class != "" {
		b.priorityClass(class)
	}
	if gang != "" {
		b.label(modelGang, gang)
	}
	b.create(m.t, m.c)
	m.did("pod %s %v", b.pod.Name, gates)
}

func (m *model) addGang() {
	m.made++
	for range 2 {
		m.addPod("", fmt.Sprintf("g%d", m.made), "example.com/model-gang")
	}
}

func (m *model) openQueue() {
	for _, pod := range m.pods() {
		if m.heldByQueue(&pod) {
			patch := fmt.Sprintf(`{"metadata":{"uid":%q},"spec":{"schedulingGates":[{"$patch":"delete","name":%q}]}}`, pod.UID, modelQueue)
			m.try(m.c.Patch(m.t.Context(), &pod, client.RawPatch("application/strategic-merge-patch+json", []byte(patch))))
			m.did("queue lets %s go", pod.Name)
			return
		}
	}
}

func (m *model) removePod() {
	if pods := m.pods(); len(pods) > 0 {
		pod := pods[m.random.IntN(len(pods))]
		m.did("no pod %s", pod.Name)
		m.try(m.c.Delete(m.t.Context(), &pod, client.GracePeriodSeconds(0)))
	}
}

// editPolicy breaks a policy, mends it, deletes it or makes it anew.
func (m *model) editPolicy() {
	name := []string{"model-images", "model-required"}[m.random.IntN(2)]
	p := m.policies[name]
	switch {
	case p == nil:
		m.addPolicy(name)
	case m.random.IntN(3) == 0:
		m.did("no policy %s", name)
		m.try(m.c.Delete(m.t.Context(), p))
		delete(m.policies, name)
	default:
		require.NoError(m.t, m.c.Get(m.t.Context(), keyOf(p), p))
		p.Spec.Requires = images()
		if m.random.IntN(2) == 0 && p.Spec.Placement != v1alpha1.PlacementRequired {
			p.Spec.Requires = append(p.Spec.Requires, v1alpha1.Requirement{Object: &v1alpha1.ObjectRequirement{
				APIVersion: "v1", Kind: "ConfigMap", Name: "x", Expression: "object +",
			}})
		}
		m.did("edits %s, %d requirements", name, len(p.Spec.Requires))
		m.try(m.c.Update(m.t.Context(), p))
	}
}

func (m *model) addPolicy(name string) {
	spec := v1alpha1.GatePolicySpec{GateName: "example.com/" + name, Requires: images(), Deadline: &metav1.Duration{Duration: modelDeadline}}
	switch name {
	case "model-required":
		spec.Placement = v1alpha1.PlacementRequired
	case "model-gang":
		spec.OnDeadline = v1alpha1.OnDeadlineHold
		spec.Requires = []v1alpha1.Requirement{{Gang: &v1alpha1.GangRequirement{Label: modelGang, Size: 2}}}
	}
	p := &v1alpha1.GatePolicy{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: spec}
	require.NoError(m.t, m.c.Create(m.t.Context(), p))
	m.t.Cleanup(func() {
		_ = m.c.Delete(afterwards(m.t), &v1alpha1.GatePolicy{ObjectMeta: metav1.ObjectMeta{Name: name}})
	})
	m.policies[name] = p
	m.did("policy %s", name)
}

// try ignores that somebody else was faster: the scheduler and the controller write too.
func (m *model) try(err error) {
	if client.IgnoreNotFound(err) != nil {
		m.did("%v", err)
	}
}

func (m *model) pods() []corev1.Pod {
	var list corev1.PodList
	require.NoError(m.t, m.c.List(m.t.Context(), &list, client.InNamespace(m.namespace)))
	return list.Items
}

func (m *model) heldByQueue(p *corev1.Pod) bool { return slices.Contains(gatesOf(p), modelQueue) }

func (m *model) heldByUs(p *corev1.Pod) bool {
	return slices.ContainsFunc(gatesOf(p), func(gate string) bool { return gate != modelQueue && m.named(gate) })
}

// named says whether a policy names the gate; pods that come after its deletion are nobody's.
func (m *model) named(gate string) bool { return m.policies[gate[len("example.com/"):]] != nil }

func (m *model) gangOf(p *corev1.Pod) string { return p.Labels[modelGang] }

// look checks the rules at this moment; a rule must be broken for longer than the slack.
func (m *model) look(seed uint64) {
	ctx, cancel := context.WithTimeout(m.t.Context(), patience)
	defer cancel()
	began := time.Now()
	var nodes corev1.NodeList
	require.NoError(m.t, m.c.List(ctx, &nodes))
	pods := m.pods()
	now := time.Now()
	m.slow = max(m.slow, now.Sub(began))
	broken := map[string]string{}
	for i := range pods {
		if why := m.rule(&pods[i], pods, nodes.Items, now); why != "" {
			broken[string(pods[i].UID)] = fmt.Sprintf("pod %s %v: %s", pods[i].Name, gatesOf(&pods[i]), why)
		}
	}
	for uid := range m.late {
		if broken[uid] == "" {
			delete(m.late, uid)
		}
	}
	for uid, why := range broken {
		if m.late[uid].IsZero() {
			m.late[uid] = now
		}
		slack := modelSlack + modelLooks*m.slow
		require.Lessf(m.t, now.Sub(m.late[uid]), slack, "%s; seed %d, %v", why, seed, m.history)
	}
}

// rule says which rule a pod breaks now.
func (m *model) rule(p *corev1.Pod, pods []corev1.Pod, nodes []corev1.Node, now time.Time) string {
	if p.DeletionTimestamp != nil || !m.heldByUs(p) || m.heldByQueue(p) {
		return ""
	}
	if gang := m.gangOf(p); gang != "" {
		for i := range pods {
			if m.gangOf(&pods[i]) == gang && len(pods[i].Spec.SchedulingGates) == 0 && pods[i].DeletionTimestamp == nil {
				return "another member of its gang is let go"
			}
		}
		return ""
	}
	if now.Sub(p.CreationTimestamp.Time) > 2*modelDeadline+time.Minute {
		return "it is held beyond every deadline"
	}
	some := false
	for i := range nodes {
		if !m.couldRun(p, &nodes[i], pods) {
			continue
		}
		some = true
		if strings.Contains(nodes[i].Annotations[readiness.AnnotationImages], modelImage) {
			return "its image is warm on " + nodes[i].Name + ", and there is room"
		}
	}
	if !some {
		return "no node could run it, and no autoscaler sees it"
	}
	return ""
}

// couldRun says whether the scheduler would find room for the pod on a node, preemption included.
func (m *model) couldRun(p *corev1.Pod, n *corev1.Node, pods []corev1.Pod) bool {
	if !slices.Contains(m.nodes, n.Name) {
		return false
	}
	free := n.Status.Allocatable.Cpu().MilliValue()
	for i := range pods {
		other := &pods[i]
		here := other.Spec.NodeName == n.Name || (other.Spec.NodeName == "" && other.Status.NominatedNodeName == n.Name)
		if here && *other.Spec.Priority >= *p.Spec.Priority {
			free -= other.Spec.Containers[0].Resources.Requests.Cpu().MilliValue()
		}
	}
	return free >= p.Spec.Containers[0].Resources.Requests.Cpu().MilliValue()
}
