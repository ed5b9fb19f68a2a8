package shipped_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"sigs.k8s.io/yaml"
)

const (
	// slowList is longer than any time-out that the controllers set for single requests.
	slowList = 10 * time.Second
	// takeover covers two rounds of slow lists beside the lease's 15 s.
	takeover = 3 * time.Minute
	// idleTime is how long nothing happens.
	idleTime = time.Minute
)

func (c *cluster) create(t *testing.T, resource, namespace, text string) dynamic.ResourceInterface {
	t.Helper()
	object := map[string]any{}
	require.NoError(t, yaml.Unmarshal([]byte(text), &object))
	var client dynamic.ResourceInterface = dynamic.New(c.client.RESTClient()).Resource(schema.GroupVersionResource{Group: "headstart.dev", Version: "v1alpha1", Resource: resource})
	if namespace != "" {
		client = dynamic.New(c.client.RESTClient()).Resource(schema.GroupVersionResource{Group: "headstart.dev", Version: "v1alpha1", Resource: resource}).Namespace(namespace)
	}
	_, err := client.Create(t.Context(), &unstructured.Unstructured{Object: object}, metav1.CreateOptions{})
	require.NoError(t, err)
	return client
}

func (c *cluster) probes(t *testing.T) {
	for kind, message := range c.conditions {
		var last corev1.NodeCondition
		require.Eventually(t, func() bool {
			for _, condition := range c.node(t).Status.Conditions {
				if condition.Type == kind {
					last = condition
				}
			}
			return message == "" && last.Status == corev1.ConditionTrue || message != "" && strings.Contains(last.Message, message)
		}, patience, look, "%s: %v", kind, &last)
	}
	for _, condition := range c.node(t).Status.Conditions {
		require.NotEqual(t, corev1.NodeConditionType("headstart.dev/GPUReady"), condition.Type, "there is no GPU")
	}
}

func (c *cluster) prepull(t *testing.T) {
	c.create(t, "prepullpolicies", "", `
apiVersion: headstart.dev/v1alpha1
kind: PrepullPolicy
metadata: {name: web}
spec:
  nodeSelector: {matchLabels: {pool: test}}
  images: [{image: "`+c.app+`", required: true}]
`)
	require.Eventually(t, func() bool { return c.node(t).Labels["prepull.headstart.dev/web"] == "true" }, patience, look)
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
	require.Eventually(t, func() bool {
		var err error
		last, err = pools.Get(t.Context(), "berlin", metav1.GetOptions{})
		require.NoError(t, err)
		ready, _, _ := unstructured.NestedInt64(last.Object, "status", "ready")
		return ready == 1
	}, patience, look, "%v", &last)
	require.NoError(t, pools.Delete(t.Context(), "berlin", metav1.DeleteOptions{}))
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
	require.Eventually(t, func() bool {
		now, err := c.client.CoordinationV1().Leases(namespace).Get(t.Context(), "headstart-controller", metav1.GetOptions{})
		require.NoError(t, err)
		return now.Spec.HolderIdentity != nil && *now.Spec.HolderIdentity != "" && !strings.HasPrefix(*now.Spec.HolderIdentity, leader)
	}, takeover, look, "nobody took over")
	require.Eventually(t, func() bool { return c.rolledOut(t) && c.api.answeredSlowly() > 0 }, takeover, look, "a controller whose lists take %s is not ready", slowList)
}

// idle counts what each component asks of the API server while nothing happens.
func (c *cluster) idle(t *testing.T) {
	quiet := func() bool {
		c.api.reset()
		select {
		case <-t.Context().Done():
		case <-time.After(5 * time.Second):
		}
		return len(c.api.of("headstart-agent")) == 0 && len(c.api.of("headstart-controller")) == 0
	}
	require.Eventually(t, quiet, patience, look, "it does not come to rest: %s", c.api)
	c.api.reset()
	select {
	case <-t.Context().Done():
	case <-time.After(idleTime):
	}
	require.Empty(t, c.api.of("headstart-agent"))
	require.Empty(t, c.api.of("headstart-controller"), "beside its lease")
}
