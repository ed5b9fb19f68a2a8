package images

import (
	"fmt"
	"slices"
)

const (
	kib = int64(1) << 10
	mib = kib << 10
	gib = mib << 10
)

// WebApp is a web service: 8 layers, 400 MiB of files, as a language runtime, its packages and an application make them.
func WebApp() Spec {
	return Spec{Layers: layers("web", 0, 75*mib, 30*mib, 120*mib, 90*mib, 45*mib, 30*mib, 9*mib, 1*mib)}
}

// MachineLearning is a GPU framework: one layer of 2 GiB and 15 others of some 1.3 GiB together.
func MachineLearning() Spec {
	return Spec{Layers: layers("ml", gib, 75*mib, 20*mib, 180*mib, 2*gib, 350*mib, 220*mib, 160*mib, 90*mib, 60*mib, 50*mib,
		40*mib, 30*mib, 20*mib, 10*mib, 2*mib, 64*kib)}
}

// Small returns n small services of some 65 MiB that share two base layers and have two of their own.
func Small(n int) []Spec {
	base := layers("base", 512*mib, 40*mib, 15*mib)
	specs := make([]Spec, n)
	for i := range specs {
		own := layers(fmt.Sprintf("svc%d", i), gib/2+int64(i)*16*mib, 8*mib, 2*mib)
		specs[i] = Spec{Layers: append(slices.Clip(base), own...)}
	}
	return specs
}

// Sized returns an image with layers of the given sizes, for a test that needs just these. Images with different names share no
// layer.
func Sized(name string, sizes ...int64) Spec {
	return Spec{Layers: layers(name, 0, sizes...)}
}

func layers(name string, skip int64, sizes ...int64) []Layer {
	made := make([]Layer, len(sizes))
	for i, size := range sizes {
		made[i] = Layer{Bytes: size, Skip: skip, Dir: fmt.Sprintf("opt/%s/%d", name, i)}
		skip += size
	}
	return made
}
