package main

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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

// exists asks the API server. What may not be asked is taken for there, and said: a wrong "missing" would send somebody
// after the wrong thing.
func (c *cluster) exists(ctx context.Context, warn func(string)) func(gates.Dependency) bool {
	return func(d gates.Dependency) bool {
		resource, known := dependencyResources[d.Kind]
		if !known {
			warn(fmt.Sprintf("cannot look for %s: this version does not know the kind", d))
			return true
		}
		object, err := c.dynamic.Resource(resource).Namespace(d.Namespace).Get(ctx, d.Name, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
			return false
		case err != nil:
			warn(fmt.Sprintf("cannot look for %s: %v", d, err))
			return true
		}
		return object.GetDeletionTimestamp() == nil
	}
}
