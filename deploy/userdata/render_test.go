package userdata_test

import (
	"errors"
	"flag"
	"io"
	"mime"
	"mime/multipart"
	"net/mail"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	"sigs.k8s.io/yaml"

	"headstart.dev/deploy/systemd"
	"headstart.dev/deploy/userdata"
)

var update = flag.Bool("update", false, "write the golden files anew")

func render(t *testing.T, system userdata.OS, file string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", file))
	require.NoError(t, err)
	v, err := userdata.Parse(text)
	require.NoError(t, err)
	out, err := userdata.Render(system, v)
	require.NoError(t, err)
	again, err := userdata.Render(system, v)
	require.NoError(t, err)
	require.Equal(t, out, again, "the same values give the same bytes")
	require.LessOrEqual(t, len(out), 16<<10, "EC2's limit")
	return out
}

func TestGolden(t *testing.T) {
	cases := map[string]struct {
		system       userdata.OS
		values, want string
	}{
		"AL2023 from an image under Karpenter": {userdata.AL2023, "image.yaml", "image.al2023.golden"},
		"AL2023 from a URL in a node group":    {userdata.AL2023, "nodegroup.yaml", "nodegroup.al2023.golden"},
		"AL2023 from the AMI":                  {userdata.AL2023, "ami.yaml", "ami.al2023.golden"},
		"Bottlerocket under Karpenter":         {userdata.Bottlerocket, "image.yaml", "image.bottlerocket.golden"},
		"Bottlerocket in a node group":         {userdata.Bottlerocket, "nodegroup-image.yaml", "nodegroup.bottlerocket.golden"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got := render(t, tc.system, tc.values)
			golden := filepath.Join("testdata", tc.want)
			if *update {
				require.NoError(t, os.WriteFile(golden, []byte(got), 0o600))
			}
			want, err := os.ReadFile(golden)
			require.NoError(t, err)
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("run the test with -update after you have read the difference:\n%s", diff)
			}
		})
	}
}

type part struct{ contentType, body string }

// parts reads the archive as nodeadm and Karpenter do.
func parts(t *testing.T, userData string) []part {
	t.Helper()
	msg, err := mail.ReadMessage(strings.NewReader(userData))
	require.NoError(t, err)
	_, params, err := mime.ParseMediaType(msg.Header.Get("Content-Type"))
	require.NoError(t, err)
	r := multipart.NewReader(msg.Body, params["boundary"])
	var out []part
	for {
		p, err := r.NextPart()
		if errors.Is(err, io.EOF) {
			return out
		}
		require.NoError(t, err)
		body, err := io.ReadAll(p)
		require.NoError(t, err)
		mediaType, _, err := mime.ParseMediaType(p.Header.Get("Content-Type"))
		require.NoError(t, err)
		out = append(out, part{mediaType, string(body)})
	}
}

func TestAL2023Parts(t *testing.T) {
	t.Run("Karpenter gets one script and no NodeConfig that could replace its taints", func(t *testing.T) {
		got := parts(t, render(t, userdata.AL2023, "image.yaml"))
		require.Len(t, got, 1)
		require.Equal(t, "text/x-shellscript", got[0].contentType)
		require.True(t, strings.HasPrefix(got[0].body, "#!/bin/bash\n"))
		require.Contains(t, got[0].body, systemd.Unit, "the unit is the one of deploy/systemd, whole")
		require.NotContains(t, got[0].body, "bootstrap.sh", "it exits 1 on AL2023")
	})
	t.Run("a proxy is the unit's, and the installer's", func(t *testing.T) {
		v, err := userdata.Parse([]byte("agent: {path: /a}\nproxy: {httpsProxy: 'http://p:3128', noProxy: 10.0.0.0/8}"))
		require.NoError(t, err)
		text, err := userdata.Render(userdata.AL2023, v)
		require.NoError(t, err)
		require.Contains(t, text, "put /etc/headstart/proxy.env 0600 <<'HEADSTART_EOF' || return 1\nHTTPS_PROXY=http://p:3128\nNO_PROXY=10.0.0.0/8\nHEADSTART_EOF\n")
		require.Contains(t, text, "EnvironmentFile=/etc/headstart/proxy.env\n")
	})
	t.Run("a node group registers the startup taint and the labels", func(t *testing.T) {
		got := parts(t, render(t, userdata.AL2023, "nodegroup.yaml"))
		require.Len(t, got, 2)
		require.Equal(t, "application/node.eks.aws", got[0].contentType)
		var config struct {
			APIVersion, Kind string
			Spec             struct {
				Cluster      userdata.Cluster
				FeatureGates map[string]bool
				Kubelet      struct {
					Config struct{ RegisterWithTaints []map[string]string }
					Flags  []string
				}
			}
		}
		require.NoError(t, yaml.Unmarshal([]byte(got[0].body), &config))
		require.Equal(t, "node.eks.aws/v1alpha1", config.APIVersion)
		require.Equal(t, "NodeConfig", config.Kind)
		require.Equal(t, []map[string]string{{"key": "readiness.k8s.io/headstart", "value": "pending", "effect": "NoSchedule"}}, config.Spec.Kubelet.Config.RegisterWithTaints)
		require.Equal(t, []string{"--node-labels=example.com/pool=web"}, config.Spec.Kubelet.Flags)
		require.Equal(t, map[string]bool{"FastImagePull": true}, config.Spec.FeatureGates)
		require.Equal(t, "prod", config.Spec.Cluster.Name)
		require.NotContains(t, got[1].body, "register:", "nodeadm tells kubelet, not the agent")
	})
}

// TestShellcheck reads the shell parts as they run.
func TestShellcheck(t *testing.T) {
	bin, err := exec.LookPath("shellcheck")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("shellcheck is missing: apt-get install shellcheck")
		}
		t.Skip("shellcheck is missing: apt-get install shellcheck")
	}
	scripts := map[string]string{}
	for _, file := range []string{"image.yaml", "nodegroup.yaml", "ami.yaml"} {
		all := parts(t, render(t, userdata.AL2023, file))
		scripts[file] = all[len(all)-1].body
	}
	fetch, err := os.ReadFile("fetch-agent.sh")
	require.NoError(t, err)
	scripts["fetch-agent.sh"] = string(fetch)
	for name, script := range scripts {
		t.Run(name, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), bin, "--shell=bash", "-")
			cmd.Stdin = strings.NewReader(script)
			out, err := cmd.CombinedOutput()
			require.NoError(t, err, "%s", out)
		})
	}
}
