// Command rbac prints what each identity of Headstart can do, feature by feature, and how that compares with the roles of
// the Kubernetes SIG's node-readiness-controller and of Karpenter. It reads deploy/rbac; start from readRoles.
package main

import (
	"fmt"
	"os"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "rbac:", err)
		os.Exit(1)
	}
}

func run() error {
	features, err := readRoles("deploy/rbac")
	if err != nil {
		return err
	}
	others, err := readOthers("test/rbac/testdata/others.yaml")
	if err != nil {
		return err
	}
	_, err = os.Stdout.WriteString(report(features, others))
	return err
}
