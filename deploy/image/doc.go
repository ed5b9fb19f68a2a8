// Package image makes the agent's and the controller's container images without a container engine: it compiles the
// static binary for each architecture, puts it into one layer and adds an SBOM that refers to the image. Nothing in an
// image comes from the clock or the builder's machine, so two builds of one commit have one digest. It does not sign.
// Start from Build.
package image
