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
	"k8s.io/apimachinery/pkg/runtime/schema"
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
	client *kubernetes.Clientset
	api    *gateway
	// conditions are what the stand-ins' probes are to become: True, or a message that holds the text.
	conditions map[corev1.NodeConditionType]string
	ctd        *testenv.Containerd
	helm       helm
	sets       []string
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
	img, err := images.Build(t.Context(), images.Sized("app", 1<<20))
	require.NoError(t, err)
	app, _, err := reg.Push(t.Context(), "app:v1", img)
	require.NoError(t, err)
	c := &cluster{client: client, api: gate, ctd: ctd, helm: newHelm(t, cp.Kubeconfig("admin", "system:masters")), app: app}
	for key, spec := range map[string]image.Spec{"agent": image.Agent, "controller": image.Controller} {
		repository, digest := publish(t, reg, spec)
		c.sets = append(c.sets, "--set", key+".image.repository="+repository, "--set", key+".image.digest="+digest)
	}
	probes, conditions := standIns(t, node.RootDir())
	c.conditions = conditions
	// What is not the default is where this machine keeps things: its containerd and kubelet are not at a node's places.
	c.sets = append(c.sets, "-f", valuesFile(t, map[string]any{
		"containerd": map[string]any{"address": "unix://" + ctd.Address()},
		"kubeletDir": node.RootDir(),
		"stateDir":   t.TempDir(),
		"probes":     append(probes, map[string]any{"name": "cni", "type": "cni", "confDir": ctd.CNIConfDir()}),
	}))
	t.Cleanup(func() { c.explain(t) })
	return c
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
	require.Eventually(t, func() bool {
		pod, err := c.client.CoreV1().Pods("default").Get(t.Context(), name, metav1.GetOptions{})
		return err == nil && pod.Status.Phase == corev1.PodRunning
	}, patience, look, "pod %s does not run", name)
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
	chart := filepath.Join(root, "deploy/charts/headstart")
	c.run(t, "web")

	c.helm.run(t, append([]string{"install", "headstart", chart, "--create-namespace"}, c.sets...)...)
	require.Eventually(t, func() bool { return condition(c.node(t), readiness.ConditionCNIReady) == corev1.ConditionFalse }, patience, look,
		"the agent runs before there is a network")
	require.True(t, tainted(c.node(t)))
	require.NoError(t, c.ctd.WriteCNI())
	require.Eventually(t, func() bool { return !tainted(c.node(t)) }, patience, look, "the controller starts behind its own taint and lifts it")
	require.Equal(t, corev1.ConditionTrue, condition(c.node(t), readiness.ConditionCNIReady))
	require.Equal(t, "true", c.node(t).Labels[readiness.LabelCNIReady])
	c.waitRunning(t, "web")
	require.Eventually(t, func() bool { return c.rolledOut(t) }, patience, look, "two controllers and an agent")

	t.Run("every probe family works in the chart's pod", c.probes)
	t.Run("images come by policy", c.prepull)
	t.Run("a warm pool lives in Berlin", c.warmPool)
	t.Run("a gate is lifted", func(t *testing.T) {
		c.gatePolicy(t)
		c.run(t, "gated", "example.com/config")
		_, err := c.client.CoreV1().ConfigMaps("default").Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "flags"}}, metav1.CreateOptions{})
		require.NoError(t, err)
		c.waitRunning(t, "gated")
	})
	t.Run("lists of ten seconds, and a dead leader", c.slowTakeover)
	t.Run("an idle minute is silent", c.idle)
	t.Run("an upgrade loses no readiness", func(t *testing.T) {
		watch, err := c.client.CoreV1().Nodes().Watch(t.Context(), metav1.ListOptions{})
		require.NoError(t, err)
		c.helm.run(t, append([]string{"upgrade", "headstart", chart, "--set", "controller.logLevel=debug", "--set", "agent.config.pull.minFree=5%", "--timeout", "3m"}, c.sets...)...)
		require.Eventually(t, func() bool { return c.rolledOut(t) }, patience, look)
		watch.Stop()
		for event := range watch.ResultChan() {
			node, ok := event.Object.(*corev1.Node)
			require.True(t, ok)
			require.False(t, tainted(node), "the taint came back")
			require.NotEqual(t, corev1.ConditionFalse, condition(node, readiness.ConditionCNIReady))
		}
	})
	t.Run("an uninstall leaves nothing", func(t *testing.T) {
		c.run(t, "waits", "example.com/config", "example.com/anothers")
		c.helm.run(t, "uninstall", "headstart", "--wait", "--timeout", "3m")
		node := c.node(t)
		require.False(t, tainted(node))
		for key := range node.Labels {
			require.NotContains(t, key, readiness.Domain)
		}
		for key := range node.Annotations {
			require.NotContains(t, key, readiness.Domain)
		}
		for _, got := range node.Status.Conditions {
			require.NotContains(t, string(got.Type), readiness.Domain)
		}
		pod, err := c.client.CoreV1().Pods("default").Get(t.Context(), "waits", metav1.GetOptions{})
		require.NoError(t, err)
		require.Equal(t, []corev1.PodSchedulingGate{{Name: "example.com/anothers"}}, pod.Spec.SchedulingGates)
		c.requireNothingLeft(t)
	})
}

// gatePolicy makes a policy that waits for what a pod names.
func (c *cluster) gatePolicy(t *testing.T) {
	t.Helper()
	_, err := c.client.RESTClient().Post().AbsPath("/apis/headstart.dev/v1alpha1/gatepolicies").Body([]byte(`{
		"apiVersion": "headstart.dev/v1alpha1", "kind": "GatePolicy", "metadata": {"name": "config"},
		"spec": {"gateName": "example.com/config", "requires": [{"references": {}}], "deadline": "1h"}}`)).DoRaw(t.Context())
	require.NoError(t, err)
}

// requireNothingLeft looks for objects of the chart, everywhere.
func (c *cluster) requireNothingLeft(t *testing.T) {
	t.Helper()
	client := dynamic.New(c.client.RESTClient())
	for _, resource := range []schema.GroupVersionResource{
		{Version: "v1", Resource: "pods"},
		{Version: "v1", Resource: "configmaps"},
		{Version: "v1", Resource: "services"},
		{Version: "v1", Resource: "serviceaccounts"},
		{Group: "apps", Version: "v1", Resource: "deployments"},
		{Group: "apps", Version: "v1", Resource: "daemonsets"},
		{Group: "batch", Version: "v1", Resource: "jobs"},
		{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "clusterroles"},
		{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "clusterrolebindings"},
		{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "roles"},
		{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "rolebindings"},
		{Group: "admissionregistration.k8s.io", Version: "v1", Resource: "validatingadmissionpolicies"},
		{Group: "scheduling.k8s.io", Version: "v1", Resource: "priorityclasses"},
		{Group: "headstart.dev", Version: "v1alpha1", Resource: "nodereadinessrules"},
	} {
		require.Eventually(t, func() bool {
			list, err := client.Resource(resource).List(t.Context(), metav1.ListOptions{})
			require.NoError(t, err)
			for _, item := range list.Items {
				if strings.HasPrefix(item.GetName(), "headstart") {
					return false
				}
			}
			return true
		}, patience, look, "%s are left", resource.Resource)
	}
}
