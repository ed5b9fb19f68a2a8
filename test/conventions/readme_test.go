package conventions

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"headstart.dev/test/testenv"
)

var (
	codeSpan   = regexp.MustCompile("`([^`\n]+)`")
	codeFence  = regexp.MustCompile("(?s)```([a-z]*)\n(.*?)```")
	linkTarget = regexp.MustCompile(`\]\(([^)#:]+)\)`)
	makeTarget = regexp.MustCompile(`(?m)^([a-z][a-z-]*):`)
	longFlag   = regexp.MustCompile(`--[a-z][a-z0-9-]*`)
	command    = regexp.MustCompile(`(headstart-agent|headstart-controller|kubectl[ -]headstart)((?: [a-z]+(?:-[a-z]+)*)*)((?: .*)?)`)
)

// readmeCode returns every code span and every line of a code block of the README, comments and prompts cut off.
func readmeCode(t *testing.T) (readme string, code []string) {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(root(t), "README.md"))
	require.NoError(t, err)
	readme = string(content)
	for _, block := range codeFence.FindAllStringSubmatch(readme, -1) {
		if block[1] == "text" {
			continue // what a command prints, not what a user types
		}
		for line := range strings.Lines(block[2]) {
			line, _, _ = strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "$ "), " #")
			code = append(code, strings.TrimSpace(line))
		}
	}
	for _, span := range codeSpan.FindAllStringSubmatch(codeFence.ReplaceAllString(readme, ""), -1) {
		code = append(code, span[1])
	}
	return readme, code
}

func TestReadmeNamesOnlyPathsThatExist(t *testing.T) {
	readme, code := readmeCode(t)
	candidates := map[string]bool{}
	for _, link := range linkTarget.FindAllStringSubmatch(readme, -1) {
		candidates[link[1]] = true
	}
	tops := []string{"cmd/", "agent/", "internal/", "readiness/", "prepull/", "gates/", "deploy/", "bottlerocket/", "test/", ".ci/"}
	for _, span := range code {
		for word := range strings.FieldsSeq(span) {
			word = strings.TrimPrefix(strings.TrimRight(word, ".,:;)"), "./")
			for _, top := range tops {
				if strings.HasPrefix(word, top) {
					candidates[word] = true
				}
			}
		}
	}
	for name := range candidates {
		name = strings.TrimSuffix(strings.TrimSuffix(name, "/..."), "/**")
		_, err := os.Stat(filepath.Join(root(t), name))
		require.NoError(t, err, "the README names %q", name)
	}
}

func TestReadmeNamesOnlyMakeTargetsThatExist(t *testing.T) {
	makefile, err := os.ReadFile(filepath.Join(root(t), "Makefile"))
	require.NoError(t, err)
	targets := map[string]bool{}
	for _, m := range makeTarget.FindAllStringSubmatch(string(makefile), -1) {
		targets[m[1]] = true
	}
	_, code := readmeCode(t)
	for _, span := range code {
		if rest, ok := strings.CutPrefix(span, "make "); ok {
			name, _, _ := strings.Cut(rest, " ")
			require.True(t, targets[name], "the README says %q, the Makefile has no such target", span)
		}
	}
}

func TestReadmeNamesOnlyCommandsAndFlagsThatExist(t *testing.T) {
	_, code := readmeCode(t)
	for _, span := range code {
		m := command.FindStringSubmatch(span)
		if m == nil || strings.Contains(span, "/"+m[1]) {
			continue
		}
		binary, err := testenv.BuildCommand(t.Context(), strings.ReplaceAll(m[1], " ", "-"))
		require.NoError(t, err)
		help := helpOf(t, binary, strings.Fields(m[2]))
		for _, flag := range longFlag.FindAllString(m[3], -1) {
			require.Contains(t, help, flag, "the README says %q", span)
		}
	}
}

// helpOf returns the help of the deepest subcommand that the words name: the rest are arguments.
func helpOf(t *testing.T, binary string, words []string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), binary, append(words, "--help")...).CombinedOutput()
	require.NoError(t, err, "%s %v --help: %s", filepath.Base(binary), words, out)
	if len(words) > 0 {
		require.Contains(t, string(out), filepath.Base(strings.ReplaceAll(binary, "kubectl-headstart", "kubectl headstart"))+" "+words[0],
			"%q is no subcommand", words[0])
	}
	return string(out)
}

// TestReadmeNamesEveryCommand keeps commands from being known to nobody but their help.
func TestReadmeNamesEveryCommand(t *testing.T) {
	readme, _ := readmeCode(t)
	for binary, typed := range map[string]string{"headstart-agent": "headstart-agent", "headstart-controller": "headstart-controller", "kubectl-headstart": "kubectl headstart"} {
		path, err := testenv.BuildCommand(t.Context(), binary)
		require.NoError(t, err)
		out, err := exec.CommandContext(t.Context(), path, "--help").CombinedOutput()
		require.NoError(t, err, "%s", out)
		_, list, _ := strings.Cut(string(out), "Available Commands:\n")
		list, _, _ = strings.Cut(list, "\n\n")
		require.NotEmpty(t, list, "%s: %s", binary, out)
		for line := range strings.Lines(list) {
			name := strings.Fields(line)[0]
			if name == "help" || name == "completion" {
				continue // cobra's own
			}
			if !strings.Contains(readme, typed+" "+name) {
				t.Errorf("the README does not know %s %s", typed, name)
			}
		}
	}
}
