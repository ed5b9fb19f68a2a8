// Package policy keeps what this node should have ready equal to the PrepullPolicies that choose it, on top of the static
// list of the agent's config. It reads policies and decides; it writes nothing, neither to the API server nor to the
// node. Start from New.
package policy
