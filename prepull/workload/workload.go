// Package workload finds the images that the pods of a workload will use, in any object that holds a pod template:
// Kubernetes' own kinds, and those of others (Rollout, JobSet, LeaderWorkerSet) without knowing them. It is pure and
// safe for concurrent use. Start from Images.
package workload

import (
	"maps"
	"slices"

	"k8s.io/client-go/util/jsonpath"
)

// Bounds on one object. Whoever may create a workload chooses its content, so none of it may cost the cluster more than
// this: a real pod has a few dozen containers at most, and a template lies five or six levels deep.
const (
	maxDepth    = 16
	maxImages   = 100
	maxNameSize = 512
)

// Images returns the image references of the object, each once, in order of first appearance within a pod template (init
// containers, containers, ephemeral containers, image volumes), and then those that paths lead to. An object without
// either has none. References are as the author wrote them.
//
// A pod template is recognised by its form: a map with a list "containers" whose entries have an image, which every kind
// with a pod template has, at whatever path; or a map "container" or "script" that has an image, as the steps of an Argo
// Workflow. What the object says of itself (metadata, status) is not looked at.
func Images(object map[string]any, paths ...*jsonpath.JSONPath) []string {
	var c collector
	for _, key := range sortedKeys(object) {
		switch key {
		case "apiVersion", "kind", "metadata", "status":
		default:
			c.walk(object[key], 0)
		}
	}
	c.at(paths, object)
	return c.images
}

type collector struct{ images []string }

func (c *collector) walk(value any, depth int) {
	if depth > maxDepth || len(c.images) >= maxImages {
		return
	}
	switch v := value.(type) {
	case map[string]any:
		if isPodSpec(v) {
			c.podSpec(v)
			return
		}
		c.add(field(v["container"], "image"))
		c.add(field(v["script"], "image"))
		for _, key := range sortedKeys(v) {
			c.walk(v[key], depth+1)
		}
	case []any:
		for _, item := range v {
			c.walk(item, depth+1)
		}
	}
}

func isPodSpec(v map[string]any) bool {
	list, ok := v["containers"].([]any)
	if !ok {
		return false
	}
	return slices.ContainsFunc(list, func(item any) bool { return field(item, "image") != "" })
}

func (c *collector) podSpec(spec map[string]any) {
	for _, key := range []string{"initContainers", "containers", "ephemeralContainers"} {
		for _, container := range list(spec[key]) {
			c.add(field(container, "image"))
		}
	}
	for _, volume := range list(spec["volumes"]) {
		if v, ok := volume.(map[string]any); ok {
			c.add(field(v["image"], "reference"))
		}
	}
}

func (c *collector) add(image string) {
	if image == "" || len(image) > maxNameSize || len(c.images) >= maxImages || slices.Contains(c.images, image) {
		return
	}
	c.images = append(c.images, image)
}

func list(value any) []any {
	items, ok := value.([]any)
	if !ok {
		return nil
	}
	return items
}

func field(value any, key string) string {
	m, ok := value.(map[string]any)
	if !ok {
		return ""
	}
	text, ok := m[key].(string)
	if !ok {
		return ""
	}
	return text
}

// sortedKeys makes the order of the images independent of Go's map order, so that a status never changes by itself.
func sortedKeys(m map[string]any) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

// Strip drops from an object all that Images does not read, so that a cache of many workloads stays small. It changes
// the object and returns it; metadata keeps its name, namespace, uid, resourceVersion and labels.
func Strip(object map[string]any, paths ...*jsonpath.JSONPath) map[string]any {
	kept := map[string]any{"apiVersion": object["apiVersion"], "kind": object["kind"]}
	if meta, ok := object["metadata"].(map[string]any); ok {
		small := map[string]any{}
		for _, key := range []string{"name", "namespace", "uid", "resourceVersion", "labels", "generation"} {
			if value, ok := meta[key]; ok {
				small[key] = value
			}
		}
		kept["metadata"] = small
	}
	containers := []any{}
	for _, image := range Images(object, paths...) {
		containers = append(containers, map[string]any{"image": image})
	}
	if len(containers) > 0 {
		kept["spec"] = map[string]any{"containers": containers}
	}
	clear(object)
	maps.Copy(object, kept)
	return object
}
