package userdata_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"headstart.dev/deploy/userdata"
)

const digest = "@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func TestParseRefuses(t *testing.T) {
	cases := map[string]struct{ values, want string }{
		"an unknown field":                     {"agents: {}", `unknown field "agents"`},
		"a key that stands twice":              {"agent: {}\nagent: {}", "already set"},
		"two sources":                          {"agent: {image: a, path: /b}", "exactly one of image, url and path"},
		"an image with a space":                {"agent: {image: 'a b'}", "agent.image"},
		"an image that would end a quote":      {`agent: {image: 'a"; reboot'}`, "agent.image"},
		"a relative path":                      {"agent: {path: bin/agent}", "agent.path"},
		"a path that climbs":                   {"agent: {path: /usr/../bin/agent}", "agent.path"},
		"a url without checksum":               {"agent: {url: 'https://a.example/x'}", "agent.sha256"},
		"a url that is not https":              {"agent: {url: 'http://a.example/x', sha256: {amd64: ab}}", "agent.url"},
		"a checksum that is none":              {"agent: {url: 'https://a.example/x', sha256: {amd64: ab}}", "64 hex digits"},
		"a checksum of no architecture":        {"agent: {url: 'https://a.example/x', sha256: {riscv: ab}}", "amd64 or arm64"},
		"a checksum without a url":             {"agent: {image: a, sha256: {amd64: ab}}", "only a url"},
		"one url for two architectures":        {"agent: {url: 'https://a.example/x', sha256: {amd64: " + digest[8:] + ", arm64: " + digest[8:] + "}}", "{arch}"},
		"a provisioner that it does not know":  {"provisioner: ASG", "want Karpenter or Other"},
		"a cluster under Karpenter":            {"cluster: {name: a}", "Karpenter joins its nodes itself"},
		"a cluster without endpoint":           {"provisioner: Other\ncluster: {name: a}", "apiServerEndpoint"},
		"a label that stops kubelet":           {"provisioner: Other\nconfig: {register: {labels: {nodereadiness.k8s.io/enabled: 'true'}}}", "kubelet refuses to start"},
		"a label value with a comma":           {"provisioner: Other\nconfig: {register: {labels: {example.com/a: 'b,c=d'}}}", "config.register.labels"},
		"a taint with an odd effect":           {"provisioner: Other\nconfig: {register: {taints: [{key: a, effect: Never}]}}", "effect"},
		"a field that the agent does not know": {"config: {image: []}", "config: "},
		"a probe that the agent refuses":       {"config: {probes: [{name: a, type: dns}]}", "config: "},
		"an unknown field in register":         {"config: {register: {taint: []}}", "unknown field"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			_, err := userdata.Parse([]byte(tc.values))
			require.ErrorContains(t, err, tc.want)
		})
	}
}

func TestParseAccepts(t *testing.T) {
	cases := map[string]string{
		"nothing at all":              "",
		"a label of a kubelet domain": "provisioner: Other\nconfig: {register: {labels: {node.kubernetes.io/pool: a, a.node.kubernetes.io/b: c}}}",
		"an image with a digest":      "agent: {image: registry.example:5000/a/b:v1" + digest + "}",
	}
	for name, values := range cases {
		t.Run(name, func(t *testing.T) {
			_, err := userdata.Parse([]byte(values))
			require.NoError(t, err)
		})
	}
}

func TestWarnings(t *testing.T) {
	cases := map[string]struct {
		values string
		system userdata.OS
		want   []string
	}{
		"a digest is quiet": {"agent: {image: a" + digest + "}", userdata.AL2023, nil},
		"a tag moves":       {"agent: {image: 'a:v1'}", userdata.AL2023, []string{"no digest"}},
		"Karpenter has the taints": {
			"agent: {path: /a}\nconfig: {register: {labels: {example.com/a: b}}}", userdata.AL2023, []string{"startupTaints"},
		},
		"an old Bottlerocket": {"agent: {image: a" + digest + "}\nfastImagePull: true", userdata.Bottlerocket, []string{"1.44"}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			v, err := userdata.Parse([]byte(tc.values))
			require.NoError(t, err)
			got := v.Warnings(tc.system)
			require.Len(t, got, len(tc.want))
			for i, want := range tc.want {
				require.Contains(t, got[i], want)
			}
		})
	}
}

func TestRenderRefuses(t *testing.T) {
	cases := map[string]struct {
		system userdata.OS
		values string
		want   string
	}{
		"another operating system":      {"windows", "", "unknown operating system"},
		"Bottlerocket without an image": {userdata.Bottlerocket, "agent: {path: /usr/bin/a}", "give agent.image"},
		"more than EC2 takes":           {userdata.AL2023, manyImages(), "EC2 takes 16384"},
		"more than EC2 takes, as TOML":  {userdata.Bottlerocket, manyImages(), "EC2 takes 16384"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			v, err := userdata.Parse([]byte(tc.values))
			require.NoError(t, err)
			_, err = userdata.Render(tc.system, v)
			require.ErrorContains(t, err, tc.want)
		})
	}
}

// manyImages is a config with more images than userData takes.
func manyImages() string {
	var out strings.Builder
	out.WriteString("config:\n  images:\n")
	for i := range 300 {
		fmt.Fprintf(&out, "  - {image: 'registry.example/an/image/with/a/long/name-%d:v1'}\n", i)
	}
	return out.String()
}
