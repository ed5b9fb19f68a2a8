package controller

import (
	"fmt"
	"regexp"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"headstart.dev/internal/resources"
)

// shortageError says why a backend has less than it was told to hold: in the words of who refuses, a quota, a limit or an
// autoscaler. It is told in the Ready condition for as long as something is missing.
type shortageError struct{ reason, message string }

func (e *shortageError) Error() string { return e.message }

// short makes a shortageError; who refuses may have given no reason.
func short(reason, format string, args ...any) error {
	if reason == "" {
		reason = reasonFilling
	}
	return &shortageError{reason: reason, message: fmt.Sprintf(format, args...)}
}

// podName is what makes two refusals of one cause differ.
var podName = regexp.MustCompile(`pods "[^"]*"`)

func withoutPodName(message string) string { return podName.ReplaceAllString(message, "pods") }

// stateOf returns a condition of an object of another project: status "" where it has none.
func stateOf(object *unstructured.Unstructured, kind string) (status, reason, message string) {
	conditions, _, err := unstructured.NestedSlice(object.Object, "status", "conditions")
	if err != nil {
		return "", "", ""
	}
	for _, c := range conditions {
		condition, ok := c.(map[string]any)
		if !ok || condition["type"] != kind {
			continue
		}
		return text(condition["status"]), text(condition["reason"]), text(condition["message"])
	}
	return "", "", ""
}

func text(value any) string {
	if s, ok := value.(string); ok {
		return s
	}
	return ""
}

// specOrFailure passes by the updates of a Deployment that neither change its spec nor whether, and why, its pods are
// refused.
var specOrFailure = predicate.Or(predicate.GenerationChangedPredicate{}, predicate.Funcs{
	UpdateFunc: func(e event.UpdateEvent) bool { return refusal(e.ObjectOld) != refusal(e.ObjectNew) },
})

func refusal(object client.Object) string {
	if deployment, ok := object.(*appsv1.Deployment); ok {
		if err := failing(deployment); err != nil {
			return err.Error()
		}
	}
	return ""
}

// maxScheduling keeps a scheduler's account of every node out of a status.
const maxScheduling = 300

// waitingFor says what the scheduler says of replicas that no node has, "" where there are none.
func (p *pool) waitingFor(m *model) string {
	count, why := 0, ""
	for uid := range p.replicas {
		v := m.pods[uid]
		if v == nil || v.node != "" || v.over || v.unscheduled == "" {
			continue
		}
		if count++; why == "" || v.unscheduled < why {
			why = v.unscheduled
		}
	}
	if count == 0 {
		return ""
	}
	out := fmt.Sprintf("; %d have no node: %s", count, why)
	if largest := p.tooLarge(m); largest != "" {
		out += "; " + largest
	}
	return out
}

// tooLarge says that no node of the pool could hold a replica even if it were empty; "" where one could, or there is none.
func (p *pool) tooLarge(m *model) string {
	largest := resources.List{}
	for _, n := range m.nodes {
		if !p.hosts(n) {
			continue
		}
		if resources.Fit(p.target.shape, n.allocatable, nil) {
			return ""
		}
		for name := range p.target.shape {
			largest[name] = max(largest[name], n.allocatable[name])
		}
	}
	if len(largest) == 0 {
		return ""
	}
	lacks := make([]string, 0, len(largest))
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
		if want := p.target.shape[name]; want > largest[name] {
			lacks = append(lacks, fmt.Sprintf("%s %s, the largest has %s", name, resources.Format(name, want), resources.Format(name, largest[name])))
		}
	}
	return strings.Join(append([]string{"no node that is there could hold one replica even if it were empty"}, lacks...), ": ")
}

// mostShape is more than any machine that can be had. Source: AWS's largest, u7inh-32tb.480xlarge, has 1920 CPUs and 32 TiB.
var mostShape = resources.List{corev1.ResourceCPU: 2048_000, corev1.ResourceMemory: 64 << 40}

// checkShape refuses a replica of no size, and one that no machine could ever hold.
func checkShape(shape corev1.ResourceList) error {
	sizes := resources.New(shape)
	size := int64(0)
	for name, amount := range sizes {
		if amount < 0 {
			return unavailable(reasonInvalid, "shape.resources.%s is negative", name)
		}
		size = max(size, amount)
		if most, bounded := mostShape[name]; bounded && amount > most {
			quantity := shape[name]
			return unavailable(reasonInvalid, "one replica asks for %s of %s, and there is no machine with more than %s: replicas are what one pod requests, max says how many",
				quantity.String(), name, resources.Format(name, most))
		}
	}
	if size == 0 {
		return unavailable(reasonInvalid, "one replica requests nothing, so that it holds no room: set shape.resources to what one pod requests")
	}
	return nil
}
