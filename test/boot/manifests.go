package boot

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// taintKey is the startup taint that the agent lets the kubelet register with and the controller takes away.
	taintKey  = "readiness.k8s.io/demo"
	imageGate = "example.com/image-preload"
	readyGate = "example.com/config-ready"
	configMap = "shop-config"
	namespace = "default"
	// poolLabel marks the nodes that the rule is for, as a NodePool's label does.
	poolLabel = "example.com/pool"
)

// policies are what a user of Headstart applies: when a node is released, and what each gate waits for.
const policies = `
apiVersion: headstart.dev/v1alpha1
kind: NodeReadinessRule
metadata: {name: demo}
spec:
  mode: bootstrap-only
  nodeSelector: {matchLabels: {` + poolLabel + `: fast}}
  conditions:
  - {type: headstart.dev/ImagesReady, requiredStatus: "True"}
  - {type: headstart.dev/CNIReady, requiredStatus: "True"}
  taint: {key: ` + taintKey + `, value: pending, effect: NoSchedule}
---
apiVersion: headstart.dev/v1alpha1
kind: GatePolicy
metadata: {name: image-preload}
spec:
  gateName: ` + imageGate + `
  requires: [{images: {minNodes: 1}}]
---
apiVersion: headstart.dev/v1alpha1
kind: GatePolicy
metadata: {name: config-ready}
spec:
  gateName: ` + readyGate + `
  requires: [{references: {}}]
`

// agentConfig is the agent's configuration as userData would write it, with this machine's paths.
func agentConfig(node, kubeconfig, image, containerd, cniDir string) string {
	return fmt.Sprintf(`apiVersion: agent.headstart.dev/v1alpha1
kind: AgentConfig
nodeName: %q
kubeconfig: %q
stateDir: "{dir}/state"
containerd: {address: %q}
images: [{image: %q, required: true}]
pull: {minFree: "0%%"}
probes: [{name: cni, type: cni, confDir: %q}]
register:
  taints: [{key: %s, value: pending, effect: NoSchedule}]
  kubeletConfigDir: "{dir}/kubelet.conf.d"
  kubeletArgsFile: "{dir}/kubelet.env"
metrics: {bindAddress: "0"}
`, node, kubeconfig, containerd, image, cniDir, taintKey)
}

// workload is the pod that needs the node: it names a ConfigMap, and with gated it waits behind two gates.
func workload(name, image string, gated bool) *corev1.Pod {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace},
		Spec: corev1.PodSpec{
			Containers: []corev1.Container{{
				Name: "web", Image: image,
				EnvFrom: []corev1.EnvFromSource{{
					ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: configMap}},
				}},
				Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{
					corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: resource.MustParse("64Mi"),
				}},
			}},
			TerminationGracePeriodSeconds: new(int64),
		},
	}
	if gated {
		pod.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: imageGate}, {Name: readyGate}}
	}
	return pod
}
