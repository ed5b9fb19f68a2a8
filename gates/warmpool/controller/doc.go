// Package controller keeps warm pools at the size that gates/warmpool decides. It watches pods and nodes into a small
// model (demand, replicas, what is warm where), asks the sizer, and has a backend hold the result: pause pods, a
// CapacityBuffer or a static NodePool.
//
// Demand is observed at the instant of each pod's event and not at a reconcile, so that no rise is lost to a queue. A
// pool at its size writes nothing: no heartbeat, no status that counts time. What a size depends on is kept in a
// ConfigMap of the pool, written when it changed and at most once a minute.
//
// Start from SetupWithManager.
package controller
