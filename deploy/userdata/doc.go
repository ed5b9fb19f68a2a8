// Package userdata renders the userData of an instance that installs and starts the agent: MIME multipart for AL2023
// (nodeadm) here, TOML for Bottlerocket by way of package bottlerocket. It is pure: values in, text out, no clock, no
// network. It stands under deploy because its output is a deployment artefact and must not be known to the agent.
// Start from Parse and Render.
package userdata
