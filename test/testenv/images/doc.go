// Package images makes container images of real files, with no container engine.
//
// Layers are cut from a corpus that every machine that builds this project has: the Go tree, the module cache and the
// built servers. So they compress and unpack like the layers of real images, which random bytes do not. A layer is made
// once and kept in the user's cache folder; the same Layer always gives the same blob on one machine. Every image runs: its
// entrypoint is a static program that waits for a signal. Start from Build; WebApp, MachineLearning and Small are the shapes that demo,
// tests and benchmarks share.
package images
