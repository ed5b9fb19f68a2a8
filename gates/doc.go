// Package gates decides when a pod's scheduling gate may be lifted and to which warm node the pod is steered. It is
// pure: values in, a verdict out; no clients, no goroutines, no clock of its own. A Policy is compiled once and is safe
// for concurrent use; a Fleet is mutable and belongs to one goroutine or one lock. Start from Compile and Policy.Evaluate.
package gates
