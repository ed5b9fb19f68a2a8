package main

import (
	"context"
	"fmt"
	"maps"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"headstart.dev/gates"
)

// dependencyResources are the resources of what a pod may refer to.
var dependencyResources = map[gates.Kind]schema.GroupVersionResource{
	gates.KindConfigMap:             {Version: "v1", Resource: "configmaps"},
	gates.KindSecret:                {Version: "v1", Resource: "secrets"},
	gates.KindPersistentVolumeClaim: {Version: "v1", Resource: "persistentvolumeclaims"},
	gates.KindServiceAccount:        {Version: "v1", Resource: "serviceaccounts"},
	gates.KindResourceClaim:         {Group: "resource.k8s.io", Version: "v1", Resource: "resourceclaims"},
	gates.KindResourceClaimTemplate: {Group: "resource.k8s.io", Version: "v1", Resource: "resourceclaimtemplates"},
	gates.KindStorageClass:          {Group: "storage.k8s.io", Version: "v1", Resource: "storageclasses"},
	gates.KindPriorityClass:         {Group: "scheduling.k8s.io", Version: "v1", Resource: "priorityclasses"},
	gates.KindRuntimeClass:          {Group: "node.k8s.io", Version: "v1", Resource: "runtimeclasses"},
}

// exists asks the API server.
func (c *cluster) exists(ctx context.Context) func(gates.Dependency) gates.Existence {
	return func(d gates.Dependency) gates.Existence {
		resource, known := dependencyResources[d.Kind]
		if !known {
			return gates.Existence{Unknown: true, Problem: "this version does not know the kind"}
		}
		object, err := c.dynamic.Resource(resource).Namespace(d.Namespace).Get(ctx, d.Name, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
			return gates.There(false)
		case err != nil:
			return gates.Existence{Unknown: true, Problem: err.Error()}
		}
		out := gates.There(object.GetDeletionTimestamp() == nil)
		switch d.Kind {
		case gates.KindConfigMap, gates.KindSecret:
			out.NamesKnown = true
			for _, field := range []string{"data", "binaryData"} {
				content, _, _ := unstructured.NestedMap(object.Object, field)
				out.Names = append(out.Names, slices.Collect(maps.Keys(content))...)
			}
		case gates.KindServiceAccount:
			secrets, _, _ := unstructured.NestedSlice(object.Object, "imagePullSecrets")
			for _, secret := range secrets {
				if ref, ok := secret.(map[string]any); ok {
					out.Names = append(out.Names, fmt.Sprint(ref["name"]))
				}
			}
		default: // its existence is all
		}
		return out
	}
}
