// Package image makes the agent's and the controller's container images without a container engine: it compiles the
// binary for each architecture, puts it into one layer with the root certificates and, where it is not static, the C
// library, and adds an SBOM that refers to the image. Nothing in an image comes from the clock or the builder's paths, so
// two builds of one commit with one toolchain have one digest. It does not sign. Start from Build.
package image
