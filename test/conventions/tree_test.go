package conventions

import (
	"bufio"
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const modulePath = "headstart.dev"

// sourceFile is one Go file of the product's module, path relative to its root, with forward slashes.
type sourceFile struct {
	path      string
	pkg       string
	lines     int
	imports   []string
	hasDoc    bool
	generated bool
}

func (f sourceFile) dir() string  { return path.Dir(f.path) }
func (f sourceFile) isTest() bool { return strings.HasSuffix(f.path, "_test.go") }

// root is the product's folder, found from this package's own.
func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../..")
	require.NoError(t, err)
	return dir
}

// trackedFiles lists what git knows or would add, so that build output never counts.
func trackedFiles(t *testing.T) []string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "git", "ls-files", "--cached", "--others", "--exclude-standard")
	cmd.Dir = root(t)
	out, err := cmd.Output()
	require.NoError(t, err, "list files")
	var files []string
	for line := range strings.Lines(string(out)) {
		name := strings.TrimSpace(line)
		// git lists a link to a folder (the chart has some) as a file.
		if info, err := os.Stat(filepath.Join(cmd.Dir, name)); err == nil && !info.IsDir() {
			files = append(files, name)
		}
	}
	require.NotEmpty(t, files)
	return files
}

// goFiles parses every Go file of the product's module; files of nested modules have rules of their own.
func goFiles(t *testing.T) []sourceFile {
	t.Helper()
	var nested []string
	tracked := trackedFiles(t)
	for _, name := range tracked {
		if dir, ok := strings.CutSuffix(name, "/go.mod"); ok {
			nested = append(nested, dir+"/")
		}
	}
	inNested := func(name string) bool {
		for _, dir := range nested {
			if strings.HasPrefix(name, dir) {
				return true
			}
		}
		return false
	}
	var files []sourceFile
	for _, name := range tracked {
		if strings.HasSuffix(name, ".go") && !inNested(name) {
			files = append(files, parse(t, name))
		}
	}
	return files
}

func parse(t *testing.T, name string) sourceFile {
	t.Helper()
	src, err := os.ReadFile(filepath.Join(root(t), name))
	require.NoError(t, err)
	tree, err := parser.ParseFile(token.NewFileSet(), name, src, parser.ParseComments|parser.ImportsOnly)
	require.NoError(t, err)
	f := sourceFile{path: name, pkg: tree.Name.Name, hasDoc: tree.Doc != nil, generated: ast.IsGenerated(tree)}
	for lines := bufio.NewScanner(bytes.NewReader(src)); lines.Scan(); {
		f.lines++
	}
	for _, spec := range tree.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		require.NoError(t, err)
		f.imports = append(f.imports, imported)
	}
	return f
}

func TestTopLevelFoldersAreTheHouse(t *testing.T) {
	allowed := []string{"cmd", "agent", "readiness", "prepull", "gates", "internal", "deploy", "bottlerocket", "test", ".ci"}
	for _, name := range trackedFiles(t) {
		if top, _, nested := strings.Cut(name, "/"); nested {
			require.Contains(t, allowed, top, "%s: a new top-level folder changes the architecture", name)
		}
	}
}

func TestFilesStaySmall(t *testing.T) {
	const source, test = 500, 800
	for _, f := range goFiles(t) {
		limit := source
		if f.isTest() {
			limit = test
		}
		if !f.generated {
			require.LessOrEqual(t, f.lines, limit, "%s has %d lines: split it by what it does", f.path, f.lines)
		}
	}
}

func TestEveryPackageSaysWhatItIsFor(t *testing.T) {
	documented := map[string]bool{}
	for _, f := range goFiles(t) {
		if !f.isTest() {
			documented[f.dir()] = documented[f.dir()] || f.hasDoc
		}
	}
	for dir, ok := range documented {
		require.True(t, ok, "package %s has no package comment", dir)
	}
}

func TestNoJunkDrawers(t *testing.T) {
	for _, f := range goFiles(t) {
		for _, junk := range []string{"util", "utils", "common", "helpers", "helper", "constants", "types", "misc"} {
			require.NotEqual(t, junk, f.pkg, "%s: name the package for what it does", f.path)
		}
	}
}

func TestNoPathsOfOneMachine(t *testing.T) {
	// Written in pieces, so that this file does not name them.
	forbidden := []string{"/wo" + "rk/", "/fa" + "rm/", "tool" + "bin"}
	for _, name := range trackedFiles(t) {
		content, err := os.ReadFile(filepath.Join(root(t), name))
		require.NoError(t, err)
		for _, bad := range forbidden {
			if filepath.Base(name) != "go.sum" {
				require.NotContains(t, string(content), bad, "%s names a path of one machine", name)
			}
		}
	}
}
