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

	// KindImage is an image, by its normalised reference.
	KindImage Kind = "Image"
)

// Dependency names one thing that a pod waits for. It is comparable: a controller finds by it the pods that wait for a
// thing when the thing changes.
type Dependency struct {
	Kind Kind
	// Namespace is empty for things that have none.
	Namespace string
	Name      string
}

// String names the dependency for a person: "ConfigMap shop/flags".
func (d Dependency) String() string {
	if d.Namespace == "" {
		return fmt.Sprintf("%s %s", d.Kind, d.Name)
	}
	return fmt.Sprintf("%s %s/%s", d.Kind, d.Namespace, d.Name)
}
