// Package conventions holds the tests that keep the house in order: which package may import which, how large a file
// may grow, that every package says what it is for, and that the README names nothing that does not exist.
package conventions
