package gates

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"runtime"
	"sync"
	"time"
	"weak"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"

	"headstart.dev/internal/resources"
)

// Pod is what gates need to know of a pod; a few hundred bytes where the API object has thousands.
type Pod struct {
	Namespace, Name string
	UID             types.UID
	ResourceVersion string
	Created         time.Time
	// Deleting pods are never lifted.
	Deleting bool
	// Gates are the names of the pod's scheduling gates, in the pod's order; everybody's, not only ours.
	Gates  []string
	Labels map[string]string
	// Owner is the UID of the controller that made the pod; empty for a bare pod.
	Owner types.UID
	*Shape
}

// GetObjectMeta makes a Pod an object for caches: they key it by namespace and name.
func (p *Pod) GetObjectMeta() metav1.Object {
	return &metav1.ObjectMeta{Namespace: p.Namespace, Name: p.Name, UID: p.UID, ResourceVersion: p.ResourceVersion}
}

// Key names the pod.
func (p *Pod) Key() types.NamespacedName {
	return types.NamespacedName{Namespace: p.Namespace, Name: p.Name}
}

// Shape is what pods of one template have in common: what they need and where they may run. Pods that differ in nothing
// of it share one Shape, so that ten thousand replicas cost one.
type Shape struct {
	// Images are the keys of the images that the pod needs, sorted.
	Images []string
	// Names are the same images as an agent pulls them: normalised names, sorted.
	Names []string
	// Requests is what the pod asks of a node.
	Requests resources.List
	// Preferred is the pod's own preferred node affinity, in its order.
	Preferred []corev1.PreferredSchedulingTerm
	// Required are the terms of its required node affinity, in their order; of what steering added nothing is in them.
	Required []corev1.NodeSelectorTerm
	// Steered says that the pod may run on nodes with its WarmLabel only: it was lifted under placement Required.
	Steered bool

	references  []objectRef
	tolerations []corev1.Toleration
	required    nodeaffinity.RequiredNodeAffinity
	memo        memo
	// candidate has the name and the labels of the node that is looked at, as the affinity helpers want them.
	candidate corev1.Node
}

// shapeSource is all that makes a Shape, in a form that can be hashed.
type shapeSource struct {
	Images       []string
	Names        []string
	Steered      bool
	References   []objectRef
	Requests     resources.List
	NodeSelector map[string]string
	NodeAffinity *corev1.NodeAffinity
	Tolerations  []corev1.Toleration
}

// Shapes makes Pods of API objects and lets equal ones share a Shape. It is safe for concurrent use. A Shape goes away
// with the last Pod that has it.
type Shapes struct {
	mu    sync.Mutex
	known map[[sha256.Size]byte]weak.Pointer[Shape]
}

// NewShapes returns an empty set.
func NewShapes() *Shapes { return &Shapes{known: map[[sha256.Size]byte]weak.Pointer[Shape]{}} }

// Pod reads an API object. The error is of a pod that no API server would have accepted.
func (s *Shapes) Pod(pod *corev1.Pod) (*Pod, error) {
	out := &Pod{
		Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID, ResourceVersion: pod.ResourceVersion,
		Created: pod.CreationTimestamp.Time, Deleting: pod.DeletionTimestamp != nil, Labels: pod.Labels,
	}
	if owner := metav1.GetControllerOfNoCopy(pod); owner != nil {
		out.Owner = owner.UID
	}
	for _, gate := range pod.Spec.SchedulingGates {
		out.Gates = append(out.Gates, gate.Name)
	}
	source := shapeSource{
		Images: imagesOf(&pod.Spec), Names: namesOf(&pod.Spec), References: referencesOf(&pod.Spec), Requests: resources.Requests(pod),
		NodeSelector: pod.Spec.NodeSelector, Tolerations: pod.Spec.Tolerations,
	}
	if pod.Spec.Affinity != nil {
		source.NodeAffinity, source.Steered = withoutSteering(pod.Spec.Affinity.NodeAffinity, WarmLabel(source.Images))
	}
	text, err := json.Marshal(source)
	if err != nil {
		return nil, fmt.Errorf("read pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	out.Shape = s.intern(sha256.Sum256(text), &source)
	return out, nil
}

func (s *Shapes) intern(key [sha256.Size]byte, source *shapeSource) *Shape {
	s.mu.Lock()
	defer s.mu.Unlock()
	if shape := s.known[key].Value(); shape != nil {
		return shape
	}
	shape := &Shape{
		Images: source.Images, Names: source.Names, Steered: source.Steered, Requests: source.Requests,
		references: source.References, tolerations: source.Tolerations,
		required: nodeaffinity.NewRequiredNodeAffinity(source.NodeSelector, &corev1.Affinity{NodeAffinity: source.NodeAffinity}),
	}
	if source.NodeAffinity != nil {
		shape.Preferred = source.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution
		if required := source.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution; required != nil {
			shape.Required = required.NodeSelectorTerms
		}
	}
	s.known[key] = weak.Make(shape)
	runtime.AddCleanup(shape, s.forget, key)
	return shape
}

// forget drops a key whose shape is gone, unless a new one has taken its place.
func (s *Shapes) forget(key [sha256.Size]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if pointer, ok := s.known[key]; ok && pointer.Value() == nil {
		delete(s.known, key)
	}
}
