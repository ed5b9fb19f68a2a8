package gates

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"time"
	"weak"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"headstart.dev/internal/room"
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
	// Owner is the UID of the controller that made the pod; empty for a bare pod. OwnerType is "apiVersion/Kind".
	Owner                types.UID
	OwnerType, OwnerName string
	// PodGroup is that of scheduling.k8s.io which the pod names.
	PodGroup string
	// Numbers are the annotations that are numbers: one of them may be the size of a gang.
	Numbers map[string]string
	// Nominated is the node on which the scheduler makes room for the pod; empty where it does not.
	Nominated string
	// Written is when somebody else last wrote the pod's spec or metadata.
	Written time.Time
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
	// Demand is what the pod asks of a node.
	room.Demand
	// Preferred is the pod's own preferred node affinity, in its order.
	Preferred []corev1.PreferredSchedulingTerm
	// Required are the terms of its required node affinity, in their order; of what steering added nothing is in them.
	Required []corev1.NodeSelectorTerm
	// Steered says that the pod may run on nodes with its WarmLabel only: it was lifted under placement Required.
	Steered bool

	// Apart says that other pods decide with where the pod may run: by affinity, spread constraints, host ports or claims.
	Apart bool

	references references
	apart      []apartTerm
	memo       memo
}

// shapeSource is all that makes a Shape, in a form that can be hashed.
type shapeSource struct {
	Images     []string
	Names      []string
	Steered    bool
	Apart      bool
	From       []apartTerm
	References references
	Room       room.Source
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
		Nominated: pod.Status.NominatedNodeName, Written: written(pod),
	}
	if owner := metav1.GetControllerOfNoCopy(pod); owner != nil {
		out.Owner, out.OwnerType, out.OwnerName = owner.UID, intern(owner.APIVersion+"/"+owner.Kind), owner.Name
	}
	if group := pod.Spec.SchedulingGroup; group != nil && group.PodGroupName != nil {
		out.PodGroup = *group.PodGroupName
	}
	for key, value := range pod.Annotations {
		if _, err := strconv.ParseUint(value, 10, 16); err == nil {
			if out.Numbers == nil {
				out.Numbers = map[string]string{}
			}
			out.Numbers[key] = value
		}
	}
	for _, gate := range pod.Spec.SchedulingGates {
		out.Gates = append(out.Gates, gate.Name)
	}
	source := shapeSource{Images: imagesOf(&pod.Spec), Names: namesOf(&pod.Spec)}
	source.References.read(&pod.Spec)
	source.Apart, source.From = apart(&pod.Spec), apartOf(pod)
	var affinity *corev1.NodeAffinity
	if pod.Spec.Affinity != nil {
		affinity, source.Steered = withoutSteering(pod.Spec.Affinity.NodeAffinity, WarmLabel(source.Images))
	}
	source.Room = room.Read(pod, affinity)
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
		Images: source.Images, Names: source.Names, Steered: source.Steered, Apart: source.Apart, apart: source.From, references: source.References, Demand: source.Room.Demand(),
	}
	if affinity := source.Room.NodeAffinity; affinity != nil {
		shape.Preferred = affinity.PreferredDuringSchedulingIgnoredDuringExecution
		if required := affinity.RequiredDuringSchedulingIgnoredDuringExecution; required != nil {
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

// fieldManager is the name under which gates are lifted.
const fieldManager = "headstart-gates"

// written says when somebody but us last wrote the pod's spec or metadata. Who takes a gate off writes the spec: it is how
// a controller that was away finds out when that was, at most.
func written(pod *corev1.Pod) time.Time {
	last := pod.CreationTimestamp.Time
	for i := range pod.ManagedFields {
		f := &pod.ManagedFields[i]
		if f.Subresource == "" && f.Manager != fieldManager && f.Time != nil && f.Time.After(last) {
			last = f.Time.Time
		}
	}
	return last
}

func apart(spec *corev1.PodSpec) bool {
	claim := func(v corev1.Volume) bool { return v.PersistentVolumeClaim != nil || v.Ephemeral != nil }
	port := func(p corev1.ContainerPort) bool { return p.HostPort > 0 }
	return len(spec.TopologySpreadConstraints) > 0 || slices.ContainsFunc(spec.Volumes, claim) ||
		(spec.Affinity != nil && (spec.Affinity.PodAffinity != nil || spec.Affinity.PodAntiAffinity != nil)) ||
		slices.ContainsFunc(spec.Containers, func(c corev1.Container) bool { return slices.ContainsFunc(c.Ports, port) })
}
