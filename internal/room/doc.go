// Package room says what a pod could have on a node by kube-scheduler's own rules: node selector, affinity, taints,
// resources, host ports, and what the scheduler would make free for it, preemption included. Gates, gangs, steering and
// pools ask it, so that they never disagree.
//
// It is code of its own on k8s.io/component-helpers, and does not link the scheduler's framework. The plugins live in
// k8s.io/kubernetes, a module that nobody may depend on without a replace line for each of its thirty staging modules,
// all moved together at each minor version; k8s.io/kube-scheduler has their interfaces alone. The framework's cache holds
// whole Pods: some ten kilobytes for each of ten thousand, beyond the controller's memory. And its filters look at all
// nodes for one pod, where gates must answer for thousands of pods in a millisecond each. Karpenter and Kueue came to the
// same choice. The rules that count for room are few and stable, and the affinity and toleration code is the scheduler's.
//
// Not covered, and said so where somebody asks: limits of attached volumes, volumes bound to a zone or in use elsewhere,
// devices of ResourceClaims, namespace selectors of pod affinity, matchLabelKeys. Such a pod may be let go and wait for
// the scheduler, as it would have without its gate.
//
// It is pure. A Demand and an Usage belong to one goroutine or one lock; a Node is immutable.
package room
