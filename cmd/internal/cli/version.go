package cli

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// What a release sets with the linker's -X (deploy/image/compile.go); empty in a build from a working tree, which knows its
// version from git, if it was built with it.
var release, revision string

// Build says which build this is.
type Build struct {
	Version  string `json:"version"`
	Commit   string `json:"commit"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

// unknown is the version or commit of a build that was made without git, and is no release.
const unknown = "unknown"

// Current is the build of this process.
func Current() Build {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		info = &debug.BuildInfo{}
	}
	return current(info)
}

func current(info *debug.BuildInfo) Build {
	b := Build{Version: release, Commit: revision, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	settings := map[string]string{}
	for _, s := range info.Settings {
		settings[s.Key] = s.Value
	}
	if b.Commit == "" {
		if b.Commit = settings["vcs.revision"]; b.Commit != "" && settings["vcs.modified"] == "true" {
			b.Commit += "-dirty"
		}
	}
	if b.Version == "" {
		b.Version = info.Main.Version
	}
	if b.Version == "" {
		b.Version = unknown
	}
	if b.Commit == "" {
		b.Commit = unknown
	}
	return b
}

func (b Build) line(root *cobra.Command) string {
	return fmt.Sprintf("%s %s, commit %s, %s %s", root.CommandPath(), b.Version, b.Commit, b.Go, b.Platform)
}

func newVersionCommand(root *cobra.Command) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Prints the version, the commit and the version of Go that it was built with",
		Example: "  " + root.CommandPath() + " version\n" +
			"  " + root.CommandPath() + " version -o json",
		Args: NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if output != Text {
				return Print(cmd.OutOrStdout(), output, Current())
			}
			_, err := fmt.Fprintln(cmd.OutOrStdout(), Current().line(root))
			return err
		},
	}
	OutputFlag(cmd, &output, Text, JSON, YAML)
	return cmd
}
