package userdata_test

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// fetcher runs fetch-agent below a folder that stands for the node's root, with programs that write down how they are called.
type fetcher struct {
	t          *testing.T
	root, bins string
}

const agentPath = "usr/local/bin/headstart-agent"

func newFetcher(t *testing.T) *fetcher {
	t.Helper()
	f := &fetcher{t: t, root: t.TempDir(), bins: t.TempDir()}
	f.program("ctr", `
case "$*" in
*"images pull"*)
  while [ $# -gt 0 ]; do if [ "$1" = --hosts-dir ]; then cp -R "$2" "$HEADSTART_ROOT/seen"; stat -c %a "$2" >"$HEADSTART_ROOT/mode"; fi; shift; done ;;
*"images mount"*) for last; do :; done; cp -R "$HEADSTART_ROOT/image/." "$last" ;;
esac`)
	f.program("curl", `while [ $# -gt 0 ]; do [ "$1" = --output ] && cp "$HEADSTART_ROOT/served" "$2"; shift; done`)
	return f
}

func (f *fetcher) program(name, script string) {
	f.t.Helper()
	f.write(filepath.Join(f.bins, name), "#!/bin/bash\nset -e\necho \"$0 $*\" >>\"$HEADSTART_ROOT/calls\"\n"+script+"\n")
}

func (f *fetcher) write(path, text string) {
	f.t.Helper()
	if !filepath.IsAbs(path) {
		path = filepath.Join(f.root, path)
	}
	require.NoError(f.t, os.MkdirAll(filepath.Dir(path), 0o750))
	require.NoError(f.t, os.WriteFile(path, []byte(text), 0o700)) // programs are to be run
}

func (f *fetcher) read(path string) string {
	f.t.Helper()
	text, err := os.ReadFile(filepath.Join(f.root, path))
	if os.IsNotExist(err) {
		return ""
	}
	require.NoError(f.t, err)
	return string(text)
}

// run runs it, and returns what it says.
func (f *fetcher) run(env ...string) (string, error) {
	f.t.Helper()
	cmd := exec.CommandContext(f.t.Context(), "bash", "fetch-agent.sh")
	cmd.Env = append([]string{"PATH=" + f.bins + ":" + os.Getenv("PATH"), "HEADSTART_ROOT=" + f.root}, env...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func imageEnv() string {
	return "HEADSTART_IMAGE=registry.example/agent@sha256:" + strings.Repeat("ab", 32)
}

func TestFetchShowsNoSecretToOtherUsers(t *testing.T) {
	f := newFetcher(t)
	f.write("image/"+agentPath, "the agent")
	f.write("etc/eks/image-credential-provider/config.json",
		`{"providers":[{"name":"provider","matchImages":["registry.example"],"apiVersion":"credentialprovider.kubelet.k8s.io/v1"}]}`)
	f.write("etc/eks/image-credential-provider/provider", "#!/bin/bash\ncat >/dev/null\necho '{\"auth\":{\"x\":{\"username\":\"AWS\",\"password\":\"hunter2\"}}}'\n")
	out, err := f.run(imageEnv())
	require.NoError(t, err, out)
	require.Equal(t, "the agent", f.read(agentPath))
	require.NotContains(t, f.read("calls")+out, "hunter2")
	require.NotContains(t, f.read("calls"), "--user")
	require.Contains(t, f.read("seen/registry.example/hosts.toml"), `authorization = "Basic QVdTOmh1bnRlcjI="`)
	require.Equal(t, "700\n", f.read("mode"))
	left, err := filepath.Glob(filepath.Join(f.root, "usr/local/lib/headstart/fetch.*"))
	require.NoError(t, err)
	require.Empty(t, left)
}

func TestFetchFollowsNoSymlinkOfTheImage(t *testing.T) {
	for name, link := range map[string]string{"the file": agentPath, "a folder": "usr/local"} {
		t.Run(name, func(t *testing.T) {
			f := newFetcher(t)
			outside := filepath.Join(t.TempDir(), "host")
			f.write(filepath.Join(outside, "bin/headstart-agent"), "a file of the node")
			target := outside
			if link == agentPath {
				target = filepath.Join(outside, "bin/headstart-agent")
			}
			require.NoError(t, os.MkdirAll(filepath.Join(f.root, "image", filepath.Dir(link)), 0o750))
			require.NoError(t, os.Symlink(target, filepath.Join(f.root, "image", link)))
			out, err := f.run(imageEnv())
			require.Error(t, err)
			require.Contains(t, out, "no regular file")
			require.Empty(t, f.read(agentPath))
		})
	}
}

func TestFetchKnowsTheAgentByItsContent(t *testing.T) {
	f := newFetcher(t)
	sum := func(text string) string {
		digest := sha256.Sum256([]byte(text))
		return "HEADSTART_SHA256_" + runtime.GOARCH + "=" + hex.EncodeToString(digest[:])
	}
	const url = "HEADSTART_URL=https://example.com/headstart-agent"
	fetches := func(want string, env ...string) {
		t.Helper()
		_ = os.Remove(filepath.Join(f.root, "calls"))
		out, err := f.run(env...)
		require.NoError(t, err, out)
		require.Equal(t, want, f.read(agentPath))
	}
	f.write("served", "one")
	fetches("one", url, sum("one"))
	fetches("one", url, sum("one"))
	require.Empty(t, f.read("calls"), "it is there")

	f.write("served", "two")
	fetches("two", url, sum("two")) // the same URL
	f.write(agentPath, "somebody else's")
	fetches("two", url, sum("two"))

	f.write("served", "three")
	out, err := f.run(url, sum("four"))
	require.Error(t, err)
	require.Contains(t, out, "checksum of https://example.com/headstart-agent differs")
	require.Equal(t, "two", f.read(agentPath), "the old one stays")
	out, err = f.run("HEADSTART_IMAGE=registry.example/agent:latest")
	require.Error(t, err)
	require.Contains(t, out, "names no digest")
}
