package controller

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"

	"headstart.dev/gates"
	prepullv1alpha1 "headstart.dev/prepull/v1alpha1"
)

// Live reads facts from the API server as they are asked for, without a watch: for a command that explains one pod.
type Live struct {
	Typed   kubernetes.Interface
	Dynamic dynamic.Interface
	// Warn is told what could not be read; the fact counts as missing.
	Warn func(string)
}

// Complete adds to facts what a policy may ask beside objects' existence and nodes. ctx must outlive their use.
func (l Live) Complete(ctx context.Context, facts gates.Facts) gates.Facts {
	facts.Object = func(d gates.Dependency) (gates.Object, gates.Existence) {
		object, found, err := l.object(ctx, d)
		return object, existence(found, err)
	}
	facts.ReadyEndpoints = func(d gates.Dependency) (int, gates.Existence) {
		count, err := l.readyEndpoints(ctx, d)
		return count, existence(true, err)
	}
	facts.Gang = func(d gates.Dependency, gate string) gates.Gang {
		gang, err := l.gang(ctx, d, gate)
		l.warn(d, err)
		return gang
	}
	return facts
}

func (l Live) warn(d gates.Dependency, err error) {
	if err != nil {
		l.Warn(fmt.Sprintf("cannot look for %s: %v", d, err))
	}
}

func existence(found bool, err error) gates.Existence {
	if err != nil {
		return gates.Existence{Unknown: true, Problem: err.Error()}
	}
	return gates.There(found)
}

func (l Live) object(ctx context.Context, d gates.Dependency) (gates.Object, bool, error) {
	gvk, err := groupVersionKind(d)
	if err != nil {
		return gates.Object{}, false, err
	}
	list, err := l.Typed.Discovery().ServerResourcesForGroupVersion(gvk.GroupVersion().String())
	if err != nil {
		return gates.Object{}, false, fmt.Errorf("find kind %s: %w", d.Type, err)
	}
	for i := range list.APIResources {
		resource := &list.APIResources[i]
		if resource.Kind != gvk.Kind || strings.Contains(resource.Name, "/") {
			continue
		}
		namespace := d.Namespace
		if !resource.Namespaced {
			namespace = metav1.NamespaceNone
		}
		object, err := l.Dynamic.Resource(gvk.GroupVersion().WithResource(resource.Name)).Namespace(namespace).Get(ctx, d.Name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return gates.Object{}, false, nil
		}
		if err != nil {
			return gates.Object{}, false, fmt.Errorf("get %s: %w", d, err)
		}
		read, ok := readObject(object)
		return read, ok, nil
	}
	return gates.Object{}, false, nil
}

// PulledFor names the nodes that GatePolicies have asked to fetch images of a pod, by their hostname labels, sorted.
func PulledFor(pod *corev1.Pod, policies []prepullv1alpha1.PrepullPolicy) ([]string, error) {
	read, err := gates.NewShapes().Pod(pod)
	if err != nil {
		return nil, err
	}
	var out []string
	for i := range policies {
		needed := slices.ContainsFunc(policies[i].Spec.Images, func(image prepullv1alpha1.Image) bool { return slices.Contains(read.Names, image.Image) })
		if needed && policies[i].Labels[labelManagedBy] == Name {
			out = append(out, hostsOf(&policies[i])...)
		}
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

func (l Live) readyEndpoints(ctx context.Context, d gates.Dependency) (int, error) {
	list, err := l.Typed.DiscoveryV1().EndpointSlices(d.Namespace).List(ctx, metav1.ListOptions{
		LabelSelector: labels.Set{discoveryv1.LabelServiceName: d.Name}.String(),
	})
	if err != nil {
		return 0, fmt.Errorf("list EndpointSlices: %w", err)
	}
	var found []*discoveryv1.EndpointSlice
	for i := range list.Items {
		found = append(found, &list.Items[i])
	}
	return countReady(found), nil
}

func (l Live) gang(ctx context.Context, d gates.Dependency, gate string) (gates.Gang, error) {
	var out gates.Gang
	if gates.Nameless(d) {
		return out, nil
	}
	var options metav1.ListOptions
	if selector, ok := gates.GangSelector(d); ok {
		options.LabelSelector = labels.Set(selector).String()
	}
	list, err := l.Typed.CoreV1().Pods(d.Namespace).List(ctx, options)
	if err != nil {
		return out, fmt.Errorf("list pods: %w", err)
	}
	shapes := gates.NewShapes()
	for i := range list.Items {
		if !gates.InGang(d, &list.Items[i]) {
			continue
		}
		pod, err := shapes.Pod(&list.Items[i])
		if err != nil {
			return out, err
		}
		if hasGate(pod, gate) && !pod.Deleting {
			out.Waiting = append(out.Waiting, pod)
		}
		out.Past = out.Past || isPast(&list.Items[i], gate, "")
	}
	return out, nil
}
