package main

import (
	"flag"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write testdata/report.txt anew")

func roles(t *testing.T) []feature {
	t.Helper()
	features, err := readRoles("../../deploy/rbac")
	require.NoError(t, err)
	return features
}

// TestTheReportIsReviewed makes every right that is added or lost a line of a diff.
func TestTheReportIsReviewed(t *testing.T) {
	others, err := readOthers("testdata/others.yaml")
	require.NoError(t, err)
	got := report(roles(t), others)
	const file = "testdata/report.txt"
	if *update {
		require.NoError(t, os.WriteFile(file, []byte(got), 0o600))
	}
	want, err := os.ReadFile(file)
	require.NoError(t, err)
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("run the test with -update after you have read the difference:\n%s", diff)
	}
}

// TestTheSumOfRights says what no sum of features may come to.
func TestTheSumOfRights(t *testing.T) {
	features := roles(t)
	for _, f := range features {
		for _, r := range f.rights {
			what := f.identity + "/" + f.name + ": " + r.resource
			require.NotContains(t, r.resource, "*", what)
			require.NotContains(t, strings.Join(r.verbs, " "), "*", what)
			for _, verb := range []string{"escalate", "bind", "impersonate", "deletecollection", "approve", "sign"} {
				require.NotContains(t, r.verbs, verb, what)
			}
			resource, _, _ := strings.Cut(r.resource, ".")
			require.NotContains(t, []string{"roles", "clusterroles", "rolebindings", "clusterrolebindings", "pods/exec", "pods/attach", "serviceaccounts/token", "nodes/proxy"}, resource, what)
			if resource == "nodes" && f.identity == "controller" {
				require.False(t, slices.Contains(r.verbs, "create") || slices.Contains(r.verbs, "delete") || slices.Contains(r.verbs, "update"), what)
			}
		}
	}
	byDefault := sum(features, func(name string) bool { return !slices.Contains(optional, name) })
	require.Empty(t, byDefault["secrets"], "no Secret is read unless somebody asks for it")
	require.NotContains(t, byDefault["configmaps"], "list", "no ConfigMap is read but those whose name is known")
	require.NotContains(t, byDefault["configmaps"], "watch")
}
