package userdata

import (
	"encoding/base64"
	"fmt"
	"net/netip"
	"net/url"
	"path"
	"regexp"
	"strings"

	"sigs.k8s.io/yaml"

	"headstart.dev/agent"
)

var (
	digestSuffix = regexp.MustCompile(`@sha256:[0-9a-f]{64}$`)
	// imageForm is what may stand in an image reference; it also keeps shell and TOML quoting trivial.
	imageForm = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._:/@-]*$`)
	hexSum    = regexp.MustCompile(`^[0-9a-f]{64}$`)
	// pathForm keeps AMI paths free of characters that a shell or systemd would read.
	pathForm = regexp.MustCompile(`^/[a-zA-Z0-9._/-]+$`)
	// clusterForm is what EKS calls a cluster, and what Bottlerocket's settings take.
	// Source: bottlerocket-settings-models KubernetesClusterName.
	clusterForm = regexp.MustCompile(`^[0-9A-Za-z][A-Za-z0-9_-]{0,99}$`)
	// proxyForm and noProxyForm hold nothing that ends a line of an environment file or begins a quote there.
	proxyForm   = regexp.MustCompile(`^(https?|socks5)://[^\s"'\\\x60]+$`)
	noProxyForm = regexp.MustCompile(`^[a-zA-Z0-9.,:/*_\[\]-]*$`)
	urlForm     = regexp.MustCompile(`^https://[a-zA-Z0-9._~:/?#@!&=%+,{}-]+$`)
)

func hasDigest(image string) bool { return digestSuffix.MatchString(image) }

func (v *Values) validate() error {
	switch v.Provisioner {
	case Karpenter:
		if v.Cluster != nil {
			return fmt.Errorf("cluster: Karpenter joins its nodes itself; leave cluster out, or set provisioner: %s", Other)
		}
	case Other:
	default:
		return fmt.Errorf("provisioner %q: want %s or %s", v.Provisioner, Karpenter, Other)
	}
	if err := v.Agent.validate(); err != nil {
		return err
	}
	if v.Cluster != nil {
		if err := v.Cluster.validate(); err != nil {
			return err
		}
	}
	if err := v.Proxy.validate(); err != nil {
		return err
	}
	return v.validateConfig()
}

func (p Proxy) validate() error {
	for name, value := range map[string]string{"httpProxy": p.HTTPProxy, "httpsProxy": p.HTTPSProxy} {
		if u, err := url.Parse(value); value != "" && (err != nil || u.Host == "" || !proxyForm.MatchString(value)) {
			return fmt.Errorf("proxy.%s: want a URL such as http://proxy.example:3128", name) // it may hold a password
		}
	}
	if !noProxyForm.MatchString(p.NoProxy) {
		return fmt.Errorf("proxy.noProxy %q: want hosts, domains and networks with commas between them, such as 10.0.0.0/8,.internal", p.NoProxy)
	}
	return nil
}

// validateConfig reads the agent's config as the agent will, config.register with it: a node that cannot read its config
// keeps its taint, and what the agent refuses to register, userData must not register either.
func (v *Values) validateConfig() error {
	text, err := yaml.Marshal(v.Config)
	if err != nil {
		return fmt.Errorf("config: %w", err)
	}
	parsed, err := agent.Parse(text)
	if err != nil {
		return fmt.Errorf("config: %w", err)
	}
	v.register = parsed.Register
	return nil
}

func (s Source) validate() error {
	n := 0
	for _, set := range []bool{s.Image != "", s.URL != "", s.Path != ""} {
		if set {
			n++
		}
	}
	switch {
	case n != 1:
		return errOneSource
	case s.Image != "" && !imageForm.MatchString(s.Image):
		return fmt.Errorf("agent.image %q: want an image reference such as registry.example/headstart-agent@sha256:DIGEST", s.Image)
	case s.Path != "" && (!pathForm.MatchString(s.Path) || path.Clean(s.Path) != s.Path):
		return fmt.Errorf("agent.path %q: want an absolute path such as /usr/bin/headstart-agent", s.Path)
	case s.URL == "" && len(s.SHA256) > 0:
		return fmt.Errorf("agent.sha256: only a url is checked with it; an image has its digest")
	case s.Image != "" && !hasDigest(s.Image):
		return fmt.Errorf("agent.image %q: name it by digest (name@sha256:...): every boot runs it as root, and a tag may name another one by then", s.Image)
	case s.URL != "":
		return s.validateURL()
	}
	return nil
}

func (s Source) validateURL() error {
	if u, err := url.Parse(s.URL); err != nil || u.Host == "" || !urlForm.MatchString(s.URL) {
		return fmt.Errorf("agent.url %q: want an https URL", s.URL)
	}
	if len(s.SHA256) == 0 {
		return fmt.Errorf("agent.sha256: a url needs the checksum of each architecture, for example sha256: {amd64: ...}")
	}
	for arch, sum := range s.SHA256 {
		if arch != "amd64" && arch != "arm64" {
			return fmt.Errorf("agent.sha256 %q: want amd64 or arm64", arch)
		}
		if !hexSum.MatchString(sum) {
			return fmt.Errorf("agent.sha256.%s %q: want 64 hex digits", arch, sum)
		}
	}
	if len(s.SHA256) > 1 && !strings.Contains(s.URL, "{arch}") {
		return fmt.Errorf("agent.url %q: write {arch} where the architecture stands, one file cannot have two checksums", s.URL)
	}
	return nil
}

func (c *Cluster) validate() error {
	if !clusterForm.MatchString(c.Name) {
		return fmt.Errorf("cluster.name %q: want the cluster's name: letters, digits, - and _, at most 100", c.Name)
	}
	if u, err := url.Parse(c.APIServerEndpoint); err != nil || u.Scheme != "https" || u.Host == "" {
		return fmt.Errorf("cluster.apiServerEndpoint %q: want an https URL", c.APIServerEndpoint)
	}
	if raw, err := base64.StdEncoding.DecodeString(c.CertificateAuthority); err != nil || len(raw) == 0 {
		return fmt.Errorf("cluster.certificateAuthority: want base64 of a PEM certificate")
	}
	if c.CIDR != "" {
		if _, err := netip.ParsePrefix(c.CIDR); err != nil {
			return fmt.Errorf("cluster.cidr: %w", err)
		}
	}
	return nil
}

// validateForNodeadm mirrors what nodeadm demands of a cluster before it lets the node join.
// Source: awslabs/amazon-eks-ami nodeadm/internal/api/validate.go@v20251108 ValidateNodeConfig.
func (c *Cluster) validateForNodeadm() error {
	if c.CIDR == "" {
		return fmt.Errorf("cluster.cidr: nodeadm refuses a cluster without it, and the node never joins: write the cluster's service network, such as 10.100.0.0/16")
	}
	return nil
}
