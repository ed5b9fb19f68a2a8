// Package lifecycle does what Helm cannot do of an upgrade and an uninstall: it brings the CRDs to this version, and takes
// everything off a cluster that Headstart has put on its nodes and pods. It runs once, as a Job, beside or after the
// controller and never instead of it. Start from CleanUp and UpgradeCRDs.
package lifecycle
