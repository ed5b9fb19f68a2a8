// Package inspect says, for a person, what holds nodes and pods: it turns Nodes, Pods, rules and policies into reports and
// writes those as tables. It is pure, knows no cluster, and lets nothing that a node wrote reach a terminal unchanged.
// It stands beside the rules because a hold is what it explains; gates and the boot come in through their own pure
// packages. Start from Nodes and Pod.
package inspect
