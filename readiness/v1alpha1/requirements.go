package v1alpha1

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// RequiredDaemonSet names a DaemonSet whose pod on the node must be Ready.
//
// +kubebuilder:validation:XValidation:rule="has(self.name) || has(self.selector)",message="name the DaemonSet with name (or '*' for all of the namespace), or its pods with selector"
// +kubebuilder:validation:XValidation:rule="self.namespace != '*' || (has(self.name) && self.name == '*' && !has(self.selector))",message="namespace '*' means every DaemonSet that belongs on the node: write name: '*' with it and no selector, or the DaemonSet's own namespace"
// +kubebuilder:validation:XValidation:rule="!has(self.except) || (has(self.name) && self.name == '*' && !has(self.selector))",message="except needs name: '*'"
// +kubebuilder:validation:XValidation:rule="!has(self.readinessProbe) || (has(self.name) && self.name != '*')",message="readinessProbe needs a name other than '*': the agent reports it as the condition headstart.dev/<Name>Ready"
type RequiredDaemonSet struct {
	// namespace of the DaemonSet; "*" (with name "*") means all of them.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^(\*|[a-z0-9]([-a-z0-9]*[a-z0-9])?)$`
	Namespace string `json:"namespace"`
	// name of the DaemonSet; "*" means every DaemonSet of the namespace that has its place on the node and can start
	// while the taint is there, and at least one. Where a selector is set, it decides and the name is for people.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^(\*|[a-z0-9]([-a-z0-9.]*[a-z0-9])?)$`
	// +optional
	Name string `json:"name,omitempty"`
	// except are DaemonSets that name "*" does not mean: by name, or as namespace/name (namespace/* for all of it).
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=317
	// +kubebuilder:validation:items:Pattern=`^[a-z0-9]([-a-z0-9.]*[a-z0-9])?(/(\*|[a-z0-9]([-a-z0-9.]*[a-z0-9])?))?$`
	// +listType=set
	// +optional
	Except []string `json:"except,omitempty"`
	// selector of the pods.
	// +kubebuilder:validation:XValidation:rule="(has(self.matchLabels) && size(self.matchLabels) > 0) || (has(self.matchExpressions) && size(self.matchExpressions) > 0)",message="an empty selector selects every pod of the namespace: write the pods' labels"
	// +optional
	Selector *metav1.LabelSelector `json:"selector,omitempty"`
	// readinessProbe is run on the node by the agent, which reports it as the condition headstart.dev/<Name>Ready
	// (name in PascalCase); the rule waits for that condition too. An exec probe needs allowExec in the agent's config,
	// but for "kubectl wait --for=condition=C pod -l S -n N", which the controller answers for the pod of the node.
	// +kubebuilder:validation:XValidation:rule="[has(self.exec), has(self.httpGet), has(self.tcpSocket), has(self.grpc)].filter(handler, handler).size() == 1",message="readinessProbe needs exactly one of exec, httpGet, tcpSocket and grpc"
	// +kubebuilder:validation:XValidation:rule="!has(self.httpGet) || type(self.httpGet.port) != int || (self.httpGet.port >= 1 && self.httpGet.port <= 65535)",message="httpGet.port must be from 1 to 65535, or the name of a container's port"
	// +kubebuilder:validation:XValidation:rule="!has(self.tcpSocket) || type(self.tcpSocket.port) != int || (self.tcpSocket.port >= 1 && self.tcpSocket.port <= 65535)",message="tcpSocket.port must be from 1 to 65535, or the name of a container's port"
	// +kubebuilder:validation:XValidation:rule="!has(self.grpc) || (self.grpc.port >= 1 && self.grpc.port <= 65535)",message="grpc.port must be from 1 to 65535"
	// +kubebuilder:validation:XValidation:rule="!has(self.exec) || (has(self.exec.command) && size(self.exec.command) > 0)",message="exec.command is empty: write the program and its arguments"
	// +optional
	ReadinessProbe *corev1.Probe `json:"readinessProbe,omitempty"`
}

// OptionalDaemonSet names a DaemonSet that is never waited for.
//
// +kubebuilder:validation:XValidation:rule="has(self.name) || has(self.selector)",message="name the DaemonSet with name (or '*' for all of the namespace), or its pods with selector"
// +kubebuilder:validation:XValidation:rule="self.namespace != '*' || (has(self.name) && self.name == '*' && !has(self.selector))",message="namespace '*' means every DaemonSet that belongs on the node: write name: '*' with it and no selector, or the DaemonSet's own namespace"
type OptionalDaemonSet struct {
	// namespace of the DaemonSet; "*" (with name "*") means all of them.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^(\*|[a-z0-9]([-a-z0-9]*[a-z0-9])?)$`
	Namespace string `json:"namespace"`
	// name of the DaemonSet; "*" means every DaemonSet of the namespace that has its place on the node.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^(\*|[a-z0-9]([-a-z0-9.]*[a-z0-9])?)$`
	// +optional
	Name string `json:"name,omitempty"`
	// selector of the pods.
	// +kubebuilder:validation:XValidation:rule="(has(self.matchLabels) && size(self.matchLabels) > 0) || (has(self.matchExpressions) && size(self.matchExpressions) > 0)",message="an empty selector selects every pod of the namespace: write the pods' labels"
	// +optional
	Selector *metav1.LabelSelector `json:"selector,omitempty"`
	// readyLabel is the label that the node carries, with value "true", while the pods are Ready. It may be of any domain
	// but those of Kubernetes, its clouds and Karpenter. A label of that key with another value is left as it is.
	// +kubebuilder:validation:MaxLength=317
	// +kubebuilder:validation:Pattern=`^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$`
	// +kubebuilder:validation:XValidation:rule="!self.matches('^([^/]*[.])?(kubernetes[.]io|k8s[.]io|karpenter[.]sh|karpenter[.]k8s[.]aws|eks[.]amazonaws[.]com)/')",message="readyLabel may not be of kubernetes.io, k8s.io, karpenter.sh or a cloud's own domain, whose labels belong to others: write a key of your own or of headstart.dev, such as headstart.dev/ebs-ready"
	// +kubebuilder:validation:XValidation:rule="!(self in ['headstart.dev/images-ready', 'headstart.dev/cni-ready', 'headstart.dev/csi-ready', 'headstart.dev/gpu-ready', 'headstart.dev/provisioning-request', 'headstart.dev/rule']) && !self.startsWith('prepull.headstart.dev/')",message="readyLabel may not be a label that Headstart keeps for itself: write another name, such as headstart.dev/ebs-ready"
	// +optional
	ReadyLabel string `json:"readyLabel,omitempty"`
}

// RequiredCondition is a node condition that must have a status.
type RequiredCondition struct {
	// type of the node condition.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=316
	Type string `json:"type"`
	// requiredStatus is the status that the condition must have. A missing condition is Unknown.
	// +kubebuilder:validation:Enum="True";"False";Unknown
	// +kubebuilder:default="True"
	// +optional
	RequiredStatus corev1.ConditionStatus `json:"requiredStatus,omitempty"`
	// defaultStatus stands for a condition that nobody has reported (continuous only).
	// +kubebuilder:validation:Enum="True";"False";Unknown
	// +optional
	DefaultStatus corev1.ConditionStatus `json:"defaultStatus,omitempty"`
	// maxAge is how long a report counts without being repeated; older ones are Unknown.
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1s')",message="maxAge must be at least 1s"
	// +optional
	MaxAge *metav1.Duration `json:"maxAge,omitempty"`
}

// RequiredResource is an amount that must be allocatable on the node.
type RequiredResource struct {
	// name of the resource, such as nvidia.com/gpu.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=317
	Name string `json:"name"`
	// min is the least amount.
	// +kubebuilder:default=1
	// +kubebuilder:validation:XValidation:rule="type(self) == int ? self > 0 : (isQuantity(self) && quantity(self).isGreaterThan(quantity('0')))",message="min must be a quantity above 0, such as 1 or 8Gi"
	// +optional
	Min resource.Quantity `json:"min,omitempty"`
}

// RequiredResourceSlices are devices of a DRA driver (resource.k8s.io/v1 ResourceSlices of the node).
type RequiredResourceSlices struct {
	// driver that publishes the devices, such as gpu.nvidia.com.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Driver string `json:"driver"`
	// min is the least number of devices, of pools that are complete.
	// +kubebuilder:default=1
	// +kubebuilder:validation:Minimum=1
	// +optional
	Min int32 `json:"min,omitempty"`
}

// RequiredObject is an object that must exist, not be deleted, and over which an expression is true.
type RequiredObject struct {
	// apiVersion of the object: v1, apps/v1.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^([a-z0-9.-]+/)?v[0-9a-z]+$')",message="apiVersion must be version or group/version: v1, apps/v1"
	APIVersion string `json:"apiVersion"`
	// kind of the object, such as ConfigMap. The controller needs the right to list and watch it; while it lacks that, this
	// rule alone decides nothing but its timeout.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:XValidation:rule="self.matches('^[A-Z][A-Za-z0-9]*$')",message="kind must be written as manifests have it: ConfigMap, not configmaps"
	Kind string `json:"kind"`
	// namespace of the object; left out for kinds that have none.
	// +kubebuilder:validation:MaxLength=63
	// +optional
	Namespace string `json:"namespace,omitempty"`
	// name of the object.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
	// expression is CEL over the variable object, and must give a bool: object.data.ready == 'true'. A field that the
	// object does not have makes it false; its cost is limited. Empty: the object need only exist.
	// +kubebuilder:validation:MaxLength=4096
	// +optional
	Expression string `json:"expression,omitempty"`
}
