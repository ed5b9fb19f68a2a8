package agent

import (
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/distribution/reference"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"headstart.dev/prepull"
)

// validate reports every mistake at once; each names its field and what to write instead.
func (c *Config) validate() error {
	var errs field.ErrorList
	errs = append(errs, c.validateType()...)
	errs = append(errs, absolute(field.NewPath("stateDir"), c.StateDir)...)
	errs = append(errs, absolute(field.NewPath("kubeletDir"), c.KubeletDir)...)
	if c.NodeName != "" {
		for _, msg := range validation.IsDNS1123Subdomain(c.NodeName) {
			errs = append(errs, field.Invalid(field.NewPath("nodeName"), c.NodeName, msg))
		}
	}
	errs = append(errs, c.validateContainerd()...)
	errs = append(errs, c.validateImages()...)
	errs = append(errs, c.validateRegistry()...)
	errs = append(errs, c.validatePull()...)
	errs = append(errs, c.validateProbes()...)
	errs = append(errs, c.Register.validate(field.NewPath("register"))...)
	if c.Metrics.BindAddress != "0" {
		errs = append(errs, hostPort(field.NewPath("metrics", "bindAddress"), c.Metrics.BindAddress)...)
	}
	if len(errs) == 0 {
		return nil
	}
	return errs.ToAggregate()
}

func (c *Config) validateType() field.ErrorList {
	var errs field.ErrorList
	if c.APIVersion != APIVersion {
		errs = append(errs, field.Invalid(field.NewPath("apiVersion"), c.APIVersion, "write "+APIVersion))
	}
	if c.Kind != Kind {
		errs = append(errs, field.Invalid(field.NewPath("kind"), c.Kind, "write "+Kind))
	}
	return errs
}

func (c *Config) validateContainerd() field.ErrorList {
	path := field.NewPath("containerd")
	return absolute(path.Child("address"), strings.TrimPrefix(c.Containerd.Address, "unix://"))
}

func (c *Config) validateImages() field.ErrorList {
	var errs field.ErrorList
	seen := map[string]int{}
	for i, image := range c.Images {
		if _, err := prepull.ParseMode(string(image.Mode)); err != nil {
			errs = append(errs, field.Invalid(field.NewPath("images").Index(i).Child("mode"), image.Mode, err.Error()))
		}
		path := field.NewPath("images").Index(i).Child("image")
		named, err := reference.ParseDockerRef(image.Ref)
		if err != nil {
			errs = append(errs, field.Invalid(path, image.Ref, err.Error()+"; write it as a pod would: registry/name:tag or name@sha256:..."))
			continue
		}
		if first, twice := seen[named.String()]; twice {
			errs = append(errs, field.Invalid(path, image.Ref, fmt.Sprintf("is images[%d] again: write it once", first)))
		}
		seen[named.String()] = i
	}
	return errs
}

func (c *Config) validateRegistry() field.ErrorList {
	var errs field.ErrorList
	path := field.NewPath("registry")
	if (c.Registry.CredentialProviderConfig == "") != (c.Registry.CredentialProviderBinDir == "") {
		errs = append(errs, field.Required(path.Child("credentialProviderBinDir"), "set credentialProviderConfig and credentialProviderBinDir together"))
	}
	for i, rewrite := range c.Registry.Rewrites {
		at := path.Child("rewrites").Index(i)
		if rewrite.From == "" {
			errs = append(errs, field.Required(at.Child("from"), "write the beginning of the image names to rewrite, such as docker.io/"))
		}
		if rewrite.To == "" {
			errs = append(errs, field.Required(at.Child("to"), "write what replaces it, such as mirror.example/docker-hub/"))
		}
	}
	return errs
}

func (c *Config) validatePull() field.ErrorList {
	var errs field.ErrorList
	path := field.NewPath("pull")
	if n := c.Pull.MaxConcurrentDownloads; n < 0 || n > 1024 {
		errs = append(errs, field.Invalid(path.Child("maxConcurrentDownloads"), n, "write 0 (auto) to 1024"))
	}
	if err := c.Pull.ChunkSize.err; err != nil {
		errs = append(errs, field.Invalid(path.Child("chunkSize"), field.OmitValueType{}, err.Error()))
	}
	if err := c.Pull.Bandwidth.err; err != nil {
		errs = append(errs, field.Invalid(path.Child("bandwidth"), field.OmitValueType{}, err.Error()+" (bytes a second)"))
	}
	if share, ok := strings.CutSuffix(c.Pull.MinFree, "%"); ok {
		if n, err := strconv.Atoi(share); err != nil || n < 0 || n > 100 {
			errs = append(errs, field.Invalid(path.Child("minFree"), c.Pull.MinFree, "write 0% to 100%, or a size such as 20Gi"))
		}
	} else if _, err := parseBytes(c.Pull.MinFree); err != nil {
		errs = append(errs, field.Invalid(path.Child("minFree"), c.Pull.MinFree, "write a share such as 10%, or a size such as 20Gi"))
	}
	return errs
}

func (r *Register) validate(path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, taint := range r.Taints {
		at := path.Child("taints").Index(i)
		for _, msg := range validation.IsQualifiedName(taint.Key) {
			errs = append(errs, field.Invalid(at.Child("key"), taint.Key, msg))
		}
		for _, msg := range validation.IsValidLabelValue(taint.Value) {
			errs = append(errs, field.Invalid(at.Child("value"), taint.Value, msg))
		}
		switch taint.Effect {
		case corev1.TaintEffectNoSchedule, corev1.TaintEffectPreferNoSchedule, corev1.TaintEffectNoExecute:
		default:
			errs = append(errs, field.NotSupported(at.Child("effect"), taint.Effect,
				[]corev1.TaintEffect{corev1.TaintEffectNoSchedule, corev1.TaintEffectPreferNoSchedule, corev1.TaintEffectNoExecute}))
		}
	}
	for key, value := range r.Labels {
		at := path.Child("labels").Key(key)
		for _, msg := range validation.IsQualifiedName(key) {
			errs = append(errs, field.Invalid(at, key, msg))
		}
		for _, msg := range validation.IsValidLabelValue(value) {
			errs = append(errs, field.Invalid(at, value, msg))
		}
		if msg := refusedLabel(key); msg != "" {
			errs = append(errs, field.Forbidden(at, msg))
		}
	}
	errs = append(errs, absolute(path.Child("kubeletConfigDir"), r.KubeletConfigDir)...)
	return append(errs, absolute(path.Child("kubeletArgsFile"), r.KubeletArgsFile)...)
}

// absolute refuses a path that depends on where the agent was started.
func absolute(path *field.Path, value string) field.ErrorList {
	if filepath.IsAbs(value) {
		return nil
	}
	return field.ErrorList{field.Invalid(path, value, "write an absolute path")}
}

func hostPort(path *field.Path, value string) field.ErrorList {
	if _, port, err := net.SplitHostPort(value); err == nil {
		if n, err := strconv.Atoi(port); err == nil && n >= 0 && n <= 65535 {
			return nil
		}
	}
	return field.ErrorList{field.Invalid(path, value, "write host:port, such as 127.0.0.1:8080")}
}
