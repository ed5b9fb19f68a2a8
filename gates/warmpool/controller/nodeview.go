package controller

import (
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"headstart.dev/internal/resources"
	"headstart.dev/prepull"
	"headstart.dev/readiness"
	"headstart.dev/readiness/nodewatch"
)

// nodeView is what the model keeps of a node.
type nodeView struct {
	name        string
	labels      map[string]string
	created     time.Time
	ready       bool
	allocatable resources.List
	taints      []corev1.Taint
	// rules are the readiness rules that the node has completed, by name.
	rules map[string]bool
	// images maps the names of the images that are warm there to what their digests begin with; nil where the node
	// publishes none.
	images      map[string]string
	imagesReady bool
	// pause is an image that holds a sandbox open and that the node has; "" where none is known.
	pause string

	readinessText, imagesText string
}

// newNodeView reads a node. All of it is hostile: what cannot be read counts as not warm. old saves parsing what did not
// change; it may be nil.
func newNodeView(node *corev1.Node, old *nodeView) *nodeView {
	v := &nodeView{
		name: node.Name, labels: node.Labels, created: node.CreationTimestamp.Time, allocatable: resources.New(node.Status.Allocatable),
		readinessText: node.Annotations[readiness.AnnotationReadiness], imagesText: node.Annotations[readiness.AnnotationImages],
		pause: pauseImage(node.Status.Images), taints: node.Spec.Taints,
	}
	for _, c := range node.Status.Conditions {
		switch c.Type {
		case corev1.NodeReady:
			v.ready = c.Status == corev1.ConditionTrue && !node.Spec.Unschedulable && node.DeletionTimestamp == nil
		case readiness.ConditionImagesReady:
			v.imagesReady = c.Status == corev1.ConditionTrue
		default:
		}
	}
	if old != nil && old.readinessText == v.readinessText {
		v.rules = old.rules
	} else {
		v.rules = completedRules(node)
	}
	if old != nil && old.imagesText == v.imagesText {
		v.images = old.images
	} else {
		v.images = warmImages(v.imagesText)
	}
	return v
}

func completedRules(node *corev1.Node) map[string]bool {
	record, err := readiness.DecodeRecord(node)
	if err != nil {
		return nil
	}
	rules := map[string]bool{}
	for _, entry := range record.Rules {
		if entry.State == readiness.EntryDone {
			rules[entry.Name] = true
		}
	}
	return rules
}

func warmImages(text string) map[string]string {
	if text == "" {
		return nil
	}
	inventory, err := prepull.DecodeInventory(text)
	if err != nil {
		return map[string]string{}
	}
	images := make(map[string]string, len(inventory.Warm))
	for _, image := range inventory.Warm {
		images[image.Name] = image.Digest
	}
	return images
}

// pauseImage finds a sandbox image among those that the kubelet reports. The size tells it from an application that is
// called pause: the real ones are under 1 MB.
func pauseImage(images []corev1.ContainerImage) string {
	for _, image := range images {
		if image.SizeBytes > nodewatch.MaxImageBytes {
			continue
		}
		for _, name := range image.Names {
			repository, _, _ := strings.Cut(name, "@")
			if colon := strings.LastIndex(repository, ":"); colon > strings.LastIndex(repository, "/") {
				repository = repository[:colon]
			}
			if strings.HasSuffix(repository, "/pause") && !strings.Contains(name, "@") {
				return name
			}
		}
	}
	return ""
}

// warmth says what a node must have for a replica on it to be warm.
type warmth struct {
	rule string
	// images must be warm; their names are normalised, the digest's beginning may be "". wantImages with none named asks
	// for the ImagesReady condition.
	images     []prepull.InventoryImage
	wantImages bool
	// unknown holds nodes cold whatever they say: what they must have could not be found out.
	unknown bool
}

// warm reports whether a replica on this node could start a pod without waiting for images or drivers.
func (v *nodeView) warm(w warmth) bool {
	if v == nil || !v.ready || w.unknown || (w.rule != "" && !v.rules[w.rule]) {
		return false
	}
	if !w.wantImages {
		return true
	}
	if v.images == nil {
		return v.imagesReady
	}
	for _, image := range w.images {
		digest, ok := v.images[image.Name]
		if !ok || image.Digest != "" && digest != image.Digest {
			return false // not there, or what the tag named before it moved
		}
	}
	return len(w.images) > 0 || v.imagesReady
}
