package shipped_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"sigs.k8s.io/yaml"

	"headstart.dev/readiness"
)

const (
	// slowList is longer than any time-out that the controllers set for single requests.
	slowList = 10 * time.Second
	// idleTime is how long nothing happens.
	idleTime = time.Minute
)

// ours are the objects of one of Headstart's resources, in all namespaces.
func (c *cluster) ours(resource string) dynamic.NamespaceableResourceInterface {
	return c.objects.Resource(schema.GroupVersionResource{Group: "headstart.dev", Version: "v1alpha1", Resource: resource})
}

func (c *cluster) create(t *testing.T, resource, namespace, text string) dynamic.ResourceInterface {
	t.Helper()
	object := map[string]any{}
	require.NoError(t, yaml.Unmarshal([]byte(text), &object))
	all := c.ours(resource)
	var client dynamic.ResourceInterface = all
	if namespace != "" {
		client = all.Namespace(namespace)
	}
	_, err := client.Create(t.Context(), &unstructured.Unstructured{Object: object}, metav1.CreateOptions{})
	require.NoError(t, err)
	return client
}

func (c *cluster) probes(t *testing.T) {
	for kind, message := range c.conditions {
		var last corev1.NodeCondition
		eventually(t, func() bool {
			for _, condition := range c.node(t).Status.Conditions {
				if condition.Type == kind {
					last = condition
				}
			}
			return message == "" && last.Status == corev1.ConditionTrue || message != "" && strings.Contains(last.Message, message)
		}, "%s: %v", kind, &last)
	}
	for _, condition := range c.node(t).Status.Conditions {
		require.NotEqual(t, corev1.NodeConditionType("headstart.dev/GPUReady"), condition.Type, "there is no GPU")
	}
}

func (c *cluster) prepull(t *testing.T) {
	// No pod reaches a registry on this machine's loopback. The controller asks it, and then the node, more and more seldom,
	// which the minute that is to be silent would not outlast.
	c.warm(t, "web")()
}

// warm has the app's image warm on the node, until the returned function is called.
func (c *cluster) warm(t *testing.T, name string) (end func()) {
	t.Helper()
	policies := c.create(t, "prepullpolicies", "", `
apiVersion: headstart.dev/v1alpha1
kind: PrepullPolicy
metadata: {name: `+name+`}
spec:
  nodeSelector: {matchLabels: {pool: test}}
  images: [{image: "`+c.app+`", required: true}]
`)
	label := readiness.PrepullLabel(name)
	eventually(t, func() bool { return c.node(t).Labels[label] == "true" }, "the image that a policy names is on the node")
	return func() {
		require.NoError(t, policies.Delete(t.Context(), name, metav1.DeleteOptions{}))
		eventually(t, func() bool { return c.node(t).Labels[label] == "" }, "the label goes with its policy")
	}
}

// warmPool has a schedule in a zone that is not UTC: the image must know it.
func (c *cluster) warmPool(t *testing.T) {
	pools := c.create(t, "warmpools", "default", `
apiVersion: headstart.dev/v1alpha1
kind: WarmPool
metadata: {name: berlin, namespace: default}
spec:
  shape: {resources: {cpu: 10m, memory: 16Mi}}
  template: {image: "`+c.app+`"}
  min: 0
  max: 2
  schedules: [{name: always, start: "* * * * *", end: "59 23 31 12 *", timeZone: Europe/Berlin, min: 1}]
`)
	var last *unstructured.Unstructured
	eventually(t, func() bool {
		var err error
		last, err = pools.Get(t.Context(), "berlin", metav1.GetOptions{})
		require.NoError(t, err)
		ready, _, _ := unstructured.NestedInt64(last.Object, "status", "ready")
		return ready == 1
	}, "%v", &last)
	require.NoError(t, pools.Delete(t.Context(), "berlin", metav1.DeleteOptions{}))
}

// gate holds a pod until a Service answers.
func (c *cluster) gate(t *testing.T) {
	policies := c.create(t, "gatepolicies", "", `
apiVersion: headstart.dev/v1alpha1
kind: GatePolicy
metadata: {name: config}
spec:
  gateName: example.com/config
  requires: [{references: {}}, {service: {name: redis, minReadyEndpoints: 1}}]
  deadline: 1h
`)
	c.run(t, "gated", "example.com/config")
	_, err := c.client.CoreV1().ConfigMaps("default").Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "flags"}}, metav1.CreateOptions{})
	require.NoError(t, err)
	count := func(field string) int64 {
		policy, err := policies.Get(t.Context(), "config", metav1.GetOptions{})
		require.NoError(t, err)
		n, _, err := unstructured.NestedInt64(policy.Object, "status", field)
		require.NoError(t, err)
		return n
	}
	eventually(t, func() bool { return count("waitingPods") == 1 }, "the pod waits for the Service")
	_, err = c.client.DiscoveryV1().EndpointSlices("default").Create(t.Context(), &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Name: "redis-1", Labels: map[string]string{discoveryv1.LabelServiceName: "redis"}},
		AddressType: discoveryv1.AddressTypeIPv4, Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"10.0.0.1"}}},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	c.waitRunning(t, "gated")
	eventually(t, func() bool { return count("liftedTotal") == 1 }, "the policy counts it")
}

// shippedGates makes a pod with each gate for which the chart brings a policy. What three of them ask for is there.
func (c *cluster) shippedGates(t *testing.T) {
	defer c.warm(t, "shipped")()
	for _, name := range []string{"config", "csi", "images", "gpu"} {
		c.run(t, "shipped-"+name, "headstart.dev/"+name)
	}
	for _, name := range []string{"config", "csi", "images"} {
		c.waitRunning(t, "shipped-"+name)
		policy, err := c.ours("gatepolicies").Get(t.Context(), "headstart-"+name, metav1.GetOptions{})
		require.NoError(t, err)
		atDeadline, _, err := unstructured.NestedInt64(policy.Object, "status", "deadlineTotal")
		require.NoError(t, err)
		require.Zero(t, atDeadline, "%s: because what it asks for is there", name)
	}
	pod, err := c.client.CoreV1().Pods("default").Get(t.Context(), "shipped-gpu", metav1.GetOptions{})
	require.NoError(t, err)
	require.Len(t, pod.Spec.SchedulingGates, 1, "there is no GPU, and its deadline has not come")
	require.NoError(t, c.client.CoreV1().Pods("default").Delete(t.Context(), "shipped-gpu", metav1.DeleteOptions{}))
}

// slowTakeover kills the leader while lists take ten seconds: both the standby and the pod that replaces the dead one must get
// ready all the same.
func (c *cluster) slowTakeover(t *testing.T) {
	lease, err := c.client.CoordinationV1().Leases(namespace).Get(t.Context(), "headstart-controller", metav1.GetOptions{})
	require.NoError(t, err)
	leader, _, _ := strings.Cut(*lease.Spec.HolderIdentity, "_")
	c.api.setDelay(slowList)
	defer c.api.setDelay(0)
	require.NoError(t, c.client.CoreV1().Pods(namespace).Delete(t.Context(), leader, metav1.DeleteOptions{GracePeriodSeconds: new(int64)}))
	eventually(t, func() bool {
		now, err := c.client.CoordinationV1().Leases(namespace).Get(t.Context(), "headstart-controller", metav1.GetOptions{})
		require.NoError(t, err)
		return now.Spec.HolderIdentity != nil && *now.Spec.HolderIdentity != "" && !strings.HasPrefix(*now.Spec.HolderIdentity, leader)
	}, "nobody took over")
	eventually(t, func() bool { return c.rolledOut(t) && c.api.answeredSlowly() > 0 }, "a controller whose lists take %s is not ready", slowList)
}

// idle counts what each component asks of the API server while nothing happens.
func (c *cluster) idle(t *testing.T) {
	quiet := func() bool {
		c.api.reset()
		pause(t, 15*time.Second) // the ledger of rules is looked at once more 12 s after the last change
		return len(c.api.of("headstart-agent")) == 0 && len(c.api.of("headstart-controller")) == 0
	}
	eventually(t, quiet, "it does not come to rest: %s", c.api)
	c.api.reset()
	pause(t, idleTime)
	require.Empty(t, c.api.of("headstart-agent"))
	require.Empty(t, c.api.of("headstart-controller"), "beside its lease")
}

// unreachable names an image that nobody will ever find: neither the controller, which cannot look its tag up, nor the agent,
// which tries to pull it again and again, may have the API server pay for that.
func (c *cluster) unreachable(t *testing.T) {
	c.create(t, "prepullpolicies", "", `
apiVersion: headstart.dev/v1alpha1
kind: PrepullPolicy
metadata: {name: nowhere}
spec:
  nodeSelector: {matchLabels: {pool: test}}
  images: [{image: "registry.invalid/nowhere:v1", required: true}]
`)
	eventually(t, func() bool { return condition(c.node(t), readiness.ConditionImagesReady) == corev1.ConditionFalse }, "the node lacks it")
	pause(t, idleTime/4) // by then both have failed and said so
	c.api.reset()
	pause(t, idleTime/2)
	for _, account := range []string{"headstart-agent", "headstart-controller"} {
		asked := 0
		for _, n := range c.api.of(account) {
			asked += n
		}
		require.LessOrEqual(t, asked, 1, "%s: %v", account, c.api.of(account))
	}
}

// forget ends the policy of an image that is nowhere.
func (c *cluster) forget(t *testing.T) {
	require.NoError(t, c.ours("prepullpolicies").Delete(t.Context(), "nowhere", metav1.DeleteOptions{}))
	eventually(t, func() bool { return condition(c.node(t), readiness.ConditionImagesReady) != corev1.ConditionFalse }, "it is forgotten")
}
