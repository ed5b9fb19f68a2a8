package userdata_test

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/pelletier/go-toml/v2"
	"github.com/stretchr/testify/require"

	"headstart.dev/deploy/userdata"
)

const (
	karpenterValues = "agent: {image: a" + digest + "}\n"
	groupValues     = karpenterValues + "provisioner: Other\n"
)

func values(t *testing.T, text string) userdata.Values {
	t.Helper()
	v, err := userdata.Parse([]byte(text))
	require.NoError(t, err)
	return v
}

const archive = `Content-Type: multipart/mixed; boundary="HEADSTART"
MIME-Version: 1.0

--HEADSTART
Content-Type: application/node.eks.aws

apiVersion: node.eks.aws/v1alpha1
kind: NodeConfig
spec:
  kubelet:
    config:
      maxPods: 58
      registerWithTaints:
      - {key: example.com/team, value: a, effect: NoSchedule}

--HEADSTART
Content-Type: text/x-shellscript; charset="us-ascii"
Content-Transfer-Encoding: base64

IyEvYmluL2Jhc2gKZWNobyBoaQo=

--HEADSTART--
`

func TestMergeAL2023(t *testing.T) {
	const nodeConfig, shell = "application/node.eks.aws", "text/x-shellscript"
	for name, tc := range map[string]struct {
		earlier string
		types   []string
		first   string
	}{
		"nothing":        {"", []string{nodeConfig, shell}, "registerWithTaints"},
		"a shell script": {"#!/bin/bash\necho --HEADSTART\n", []string{shell, nodeConfig, shell}, "echo --HEADSTART"},
		"a NodeConfig":   {"---\napiVersion: node.eks.aws/v1alpha1\nkind: NodeConfig\nspec: {}\n", []string{nodeConfig, nodeConfig, shell}, "spec: {}"},
		"a cloud-config": {"#cloud-config\npackages: [htop]\n", []string{"text/cloud-config", nodeConfig, shell}, "htop"},
		"an archive":     {archive, []string{nodeConfig, shell, nodeConfig, shell}, "maxPods: 58"},
		"with CRLF":      {strings.ReplaceAll(archive, "\n", "\r\n"), []string{nodeConfig, shell, nodeConfig, shell}, "maxPods: 58"},
	} {
		t.Run(name, func(t *testing.T) {
			v := values(t, groupValues)
			out, err := userdata.Merge(userdata.AL2023, v, []byte(tc.earlier))
			require.NoError(t, err)
			var types []string
			all := parts(t, out)
			for _, part := range all {
				types = append(types, part.contentType)
			}
			require.Equal(t, tc.types, types)
			require.Contains(t, all[0].body, tc.first)
			require.Contains(t, all[len(all)-1].body, "headstart-agent.service")

			again, err := userdata.Merge(userdata.AL2023, v, []byte(out))
			require.NoError(t, err)
			require.Equal(t, out, again, "done again it replaces its own")
		})
	}
}

func TestMergeKeepsWhatANodeRegistersWith(t *testing.T) {
	out, err := userdata.Merge(userdata.AL2023, values(t, groupValues), []byte(archive))
	require.NoError(t, err)
	all := parts(t, out)
	require.Contains(t, all[2].body, "key: example.com/team", "nodeadm takes the last list whole")
	require.Contains(t, all[2].body, "key: readiness.k8s.io/headstart")
	require.Contains(t, out, "Content-Transfer-Encoding: base64\n\nIyEvYmluL2Jhc2gKZWNobyBoaQo=", "a part stays as it is encoded")
}

func TestMergedScriptsStillRun(t *testing.T) {
	out, err := userdata.Merge(userdata.AL2023, values(t, karpenterValues), []byte("#!/bin/bash\r\nset -e\r\necho hello\r\nexit 0\r\n"))
	require.NoError(t, err)
	all := parts(t, out)
	require.Len(t, all, 2)
	said, err := exec.CommandContext(t.Context(), "bash", "-c", all[0].body).CombinedOutput()
	require.NoError(t, err)
	require.Equal(t, "hello\n", string(said))
}

func TestMergeBottlerocket(t *testing.T) {
	const earlier = `[settings.kubernetes]
max-pods = 58
[settings.kubernetes.node-taints]
"example.com/team" = ["a:NoSchedule"]
"readiness.k8s.io/headstart" = ["pending:NoSchedule"]
[settings.host-containers.admin]
enabled = true
[settings.host-containers.headstart]
enabled = false
source = "an.earlier/agent"
`
	v := values(t, groupValues)
	out, err := userdata.Merge(userdata.Bottlerocket, v, []byte(earlier))
	require.NoError(t, err)
	var got struct {
		Settings struct {
			Kubernetes struct {
				MaxPods    int                 `toml:"max-pods"`
				NodeTaints map[string][]string `toml:"node-taints"`
			}
			HostContainers map[string]struct {
				Enabled bool
				Source  string
			} `toml:"host-containers"`
		}
	}
	require.NoError(t, toml.Unmarshal([]byte(out), &got))
	require.Equal(t, 58, got.Settings.Kubernetes.MaxPods)
	require.Equal(t, map[string][]string{"example.com/team": {"a:NoSchedule"}, "readiness.k8s.io/headstart": {"pending:NoSchedule"}}, got.Settings.Kubernetes.NodeTaints)
	require.True(t, got.Settings.HostContainers["admin"].Enabled)
	require.True(t, got.Settings.HostContainers["headstart"].Enabled)
	require.Equal(t, "a"+digest, got.Settings.HostContainers["headstart"].Source)
	again, err := userdata.Merge(userdata.Bottlerocket, v, []byte(out))
	require.NoError(t, err)
	require.Equal(t, out, again)
}

func TestMergeRefuses(t *testing.T) {
	for name, tc := range map[string]struct {
		system       userdata.OS
		values, text string
		want         string
	}{
		"base64":                        {userdata.AL2023, karpenterValues, "IyEvYmluL2Jhc2gK", "decode it first"},
		"an archive without a boundary": {userdata.AL2023, karpenterValues, "MIME-Version: 1.0\nContent-Type: multipart/mixed\n\n", "boundary"},
		"an archive that is cut off":    {userdata.AL2023, karpenterValues, archive[:len(archive)-60], "read part"},
		"no TOML":                       {userdata.Bottlerocket, karpenterValues, "#!/bin/bash\necho", "as TOML"},
		"another value of a setting":    {userdata.Bottlerocket, karpenterValues + "fastImagePull: true\n", "[settings.container-runtime]\nsnapshotter = \"overlayfs\"\n", "settings.container-runtime.snapshotter is overlayfs there"},
		"more than there is room for":   {userdata.AL2023, karpenterValues, "#!/bin/bash\n#" + strings.Repeat("x", 12<<10), "at most 13824 are left"},
		"a line that ends Karpenter's":  {userdata.AL2023, karpenterValues, "#!/bin/bash\n--//\n", "Karpenter writes"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := userdata.Merge(tc.system, values(t, tc.values), []byte(tc.text))
			require.ErrorContains(t, err, tc.want)
		})
	}
}
