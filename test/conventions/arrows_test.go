package conventions

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const (
	controllerRuntime = "sigs.k8s.io/controller-runtime"
	clientGo          = "k8s.io/client-go"
	containerdModule  = "github.com/containerd/containerd"
)

// within says whether the package path lies in or under dir.
func within(pkg, dir string) bool { return pkg == dir || strings.HasPrefix(pkg, dir+"/") }

func withinAny(pkg string, dirs ...string) bool {
	return slices.ContainsFunc(dirs, func(dir string) bool { return within(pkg, dir) })
}

// pureDomains are the packages that decide: values in, values out.
var pureDomains = []string{"readiness", "gates", "prepull", "gates/warmpool"}

// forbidden says why a file may not import a package, or "" where it may. The arrows are those of the architecture:
// cmd -> {agent, controllers} -> domain packages.
func forbidden(f sourceFile, imported string) string {
	dir := f.dir()
	own, isOwn := strings.CutPrefix(imported, modulePath+"/")
	switch {
	case isOwn && within(own, "cmd"):
		return "nothing imports cmd"
	case withinAny(dir, "test") || f.isTest():
		return ""
	case isOwn && within(own, "test"):
		return "nothing imports test"
	case within(imported, containerdModule) && !withinAny(dir, "prepull/containerd", "prepull/soci"):
		return "only prepull/containerd knows the containerd client"
	case slices.Contains(pureDomains, dir) && (within(imported, clientGo) || within(imported, controllerRuntime)):
		return "a domain package is pure: it takes values, not clients"
	case within(imported, controllerRuntime) && !mayReconcile(dir):
		return "controller-runtime stays in the controllers"
	case isOwn && within(dir, "agent") && isController(own):
		return "the agent and the controllers meet only at the Node object"
	case isOwn && isController(dir) && within(own, "agent") && own != "agent/timeline":
		return "the agent and the controllers meet only at the Node object"
	case isOwn && slices.Contains(pureDomains, dir) && (within(own, "agent") || isController(own)):
		return "domain packages know neither the agent nor a controller"
	}
	return ""
}

func isController(dir string) bool {
	return strings.HasSuffix(dir, "/controller") || strings.Contains(dir, "/controller/") || within(dir, "gates/provisioning")
}

func mayReconcile(dir string) bool {
	return isController(dir) || within(dir, "cmd/headstart-controller") || within(dir, "gates/warmpool") && dir != "gates/warmpool"
}

func TestImportsFollowTheArrows(t *testing.T) {
	for _, f := range goFiles(t) {
		for _, imported := range f.imports {
			why := forbidden(f, imported)
			require.Empty(t, why, "%s imports %s", f.path, imported)
		}
	}
}

func TestArrowsRefuse(t *testing.T) {
	cases := map[string]struct{ from, imported string }{
		"a domain package with a client":         {"readiness/rule.go", clientGo + "/kubernetes"},
		"a domain package with a reconciler":     {"gates/policy.go", controllerRuntime + "/pkg/client"},
		"the agent with controller-runtime":      {"agent/loop.go", controllerRuntime},
		"the agent with the containerd client":   {"agent/probe/cni.go", containerdModule + "/v2/client"},
		"a library with a command":               {"agent/loop.go", modulePath + "/cmd/headstart-agent"},
		"a product package with the testbed":     {"prepull/plan.go", modulePath + "/test/testenv"},
		"the agent with a controller":            {"agent/loop.go", modulePath + "/readiness/controller"},
		"a test with a command":                  {"test/e2e/boot.go", modulePath + "/cmd/headstart-agent"},
		"the pull planner with containerd":       {"prepull/plan.go", containerdModule + "/v2/core/images"},
		"the pure warm pool with its controller": {"gates/warmpool/size.go", modulePath + "/gates/warmpool/controller"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			require.NotEmpty(t, forbidden(sourceFile{path: tc.from}, tc.imported))
		})
	}
}
