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

// arrow forbids some imports to some folders. dir and imported are slash-separated; own is the imported package's path
// within this module, "" where it is foreign.
type arrow struct {
	why     string
	forbids func(dir, imported, own string) bool
}

// Those of the architecture: cmd -> {agent, controllers} -> domain packages.
var arrows = []arrow{
	{"only prepull/containerd knows the containerd client", func(dir, imported, _ string) bool {
		return within(imported, containerdModule) && !withinAny(dir, "prepull/containerd", "prepull/soci")
	}},
	{"a domain package is pure: it takes values, not clients", func(dir, imported, _ string) bool {
		return slices.Contains(pureDomains, dir) && withinAny(imported, clientGo, controllerRuntime)
	}},
	{"controller-runtime stays in the controllers", func(dir, imported, _ string) bool {
		return within(imported, controllerRuntime) && !mayReconcile(dir)
	}},
	{"the agent and the controllers meet only at the Node object", func(dir, _, own string) bool {
		return within(dir, "agent") && isController(own) || isController(dir) && within(own, "agent")
	}},
	{"domain packages know neither the agent nor a controller", func(dir, _, own string) bool {
		return slices.Contains(pureDomains, dir) && (within(own, "agent") || isController(own))
	}},
	{"nothing imports test", func(_, _, own string) bool { return within(own, "test") }},
}

// forbidden says why a file may not import a package, or "" where it may. Tests may import everything but a command.
func forbidden(f sourceFile, imported string) string {
	own, isOwn := strings.CutPrefix(imported, modulePath+"/")
	if !isOwn {
		own = ""
	}
	if within(own, "cmd") && (!within(f.dir(), "cmd") || !within(own, "cmd/internal")) {
		return "nothing imports cmd, but commands what they share"
	}
	if f.isTest() || within(f.dir(), "test") {
		return ""
	}
	for _, a := range arrows {
		if a.forbids(f.dir(), imported, own) {
			return a.why
		}
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
		"a library with what commands share":     {"agent/loop.go", modulePath + "/cmd/internal/cli"},
		"a command with another":                 {"cmd/kubectl-headstart/main.go", modulePath + "/cmd/headstart-agent"},
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
