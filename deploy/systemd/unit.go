// Package systemd holds the agent's systemd unit, so that userData and "headstart-agent install" carry the one that
// stands in this folder. It decides nothing.
package systemd

import _ "embed" // the unit is a file, so that systemd-analyze and people can read it

// UnitName is the unit's file name.
const UnitName = "headstart-agent.service"

// Unit is the text of headstart-agent.service.
//
//go:embed headstart-agent.service
var Unit string
