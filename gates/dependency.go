package gates

import "fmt"

// Kind is the kind of thing that a Dependency names.
type Kind string

// The kinds of dependencies. The first group are objects that a pod refers to by name; their values are API kinds.
const (
	KindConfigMap             Kind = "ConfigMap"
	KindSecret                Kind = "Secret"
	KindPersistentVolumeClaim Kind = "PersistentVolumeClaim"
	KindServiceAccount        Kind = "ServiceAccount"
	KindResourceClaim         Kind = "ResourceClaim"
	KindResourceClaimTemplate Kind = "ResourceClaimTemplate"
	KindStorageClass          Kind = "StorageClass"
	KindPriorityClass         Kind = "PriorityClass"
	KindRuntimeClass          Kind = "RuntimeClass"
	KindClusterTrustBundle    Kind = "ClusterTrustBundle"

	// KindImage is an image, by its normalised reference.
	KindImage Kind = "Image"
	// KindWarmLabel is a label of placement Required on a warm node with room.
	KindWarmLabel Kind = "WarmLabel"
	// KindNodeCondition is a condition type that nodes have.
	KindNodeCondition Kind = "NodeCondition"
	// KindObject is the object of an expression; Type says of which API.
	KindObject Kind = "Object"
	// KindService is a Service with ready endpoints.
	KindService Kind = "Service"
	// KindGang is a gang of pods; its Name is "label=value".
	KindGang Kind = "Gang"
	// KindLastGate is that the pod's other gates go; it has no name.
	KindLastGate Kind = "LastGate"
	// KindRoom is free room on any node; it has no name.
	KindRoom Kind = "Room"
	// KindFleet is what is known of nodes at all.
	KindFleet Kind = "Fleet"
	// KindPolicy is a policy that is not what it should be.
	KindPolicy Kind = "GatePolicy"
)

// MayBeDenied says of ConfigMap and Secret that the controller has no right to them by default, as it would be one to every
// Secret's value. Then no pod waits for them here; the kubelet does, as for a pod without a gate.
func (k Kind) MayBeDenied() bool { return k == KindConfigMap || k == KindSecret }

// Dependency names one thing that a pod waits for. It is comparable: a controller finds by it the pods that wait for a
// thing when the thing changes.
type Dependency struct {
	Kind Kind
	// Type is "apiVersion/Kind" of a KindObject and the gate of a KindGang, else empty.
	Type string
	// Namespace is empty for things that have none. For a KindObject it is the pod's, even if the kind turns out to have none.
	Namespace string
	Name      string
}

// String names the dependency for a person: "ConfigMap shop/flags".
func (d Dependency) String() string {
	kind := string(d.Kind)
	switch d.Kind {
	case KindObject:
		kind = d.Type
	case KindFleet:
		return d.Name
	default: // its own name
	}
	if d.Namespace == "" {
		return fmt.Sprintf("%s %s", kind, d.Name)
	}
	return fmt.Sprintf("%s %s/%s", kind, d.Namespace, d.Name)
}
