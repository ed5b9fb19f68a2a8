// Package prepull_test runs PrepullPolicies on a real node: kubelet, containerd, registry, and the agent as it is shipped.
package prepull_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"headstart.dev/prepull"
	"headstart.dev/prepull/controller"
	"headstart.dev/prepull/v1alpha1"
	"headstart.dev/readiness"
	"headstart.dev/test/testenv"
	"headstart.dev/test/testenv/images"
)

const (
	settleTime = 90 * time.Second
	pollTime   = 50 * time.Millisecond
	nodeName   = "node1"
	mib        = 1 << 20
)

// cluster is one real node and what the test does to it.
type cluster struct {
	client.Client
	t   *testing.T
	cp  *testenv.ControlPlane
	reg *testenv.Registry
	ctd *testenv.Containerd
	nod *testenv.Node
}

// newCluster has all that policies need.
func newCluster(t *testing.T) *cluster {
	t.Helper()
	c := startCluster(t, testenv.ControlPlaneConfig{Scheduler: true, ControllerManager: true, CRDDirs: []string{"deploy/crd"}}, testenv.NodeConfig{Name: nodeName, CNI: true})
	c.permitAgents()
	require.NoError(t, c.nod.WaitReady(t.Context()))
	return c
}

func startCluster(t *testing.T, control testenv.ControlPlaneConfig, node testenv.NodeConfig) *cluster {
	t.Helper()
	c := &cluster{t: t}
	c.cp = testenv.StartControlPlane(t, control)
	c.reg = testenv.StartRegistry(t, testenv.RegistryConfig{})
	c.ctd = testenv.StartContainerd(t, testenv.ContainerdConfig{Registry: c.reg})
	c.nod = testenv.StartNode(t, c.cp, c.ctd, node)
	scheme := runtime.NewScheme()
	require.NoError(t, clientgoscheme.AddToScheme(scheme))
	require.NoError(t, v1alpha1.AddToScheme(scheme))
	var err error
	c.Client, err = client.New(c.cp.Config(), client.Options{Scheme: scheme})
	require.NoError(t, err)
	return c
}

// permitAgents applies what deploy/rbac gives to the identity of a kubelet.
func (c *cluster) permitAgents() {
	c.t.Helper()
	content, err := os.ReadFile("../../../deploy/rbac/agent/prepull.yaml")
	require.NoError(c.t, err)
	for doc := range bytes.SplitSeq(content, []byte("\n---\n")) {
		var obj client.Object = &rbacv1.ClusterRole{}
		if bytes.Contains(doc, []byte("kind: ClusterRoleBinding")) {
			obj = &rbacv1.ClusterRoleBinding{}
		}
		require.NoError(c.t, yaml.UnmarshalStrict(doc, obj))
		require.NoError(c.t, c.Create(c.t.Context(), obj))
	}
}

// push stores an image of some size and returns the name by which pods know it.
func (c *cluster) push(repositoryTag string) string {
	c.t.Helper()
	image, err := images.Build(c.t.Context(), images.Sized(repositoryTag, 4*mib, mib))
	require.NoError(c.t, err)
	ref, _, err := c.reg.Push(c.t.Context(), repositoryTag, image)
	require.NoError(c.t, err)
	return ref
}

// runController runs the controller as headstart-controller does.
func (c *cluster) runController() {
	c.t.Helper()
	ctl, err := controller.New(controller.Config{REST: c.cp.Config(), Namespace: "headstart-system", Log: logr.Discard()})
	require.NoError(c.t, err)
	ctx, cancel := context.WithCancel(c.t.Context())
	done := make(chan error, 1)
	go func() { done <- ctl.Start(ctx) }()
	c.t.Cleanup(func() {
		cancel()
		require.NoError(c.t, <-done)
	})
}

// runAgent builds and runs headstart-agent with the kubelet's own identity and an empty static list.
func (c *cluster) runAgent() {
	c.t.Helper()
	dir := c.t.TempDir()
	binary, err := testenv.BuildCommand(c.t.Context(), "headstart-agent")
	require.NoError(c.t, err)
	config := filepath.Join(dir, "agent.yaml")
	require.NoError(c.t, os.WriteFile(config, fmt.Appendf(nil, `
apiVersion: agent.headstart.dev/v1alpha1
kind: AgentConfig
nodeName: %s
kubeconfig: %s
stateDir: %s
containerd: {address: %s}
metrics: {bindAddress: "0"}
`, nodeName, c.nod.Kubeconfig(), dir, c.ctd.Address()), 0o600))
	var log bytes.Buffer
	run := exec.CommandContext(c.t.Context(), binary, "run", "--config", config)
	run.Stdout, run.Stderr = &log, &log
	run.Cancel = func() error { return run.Process.Signal(os.Interrupt) }
	run.WaitDelay = 10 * time.Second
	require.NoError(c.t, run.Start())
	c.t.Cleanup(func() {
		_ = run.Wait() // the test's context has ended and interrupted it
		if c.t.Failed() {
			c.t.Logf("the agent's log:\n%s", log.String())
		}
	})
}

func (c *cluster) eventually(what string, check func() bool) {
	c.t.Helper()
	deadline := time.NewTimer(settleTime)
	defer deadline.Stop()
	tick := time.NewTicker(pollTime)
	defer tick.Stop()
	for !check() {
		select {
		case <-tick.C:
		case <-deadline.C:
			var policies v1alpha1.PrepullPolicyList
			_ = c.List(c.t.Context(), &policies) // a cluster need not have the resource
			require.FailNow(c.t, what, "the policies are %+v, the inventory is %+v", policies.Items, c.inventory())
		}
	}
}

func (c *cluster) status(policy string) v1alpha1.PrepullPolicyStatus {
	c.t.Helper()
	var obj v1alpha1.PrepullPolicy
	require.NoError(c.t, c.Get(c.t.Context(), client.ObjectKey{Name: policy}, &obj))
	return obj.Status
}

// lists says whether a policy has the node pull an image, and for which reason.
func (c *cluster) lists(policy, image string, source v1alpha1.Source) bool {
	for _, img := range c.status(policy).Images {
		if img.Image == image && img.Source == source && img.Digest != "" && img.LeftOut == "" {
			return true
		}
	}
	return false
}

// inventory is what the agent has published.
func (c *cluster) inventory() prepull.Inventory {
	c.t.Helper()
	var node corev1.Node
	require.NoError(c.t, c.Get(c.t.Context(), client.ObjectKey{Name: nodeName}, &node))
	text, ok := node.Annotations[readiness.AnnotationImages]
	if !ok {
		return prepull.Inventory{}
	}
	inv, err := prepull.DecodeInventory(text)
	require.NoError(c.t, err)
	return inv
}

func (c *cluster) warm(image string) bool {
	for _, img := range c.inventory().Warm {
		if img.Name == image {
			return true
		}
	}
	return false
}

// events returns the messages of the kubelet's Pulled and Pulling events that name an image.
func (c *cluster) events(image string) (messages []string) {
	c.t.Helper()
	var list corev1.EventList
	require.NoError(c.t, c.List(c.t.Context(), &list, client.InNamespace("default")))
	for i := range list.Items {
		if e := &list.Items[i]; (e.Reason == "Pulled" || e.Reason == "Pulling") && strings.Contains(e.Message, image) {
			messages = append(messages, e.Message)
		}
	}
	return messages
}

// criImage is what the kubelet sees of an image; nil when it is not there.
func (c *cluster) criImage(image string) *runtimeapi.Image {
	c.t.Helper()
	conn, err := c.ctd.CRI()
	require.NoError(c.t, err)
	defer func() { require.NoError(c.t, conn.Close()) }()
	status, err := runtimeapi.NewImageServiceClient(conn).ImageStatus(c.t.Context(), &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: image}})
	require.NoError(c.t, err)
	return status.GetImage()
}

func (c *cluster) criHas(image string) bool { return c.criImage(image) != nil }

// labelled says whether the node carries the policy's label.
func (c *cluster) labelled(policy string) bool {
	c.t.Helper()
	var node corev1.Node
	require.NoError(c.t, c.Get(c.t.Context(), client.ObjectKey{Name: nodeName}, &node))
	return node.Labels[readiness.PrepullLabel(policy)] == "true"
}

func (c *cluster) criRemove(image string) {
	c.t.Helper()
	conn, err := c.ctd.CRI()
	require.NoError(c.t, err)
	defer func() { require.NoError(c.t, conn.Close()) }()
	_, err = runtimeapi.NewImageServiceClient(conn).RemoveImage(c.t.Context(), &runtimeapi.RemoveImageRequest{Image: &runtimeapi.ImageSpec{Image: image}})
	require.NoError(c.t, err)
	require.False(c.t, c.criHas(image))
}

func (c *cluster) running(selector client.MatchingLabels, image string) bool {
	var pods corev1.PodList
	require.NoError(c.t, c.List(c.t.Context(), &pods, client.InNamespace("default"), selector))
	for i := range pods.Items {
		if p := &pods.Items[i]; p.Status.Phase == corev1.PodRunning && p.Spec.Containers[0].Image == image {
			return true
		}
	}
	return false
}

func TestPolicyOnARealNode(t *testing.T) {
	if testing.Short() {
		t.Skip("starts servers")
	}
	testenv.RequireRoot(t)
	c := newCluster(t)
	v1, v2, lonely := c.push("team/web:v1"), c.push("team/web:v2"), c.push("team/lonely:v1")
	c.runController()
	require.NoError(t, c.Create(t.Context(), &v1alpha1.PrepullPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec: v1alpha1.PrepullPolicySpec{
			FromWorkloads: []v1alpha1.WorkloadSource{{Kind: "Deployment", Namespace: "default", Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}}},
			Learn:         &v1alpha1.Learn{},
		},
	}))

	// An image that no list names is started once, and then goes from the node: as on the next node of this pool.
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "lonely", Namespace: "default", Labels: map[string]string{"app": "lonely"}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: lonely}}},
	}
	require.NoError(t, c.Create(t.Context(), pod))
	c.eventually("the lonely pod runs", func() bool { return c.running(client.MatchingLabels{"app": "lonely"}, lonely) })
	c.eventually("its image is learned", func() bool { return c.lists("web", lonely, v1alpha1.SourceLearned) })
	require.NoError(t, c.Delete(t.Context(), pod, client.GracePeriodSeconds(0)))
	c.eventually("the lonely pod is gone", func() bool { return !c.running(client.MatchingLabels{"app": "lonely"}, lonely) })
	c.criRemove(lonely)

	c.runAgent()
	c.eventually("what was learned is warm before a pod asks for it", func() bool { return c.warm(lonely) })
	require.True(t, c.criHas(lonely))

	labels := map[string]string{"app": "web"}
	web := &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "default", Labels: labels},
		Spec: appsv1.DeploymentSpec{
			Selector: &metav1.LabelSelector{MatchLabels: labels}, Paused: true, Replicas: new(int32(1)),
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: v1}}}},
		},
	}
	require.NoError(t, c.Create(t.Context(), web))
	roll := func(image string) {
		patch := fmt.Sprintf(`{"spec":{"paused":true,"template":{"spec":{"containers":[{"name":"c","image":%q}]}}}}`, image)
		began := time.Now()
		require.NoError(t, c.Patch(t.Context(), web, client.RawPatch("application/strategic-merge-patch+json", []byte(patch))))
		c.eventually("the revision is warm before its rollout", func() bool { return c.warm(image) })
		t.Logf("%s was warm %v after its template appeared", image, time.Since(began).Round(time.Millisecond))
		require.NoError(t, c.Patch(t.Context(), web, client.RawPatch("application/merge-patch+json", []byte(`{"spec":{"paused":false}}`))))
		c.eventually("the rollout runs", func() bool { return c.running(labels, image) })
		c.eventually("the kubelet has told of its image", func() bool { return len(c.events(image)) > 0 })
		for _, message := range c.events(image) {
			require.Contains(t, message, "already present on machine")
		}
	}
	roll(v1)
	roll(v2)
	c.eventually("the node counts as ready", func() bool {
		s := c.status("web")
		return s.Nodes == v1alpha1.NodeCounts{Matched: 1, Ready: 1} && len(s.Images) >= 2
	})
	c.eventually("the policy's label leads here", func() bool { return c.labelled("web") })
	require.True(t, c.criImage(v2).GetPinned(), "the kubelet's garbage collection leaves it alone")
	require.Regexp(t, `^containerd \S*2\.`, c.inventory().Runtime)
	require.Equal(t, "overlayfs", c.inventory().Snapshotter)
	require.Contains(t, c.inventory().Engines, "direct")

	// Somebody removes what the policy wants: the node says so, and has it back.
	c.criRemove(lonely)
	c.eventually("it is fetched again", func() bool { return c.criHas(lonely) && c.warm(lonely) })

	// A policy that goes takes its pins along, and leaves the images to the kubelet.
	require.NoError(t, c.Delete(t.Context(), &v1alpha1.PrepullPolicy{ObjectMeta: metav1.ObjectMeta{Name: "web"}}))
	c.eventually("nothing is pinned", func() bool {
		return !c.criImage(v2).GetPinned() && !c.criImage(lonely).GetPinned() && !c.labelled("web")
	})
	require.True(t, c.criHas(v2) && c.criHas(lonely), "deletion is the kubelet's")
}
