// Package nodestatus publishes an agent's conditions and annotations on its own Node: level-triggered, one
// strategic-merge patch to the status a burst, on change only. It never writes taints, labels or anything of spec. It
// holds nothing but the newest state, so an API server that is away for long costs nothing and gets one patch when it is
// back. Start from Publisher; Connect finds the identity to write with.
package nodestatus
