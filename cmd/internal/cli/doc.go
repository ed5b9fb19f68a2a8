// Package cli is what the three commands have in common: exit codes, words and flags that nobody knows, forms of output and
// the version. It knows neither a cluster nor a node. Start from Complete, which finishes a root command, and Execute.
package cli
