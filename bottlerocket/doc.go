// Package bottlerocket knows what is particular of Bottlerocket: the settings that put the agent into a superpowered
// host container (the only container that starts at boot and reaches the orchestrator's containerd), where things lie
// as that container sees them, and the API by which it switches itself off. It starts no process. Start from Render
// and Client.
package bottlerocket
