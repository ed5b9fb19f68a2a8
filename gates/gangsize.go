package gates

import (
	"cmp"
	"errors"
	"fmt"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"headstart.dev/gates/v1alpha1"
)

// PodGroupType is the API of PodGroups; where another version of it is served, that one is read.
const PodGroupType = "scheduling.k8s.io/v1beta1/PodGroup"

// Gang names the gang that the pod belongs to by this policy. ok is false when the policy asks for none. A pod that does
// not say which gang it is of is in one that never is complete. Policies of two gates have a gang each of the same pods:
// what holds for one gate says nothing of the other. "@" cannot begin the key of a label.
func (p *Policy) Gang(pod *Pod) (gang Dependency, ok bool) {
	if p.gang == nil {
		return gang, false
	}
	gang = Dependency{Kind: KindGang, Type: p.GateName, Namespace: pod.Namespace}
	switch {
	case p.gang.Label != "":
		gang.Name = p.gang.Label + "=" + pod.Labels[p.gang.Label]
	case p.gang.SizeFrom == v1alpha1.SizeFromPodGroup:
		gang.Name = "@PodGroup=" + pod.PodGroup
	default:
		gang.Name = ownerGang(pod.OwnerType, pod.OwnerName)
	}
	return gang, true
}

func ownerGang(typ, name string) string { return "@" + typ + "=" + name }

// GangSelector is the label that all members of a gang have; ok is false where no label says it.
func GangSelector(gang Dependency) (selector map[string]string, ok bool) {
	key, value, _ := strings.Cut(gang.Name, "=")
	if strings.HasPrefix(key, "@") || value == "" {
		return nil, false
	}
	return map[string]string{key: value}, true
}

// Nameless says that no member says which gang it is of.
func Nameless(gang Dependency) bool { return strings.HasSuffix(gang.Name, "=") }

// InGang says whether a pod of the gang's namespace is a member.
func InGang(gang Dependency, pod *corev1.Pod) bool {
	key, value, _ := strings.Cut(gang.Name, "=")
	switch {
	case key == "@PodGroup":
		group := pod.Spec.SchedulingGroup
		return group != nil && group.PodGroupName != nil && *group.PodGroupName == value
	case strings.HasPrefix(key, "@"):
		owner := metav1.GetControllerOfNoCopy(pod)
		return owner != nil && ownerGang(owner.APIVersion+"/"+owner.Kind, owner.Name) == gang.Name
	default:
		return pod.Labels[key] == value
	}
}

// sizeSource is the object that says how large the pod's gang is.
func (p *Policy) sizeSource(pod *Pod) (d Dependency, ok bool) {
	switch p.gang.SizeFrom {
	case v1alpha1.SizeFromOwner:
		return Dependency{Kind: KindObject, Type: pod.OwnerType, Namespace: pod.Namespace, Name: pod.OwnerName}, pod.OwnerName != ""
	case v1alpha1.SizeFromPodGroup:
		return Dependency{Kind: KindObject, Type: PodGroupType, Namespace: pod.Namespace, Name: pod.PodGroup}, pod.PodGroup != ""
	default:
		return d, false
	}
}

// sizeOf says how large the gang must be, or what is missing to know it.
func (p *Policy) sizeOf(gang Dependency, members []*Pod, facts Facts) (int, []Unmet) {
	size := int(p.gang.Size)
	for _, pod := range members {
		has, unmet := p.sizeBy(gang, pod, facts)
		if unmet != nil {
			return 0, unmet
		}
		size = max(size, has)
	}
	return size, nil
}

func (p *Policy) sizeBy(gang Dependency, pod *Pod, facts Facts) (int, []Unmet) {
	key := cmp.Or(p.gang.SizeKey, v1alpha1.DefaultSizeKey)
	var text, where string
	switch p.gang.SizeFrom {
	case v1alpha1.SizeFromLabel:
		text, where = pod.Labels[key], "label "+key
	case v1alpha1.SizeFromAnnotation:
		text, where = pod.Numbers[key], "annotation "+key
	case v1alpha1.SizeFromOwner, v1alpha1.SizeFromPodGroup:
		source, ok := p.sizeSource(pod)
		if !ok {
			return 0, []Unmet{{Dependency: gang, Unknown: true, Problem: fmt.Sprintf("pod %s names no %s", pod.Name, p.gang.SizeFrom)}}
		}
		object, is := facts.Object(source)
		if !is.There {
			return 0, []Unmet{lacks(source, is)}
		}
		size, err := sizeIn(object.Content)
		if err != nil {
			return 0, []Unmet{{Dependency: source, Have: 1, Want: 1, Problem: err.Error()}}
		}
		return size, nil
	default:
		return 0, nil
	}
	size, err := strconv.ParseUint(text, 10, 16)
	if err != nil || size == 0 {
		return 0, []Unmet{{Dependency: gang, Unknown: true, Problem: fmt.Sprintf("%s of pod %s is %q, want the gang's size", where, pod.Name, text)}}
	}
	return int(size), nil
}

// sizeIn reads how many pods an object runs at once: a PodGroup's minCount, a Job's parallelism where it does not end
// sooner, any other's replicas.
func sizeIn(content map[string]any) (int, error) {
	spec, _ := content["spec"].(map[string]any)
	if policy, ok := spec["schedulingPolicy"].(map[string]any); ok {
		gang, _ := policy["gang"].(map[string]any)
		if count, ok := gang["minCount"].(int64); ok {
			return int(count), nil
		}
		return 0, errors.New("its scheduling policy is not gang")
	}
	if content["kind"] == "Job" {
		size := int64(1)
		if parallelism, ok := spec["parallelism"].(int64); ok {
			size = parallelism
		}
		if completions, ok := spec["completions"].(int64); ok {
			size = min(size, completions)
		}
		return int(size), nil
	}
	if replicas, ok := spec["replicas"].(int64); ok {
		return int(replicas), nil
	}
	return 0, errors.New("it has neither parallelism nor replicas, which would be the gang's size")
}
