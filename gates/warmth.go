package gates

import (
	"maps"
	"slices"
)

// Warmth says where the images of a pod are, for a person who asks.
type Warmth struct {
	// Images tells of each image on how many nodes it is warm at all, whether the pod could run there or not.
	Images []WarmImage `json:"images,omitempty"`
	// Nodes are those where all images are warm and the pod could run, by name.
	Nodes []WarmNode `json:"nodes,omitempty"`
}

// WarmImage is one image of a pod.
type WarmImage struct {
	Image string   `json:"image"`
	Nodes []string `json:"nodes,omitempty"`
}

// WarmNode is a node where all images of a pod are warm.
type WarmNode struct {
	Name string `json:"name"`
	// Full says that the pod does not fit in what is free there now.
	Full bool `json:"full,omitempty"`
}

// Warmth looks where the images of a shape are.
func (f *Fleet) Warmth(shape *Shape) Warmth {
	var out Warmth
	for _, image := range shape.Images {
		out.Images = append(out.Images, WarmImage{Image: image, Nodes: slices.Sorted(maps.Keys(f.warm[image]))})
	}
	for _, n := range f.warmNodes(shape) {
		out.Nodes = append(out.Nodes, WarmNode{Name: n.Name(), Full: !n.hasRoom(shape)})
	}
	return out
}
