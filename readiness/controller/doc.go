// Package controller carries out readiness rules: it watches nodes and what the rules ask about, keeps a small model of
// every node in memory, and writes the difference between what a node carries and what the rules want, in one patch.
//
// The model is fed by watches alone; nothing lists or polls on the way of a release. Every replica keeps its model warm,
// only the leader writes. Decisions are readiness.Evaluate's and readiness.Plan's; this package does the I/O and owns no
// rule of its own. Start from Engine.
package controller
