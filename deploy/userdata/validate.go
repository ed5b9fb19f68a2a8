package userdata

import (
	"encoding/base64"
	"fmt"
	"net/netip"
	"net/url"
	"path"
	"regexp"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	"headstart.dev/agent"
)

var (
	digestSuffix = regexp.MustCompile(`@sha256:[0-9a-f]{64}$`)
	// imageForm is what may stand in an image reference; it also keeps shell and TOML quoting trivial.
	imageForm = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._:/@-]*$`)
	hexSum    = regexp.MustCompile(`^[0-9a-f]{64}$`)
	// pathForm keeps AMI paths free of characters that a shell or systemd would read.
	pathForm = regexp.MustCompile(`^/[a-zA-Z0-9._/-]+$`)
	urlForm  = regexp.MustCompile(`^https://[a-zA-Z0-9._~:/?#@!&=%+,{}-]+$`)
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
	r, err := v.registration()
	if err != nil {
		return err
	}
	if err := r.validate(); err != nil {
		return err
	}
	return v.validateConfig()
}

// validateConfig reads the agent's config as the agent will: a node that cannot read its config keeps its taint.
func (v *Values) validateConfig() error {
	text, err := agentConfig(*v)
	if err != nil {
		return err
	}
	if _, err := agent.Parse([]byte(text)); err != nil {
		return fmt.Errorf("config: %w", err)
	}
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
	if c.Name == "" || strings.ContainsAny(c.Name, "\n\"") {
		return fmt.Errorf("cluster.name %q: want the cluster's name", c.Name)
	}
	if u, err := url.Parse(c.APIServerEndpoint); err != nil || u.Scheme != "https" || u.Host == "" {
		return fmt.Errorf("cluster.apiServerEndpoint %q: want an https URL", c.APIServerEndpoint)
	}
	if _, err := base64.StdEncoding.DecodeString(c.CertificateAuthority); err != nil || c.CertificateAuthority == "" {
		return fmt.Errorf("cluster.certificateAuthority: want base64 of a PEM certificate")
	}
	if c.CIDR != "" {
		if _, err := netip.ParsePrefix(c.CIDR); err != nil {
			return fmt.Errorf("cluster.cidr: %w", err)
		}
	}
	return nil
}

// kubeletLabelDomains are the only ones of *.k8s.io and *.kubernetes.io that kubelet accepts in --node-labels; it exits
// on any other. Source: k8s.io/kubelet/pkg/apis/well_known_labels.go@v0.37.2.
var kubeletLabelDomains = []string{"kubelet.kubernetes.io", "node.kubernetes.io"}

func (r registration) validate() error {
	for key, value := range r.Labels {
		if errs := append(validation.IsQualifiedName(key), validation.IsValidLabelValue(value)...); len(errs) > 0 {
			return fmt.Errorf("config.register.labels %s=%s: %s", key, value, errs[0])
		}
		domain, _, _ := strings.Cut(key, "/")
		if restricted(domain) {
			return fmt.Errorf("config.register.labels %s: kubelet refuses to start with a label of this domain; use one of your own, such as example.com/%s", key, path.Base(key))
		}
	}
	for _, t := range r.Taints {
		if errs := append(validation.IsQualifiedName(t.Key), validation.IsValidLabelValue(t.Value)...); len(errs) > 0 {
			return fmt.Errorf("config.register.taints %s=%s: %s", t.Key, t.Value, errs[0])
		}
		switch t.Effect {
		case "NoSchedule", "PreferNoSchedule", "NoExecute":
		default:
			return fmt.Errorf("config.register.taints %s: effect %q: want NoSchedule, PreferNoSchedule or NoExecute", t.Key, t.Effect)
		}
	}
	return nil
}

func restricted(domain string) bool {
	for _, allowed := range kubeletLabelDomains {
		if domain == allowed || strings.HasSuffix(domain, "."+allowed) {
			return false
		}
	}
	for _, ours := range []string{"k8s.io", "kubernetes.io"} {
		if domain == ours || strings.HasSuffix(domain, "."+ours) {
			return true
		}
	}
	return false
}
