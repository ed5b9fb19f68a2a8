// Package testenv tests the testbed itself: what headstart.dev/test/testenv starts works, and leaves nothing behind.
package testenv
