//go:build !isal || !cgo

// Package isal reads gzip by Intel's ISA-L when it is built with cgo and the tag isal; without them it is empty.
package isal
