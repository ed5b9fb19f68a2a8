// Package agent is the on-node loop: it gathers what a node's pods depend on (images, CNI, CSI, GPU, the user's own
// probes), evaluates it into conditions and hands them to a publisher. It owns the agent's config file. It knows no
// container runtime and no API server: the puller, the probes and the publisher come in through Options. Start from
// Load for the config and from New for the loop.
package agent
