package shipped_test

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"

	"headstart.dev/deploy/image"
	"headstart.dev/readiness"
	"headstart.dev/test/testenv"
	"headstart.dev/test/testenv/images"
)

var startupTaint = corev1.Taint{Key: "readiness.k8s.io/headstart", Value: "pending", Effect: corev1.TaintEffectNoSchedule}

// cluster is what the steps of the test share.
type cluster struct {
	client  *kubernetes.Clientset
	objects *dynamic.DynamicClient
	api     *gateway
	// conditions are what the stand-ins' probes are to become: True, or a message that holds the text.
	conditions map[corev1.NodeConditionType]string
	reg        *testenv.Registry
	ctd        *testenv.Containerd
	kubelet    *testenv.Node
	helm       helm
	app        string
}

func start(t *testing.T) *cluster {
	t.Helper()
	testenv.RequireRoot(t)
	cp := testenv.StartControlPlane(t, testenv.ControlPlaneConfig{Scheduler: true, ControllerManager: true})
	gate := startGateway(t, cp)
	reg := testenv.StartRegistry(t, testenv.RegistryConfig{})
	ctd := testenv.StartContainerd(t, testenv.ContainerdConfig{Registry: reg})
	// The node boots without its network, behind the taint that a NodePool gives it.
	node := testenv.StartNode(t, cp, ctd, testenv.NodeConfig{Taints: []corev1.Taint{startupTaint}, Labels: map[string]string{"pool": "test"}})
	client, err := kubernetes.NewForConfig(cp.Config())
	require.NoError(t, err)
	objects, err := dynamic.NewForConfig(cp.Config())
	require.NoError(t, err)
	img, err := images.Build(t.Context(), images.Sized("app", 1<<20))
	require.NoError(t, err)
	app, _, err := reg.Push(t.Context(), "app:v1", img)
	require.NoError(t, err)
	c := &cluster{
		client: client, objects: objects, api: gate, reg: reg, ctd: ctd, kubelet: node, app: app,
		helm: newHelm(t, cp.Kubeconfig("admin", "system:masters")),
	}
	t.Cleanup(func() { c.explain(t) })
	return c
}

// images publishes the images of a source and returns the flags by which Helm sets them.
func (c *cluster) images(t *testing.T, source string) []string {
	t.Helper()
	var flags []string
	for key, spec := range map[string]image.Spec{"agent": image.Agent, "controller": image.Controller} {
		repository, digest := publish(t, c.reg, spec, source)
		flags = append(flags, "--set", key+".image.repository="+repository, "--set", key+".image.digest="+digest)
	}
	return flags
}

// values are the only ones that are not the defaults: where this machine keeps things, as its containerd and kubelet are not
// at a node's places, and what is probed.
func (c *cluster) values(t *testing.T, probes ...map[string]any) []string {
	t.Helper()
	return []string{"-f", valuesFile(t, map[string]any{
		"containerd": map[string]any{"address": "unix://" + c.ctd.Address()},
		"kubeletDir": c.kubelet.RootDir(),
		"stateDir":   t.TempDir(),
		"probes":     append(probes, map[string]any{"name": "cni", "type": "cni", "confDir": c.ctd.CNIConfDir()}),
	})}
}

func (c *cluster) node(t *testing.T) *corev1.Node {
	t.Helper()
	node, err := c.client.CoreV1().Nodes().Get(t.Context(), "node1", metav1.GetOptions{})
	require.NoError(t, err)
	return node
}

func tainted(node *corev1.Node) bool {
	for _, taint := range node.Spec.Taints {
		if strings.HasPrefix(taint.Key, readiness.TaintPrefix) {
			return true
		}
	}
	return false
}

func condition(node *corev1.Node, kind corev1.NodeConditionType) corev1.ConditionStatus {
	for _, c := range node.Status.Conditions {
		if c.Type == kind {
			return c.Status
		}
	}
	return ""
}

// run makes a pod of the app, with gates.
func (c *cluster) run(t *testing.T, name string, gates ...string) {
	t.Helper()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"},
		Spec: corev1.PodSpec{
			TerminationGracePeriodSeconds: new(int64),
			Containers: []corev1.Container{{Name: "app", Image: c.app, EnvFrom: []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{
				LocalObjectReference: corev1.LocalObjectReference{Name: "flags"}, Optional: new(len(gates) == 0),
			}}}}},
		},
	}
	for _, gate := range gates {
		pod.Spec.SchedulingGates = append(pod.Spec.SchedulingGates, corev1.PodSchedulingGate{Name: gate})
	}
	_, err := c.client.CoreV1().Pods("default").Create(t.Context(), pod, metav1.CreateOptions{})
	require.NoError(t, err)
}

func (c *cluster) waitRunning(t *testing.T, name string) {
	t.Helper()
	eventually(t, func() bool {
		pod, err := c.client.CoreV1().Pods("default").Get(t.Context(), name, metav1.GetOptions{})
		return err == nil && pod.Status.Phase == corev1.PodRunning
	}, "pod %s does not run", name)
}

func (c *cluster) rolledOut(t *testing.T) bool {
	t.Helper()
	deployment, err := c.client.AppsV1().Deployments(namespace).Get(t.Context(), "headstart-controller", metav1.GetOptions{})
	require.NoError(t, err)
	agents, err := c.client.AppsV1().DaemonSets(namespace).Get(t.Context(), "headstart-agent", metav1.GetOptions{})
	require.NoError(t, err)
	d, a := deployment.Status, agents.Status
	return d.ObservedGeneration == deployment.Generation && d.UpdatedReplicas == 2 && d.AvailableReplicas == 2 && d.Replicas == 2 &&
		a.ObservedGeneration == agents.Generation && a.UpdatedNumberScheduled == 1 && a.NumberReady == 1
}

// explain shows the pods and events of a test that failed.
func (c *cluster) explain(t *testing.T) {
	t.Helper()
	if !t.Failed() {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 20*time.Second)
	defer cancel()
	pods, err := c.client.CoreV1().Pods("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return
	}
	for _, pod := range pods.Items {
		t.Logf("pod %s/%s: %s", pod.Namespace, pod.Name, pod.Status.Phase)
		for _, s := range pod.Status.ContainerStatuses {
			t.Logf("  %s: %+v", s.Name, s.State)
		}
		tail := int64(15)
		logs, err := c.client.CoreV1().Pods(pod.Namespace).GetLogs(pod.Name, &corev1.PodLogOptions{TailLines: &tail}).DoRaw(ctx)
		if err == nil {
			t.Logf("  %s", logs)
		}
	}
	events, err := c.client.CoreV1().Events("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return
	}
	for _, e := range events.Items {
		if e.Type == corev1.EventTypeWarning {
			t.Logf("event %s %s: %s", e.InvolvedObject.Name, e.Reason, e.Message)
		}
	}
}

func TestChartFromInstallToUninstall(t *testing.T) {
	c := start(t)
	probes, conditions := standIns(t, c.client, c.kubelet.RootDir())
	c.conditions = conditions
	set := append(c.release(t), c.values(t, probes...)...)
	c.run(t, "web")
	c.install(t, filepath.Join(root, chartPath), set)
	c.waitRunning(t, "web")

	t.Run("every probe family works in the chart's pod", c.probes)
	t.Run("images come by policy", c.prepull)
	t.Run("a warm pool lives in Berlin", c.warmPool)
	t.Run("a gate is lifted", c.gate)
	t.Run("the shipped gates are lifted", c.shippedGates)
	t.Run("lists of ten seconds, and a dead leader", c.slowTakeover)
	t.Run("an idle minute is silent", c.idle)
	t.Run("an image that is nowhere costs nothing", c.unreachable)
	// Agents that start again have this image's trouble to tell before they have looked at anything else.
	t.Run("an upgrade of values loses no readiness", func(t *testing.T) {
		c.upgrade(t, append(set, "--set", "controller.logLevel=debug", "--set", "agent.config.pull.minFree=5%"))
	})
	t.Run("an image that nobody wants is forgotten", c.forget)
	t.Run("what helm template prints takes nothing away", func(t *testing.T) { c.applyTemplate(t, filepath.Join(root, chartPath), set) })
	t.Run("an uninstall leaves nothing", c.uninstall)
}

func TestChartUpgradesFromTheOneBefore(t *testing.T) {
	c := start(t)
	source, values := before(t), c.values(t)
	c.install(t, filepath.Join(source, chartPath), append(c.images(t, source), values...))
	c.run(t, "web")
	c.waitRunning(t, "web")
	t.Run("no readiness is lost", func(t *testing.T) {
		c.upgrade(t, append(c.images(t, root), values...))
		require.Equal(t, corev1.ConditionTrue, condition(c.node(t), readiness.ConditionCNIReady))
	})
	t.Run("a gate is lifted", c.gate)
	t.Run("an uninstall leaves nothing", c.uninstall)
}
