// Package controller lifts scheduling gates. It watches unscheduled pods, policies, nodes and the things that pods wait
// for, keeps an index from each of those things to the pods that wait for it, and patches a pod at the moment at which
// the last of them arrives. What may be lifted is decided by package gates; this package gathers facts and writes.
//
// Start from SetupWithManager. One Reconciler serves one cluster; everything behind it is safe for concurrent use.
package controller
