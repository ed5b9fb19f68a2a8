package controller

import (
	"context"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"headstart.dev/prepull"
	"headstart.dev/prepull/budget"
	"headstart.dev/prepull/controller/resolve"
)

const (
	// maxReporters is how many nodes are asked for an image's size: with three, one that lies is outvoted.
	maxReporters = 3
	// mostBytes is what a larger image counts as: more than any disk that images are pulled to.
	mostBytes = 1 << 40
)

// reports reads from Nodes what their kubelets say of images whose registry says nothing. A Node is read once when a
// look-up has failed, never watched for it.
type reports struct {
	client kubernetes.Interface
	// having names nodes that have an image, in no order.
	having func(image string) []string
}

// look returns what most of up to three nodes say; nothing where none says anything. The digest is there only where all
// agree on it.
func (r *reports) look(ctx context.Context, image string) resolve.Image {
	nodes := r.having(image)
	slices.Sort(nodes)
	var said []resolve.Image
	for _, name := range nodes[:min(len(nodes), maxReporters)] {
		if found, ok := r.ask(ctx, name, image); ok {
			said = append(said, found)
		}
	}
	if len(said) == 0 {
		return resolve.Image{}
	}
	slices.SortFunc(said, func(a, b resolve.Image) int { return int(min(max(a.Bytes()-b.Bytes(), -1), 1)) })
	out := resolve.Image{Digest: said[0].Digest, Layers: said[len(said)/2].Layers}
	for _, other := range said {
		if other.Digest != out.Digest {
			out.Digest = ""
		}
	}
	return out
}

func (r *reports) ask(ctx context.Context, node, image string) (resolve.Image, bool) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	// Version 0: what the API server has in memory will do.
	object, err := r.client.CoreV1().Nodes().Get(ctx, node, metav1.GetOptions{ResourceVersion: "0"})
	if err != nil {
		return resolve.Image{}, false
	}
	return reportedBy(object, image)
}

// reportedBy finds an image, by its normalised name, in what the kubelet reports: names with the tag and names with the
// digest, and the size of the compressed layers.
func reportedBy(node *corev1.Node, image string) (resolve.Image, bool) {
	tagged, _, _ := strings.Cut(image, "@")
	repository := tagged
	if colon := strings.LastIndex(tagged, ":"); colon > strings.LastIndex(tagged, "/") {
		repository = tagged[:colon]
	}
	for i := range node.Status.Images {
		entry := &node.Status.Images[i]
		digests := map[string]bool{}
		named := false
		for _, text := range entry.Names {
			name, err := prepull.Normalize(text)
			named = named || err == nil && (name == image || name == tagged)
			if at, dgst, ok := strings.Cut(text, "@"); ok {
				if full, err := prepull.Normalize(at); err == nil && strings.HasPrefix(full, repository+":") {
					digests[dgst] = true
				}
			}
		}
		if !named || entry.SizeBytes <= 0 {
			continue
		}
		out := resolve.Image{Layers: []budget.Layer{{Digest: image, Bytes: min(entry.SizeBytes, mostBytes)}}}
		for dgst := range digests {
			if out.Digest = dgst; len(digests) > 1 {
				out.Digest = ""
			}
		}
		return out, true
	}
	return resolve.Image{}, false
}

// having names the nodes on which an image is, as their agents publish or as containers of it that were seen to start.
func (c *Controller) having(image string) []string {
	nodes := c.fleet.index.Nodes(warmAnyhow(image))
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.byName {
		for node, images := range p.onNode {
			if images[image] && !slices.Contains(nodes, node) {
				nodes = append(nodes, node)
			}
		}
	}
	return nodes
}
