// Package install puts the agent on a host from inside of a container or an AMI build: binary, systemd unit, default
// config. It only writes files below one root and never leaves it; it starts nothing and talks to no systemd. Start
// from Install.
package install
