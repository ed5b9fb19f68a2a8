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
		"nothing at all":                       {"", "exactly one of image"},
		"an image by tag":                      {"agent: {image: 'registry.example/a:v1'}", "by digest"},
		"a label of the controller's":          {"agent: {path: /a}\nprovisioner: Other\nconfig: {register: {labels: {headstart.dev/images-ready: 'true'}}}", "the controller's"},
		"a cluster with an odd name":           {"agent: {path: /a}\nprovisioner: Other\ncluster: {name: 'a b'}", "cluster.name"},
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
		"a cluster under Karpenter":            {"agent: {path: /a}\ncluster: {name: a}", "Karpenter joins its nodes itself"},
		"a cluster without endpoint":           {"agent: {path: /a}\nprovisioner: Other\ncluster: {name: a}", "apiServerEndpoint"},
		"a label that stops kubelet":           {"agent: {path: /a}\nprovisioner: Other\nconfig: {register: {labels: {nodereadiness.k8s.io/enabled: 'true'}}}", "kubelet exits"},
		"a label value with a comma":           {"agent: {path: /a}\nprovisioner: Other\nconfig: {register: {labels: {example.com/a: 'b,c=d'}}}", "register.labels"},
		"a taint with an odd effect":           {"agent: {path: /a}\nprovisioner: Other\nconfig: {register: {taints: [{key: a, effect: Never}]}}", "effect"},
		"a field that the agent does not know": {"agent: {path: /a}\nconfig: {image: []}", "config: "},
		"a probe that the agent refuses":       {"agent: {path: /a}\nconfig: {probes: [{name: a, type: dns}]}", "config: "},
		"a proxy that is no URL":               {"agent: {path: /a}\nproxy: {httpsProxy: 'proxy:3128'}", "proxy.httpsProxy"},
		"a proxy with a second line":           {"agent: {path: /a}\nproxy: {httpProxy: \"http://p:1\\nLD_PRELOAD=/x\"}", "proxy.httpProxy"},
		"a proxy with a quote":                 {"agent: {path: /a}\nproxy: {httpProxy: 'http://p:1\"'}", "proxy.httpProxy"},
		"hosts with blanks":                    {"agent: {path: /a}\nproxy: {noProxy: 'a, b'}", "proxy.noProxy"},
		"an unknown field in register":         {"agent: {path: /a}\nconfig: {register: {taint: []}}", "unknown field"},
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
		"the binary of the AMI":        "agent: {path: /usr/bin/headstart-agent}",
		"a label that kubelet may set": "agent: {path: /a}\nprovisioner: Other\nconfig: {register: {labels: {topology.kubernetes.io/zone: us-east-1a}}}",
		"a label of a kubelet domain":  "agent: {path: /a}\nprovisioner: Other\nconfig: {register: {labels: {node.kubernetes.io/pool: a, a.node.kubernetes.io/b: c}}}",
		"a proxy":                      "agent: {path: /a}\nproxy: {httpProxy: 'http://u:p%40ss@p.example:3128', httpsProxy: 'https://p:3128/', noProxy: '10.0.0.0/8,.internal,[::1],*.a'}",
		"an image with a digest":       "agent: {image: registry.example:5000/a/b:v1" + digest + "}",
	}
	for name, values := range cases {
		t.Run(name, func(t *testing.T) {
			_, err := userdata.Parse([]byte(values))
			require.NoError(t, err)
		})
	}
}

func TestBottlerocketNeedsNoServiceNetwork(t *testing.T) {
	v, err := userdata.Parse([]byte("agent: {image: a" + digest + "}\nprovisioner: Other\ncluster: {name: a, apiServerEndpoint: 'https://a.example', certificateAuthority: YQ==}"))
	require.NoError(t, err)
	_, err = userdata.Render(userdata.Bottlerocket, v)
	require.NoError(t, err)
}

func TestWarnings(t *testing.T) {
	cases := map[string]struct {
		values string
		system userdata.OS
		want   []string
	}{
		"a digest is quiet": {"agent: {image: a" + digest + "}", userdata.AL2023, nil},
		"Karpenter has the taints": {
			"agent: {path: /a}\nconfig: {register: {labels: {example.com/a: b}}}", userdata.AL2023, []string{"startupTaints"},
		},
		"Bottlerocket has a proxy of its own": {
			"agent: {image: a" + digest + "}\nproxy: {httpsProxy: 'http://p:1'}", userdata.Bottlerocket, []string{"settings.network.https-proxy"},
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
		"another operating system":       {"windows", "agent: {path: /a}", "unknown operating system"},
		"a cluster that nodeadm refuses": {userdata.AL2023, "agent: {path: /a}\nprovisioner: Other\ncluster: {name: a, apiServerEndpoint: 'https://a.example', certificateAuthority: YQ==}", "cluster.cidr"},
		"more than Karpenter leaves":     {userdata.AL2023, someImages(120), "Karpenter adds up to 2560"},
		"Bottlerocket without an image":  {userdata.Bottlerocket, "agent: {path: /usr/bin/a}", "give agent.image"},
		"more than EC2 takes":            {userdata.AL2023, someImages(300), "EC2 takes 16384"},
		"more than EC2 takes, as TOML":   {userdata.Bottlerocket, someImages(300), "EC2 takes 16384"},
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

// someImages is a config with more images than userData takes.
func someImages(n int) string {
	var out strings.Builder
	out.WriteString("agent: {image: 'a" + digest + "'}\nconfig:\n  images:\n")
	for i := range n {
		fmt.Fprintf(&out, "  - {image: 'registry.example/an/image/with/a/long/name-%d:v1'}\n", i)
	}
	return out.String()
}
