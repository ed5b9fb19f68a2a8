package agent

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"headstart.dev/readiness"
)

// minPeriod keeps a probe from becoming a busy loop.
const minPeriod = 50 * time.Millisecond

// reservedNames are the built-in families: a user probe of that name would be taken for one.
var reservedNames = map[string]ProbeType{"cni": ProbeCNI, "csi": ProbeCSI, "gpu": ProbeGPU}

// ownFields lists the fields of Probe that belong to some types only, and says which have them set.
func (p *Probe) ownFields() map[string]bool {
	return map[string]bool{
		"plugin": p.Plugin != "", "confDir": p.ConfDir != "", "drivers": len(p.Drivers) > 0, "kubeletDir": p.KubeletDir != "",
		"minDevices": p.MinDevices != 0, "devicePlugin": p.DevicePlugin != nil, "ignoreXIDs": len(p.IgnoreXIDs) > 0, "unit": p.Unit != "", "url": p.URL != "", "address": p.Address != "",
		"service": p.Service != "", "path": p.Path != "", "command": len(p.Command) > 0, "allowExec": p.AllowExec,
	}
}

// fieldsOfType says which of them a type has. Its keys are the types that exist.
var fieldsOfType = map[ProbeType][]string{
	ProbeCNI:     {"plugin", "confDir", "address"},
	ProbeCSI:     {"drivers", "kubeletDir"},
	ProbeGPU:     {"minDevices", "kubeletDir", "devicePlugin", "ignoreXIDs"},
	ProbeEFA:     {"minDevices"},
	ProbeDRA:     {"drivers", "kubeletDir"},
	ProbeNeuron:  {"minDevices", "kubeletDir", "devicePlugin"},
	ProbeSystemd: {"unit"},
	ProbeHTTP:    {"url"},
	ProbeTCP:     {"address"},
	ProbeGRPC:    {"address", "service"},
	ProbeUnix:    {"path"},
	ProbeFile:    {"path"},
	ProbeExec:    {"command", "allowExec"},
}

// KnownProbeType says whether a probe family has this name.
func KnownProbeType(name string) bool {
	_, known := fieldsOfType[ProbeType(name)]
	return known
}

func (c *Config) validateProbes() field.ErrorList {
	var errs field.ErrorList
	conditions := map[string]int{}
	for i := range c.Probes {
		probe, path := &c.Probes[i], field.NewPath("probes").Index(i)
		errs = append(errs, probe.validate(path)...)
		condition := probe.ConditionType()
		if condition == readiness.ConditionImagesReady {
			errs = append(errs, field.Invalid(path.Child("name"), probe.Name, "the condition of this name is that of the images: choose another name"))
		}
		if first, twice := conditions[condition]; twice {
			errs = append(errs, field.Duplicate(path.Child("name"), fmt.Sprintf("%s (it and probes[%d] would both be %s)", probe.Name, first, condition)))
		}
		conditions[condition] = i
	}
	return errs
}

func (p *Probe) validate(path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for _, msg := range validation.IsDNS1123Label(p.Name) {
		errs = append(errs, field.Invalid(path.Child("name"), p.Name, msg))
	}
	if len(p.Name) > 48 {
		errs = append(errs, field.TooLong(path.Child("name"), p.Name, 48))
	}
	own, known := fieldsOfType[p.Type]
	if !known {
		types := make([]ProbeType, 0, len(fieldsOfType))
		for t := range fieldsOfType {
			types = append(types, t)
		}
		slices.Sort(types)
		return append(errs, field.NotSupported(path.Child("type"), p.Type, types))
	}
	if t, reserved := reservedNames[p.Name]; reserved && t != p.Type {
		errs = append(errs, field.Invalid(path.Child("name"), p.Name, fmt.Sprintf("is the name of the built-in %s probe: choose another name", t)))
	}
	for name, set := range p.ownFields() {
		if set && !slices.Contains(own, name) {
			errs = append(errs, field.Forbidden(path.Child(name), fmt.Sprintf("a probe of type %s has no such field: it has %s", p.Type, strings.Join(own, ", "))))
		}
	}
	errs = append(errs, p.validateTiming(path)...)
	return append(errs, p.validateTarget(path)...)
}

func (p *Probe) validateTiming(path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if p.Mode != ModeContinuous && p.Mode != ModeBootstrapOnly {
		errs = append(errs, field.NotSupported(path.Child("mode"), p.Mode, []ProbeMode{ModeContinuous, ModeBootstrapOnly}))
	}
	for name, limit := range map[string]struct {
		value Duration
		min   time.Duration
	}{
		"initialDelay": {p.InitialDelay, 0},
		"period":       {p.Period, minPeriod},
		"timeout":      {p.Timeout, time.Millisecond},
	} {
		switch {
		case limit.value.err != nil:
			errs = append(errs, field.Invalid(path.Child(name), field.OmitValueType{}, limit.value.err.Error()))
		case limit.value.Duration < limit.min || limit.value.Duration > time.Hour:
			errs = append(errs, field.Invalid(path.Child(name), limit.value.String(), fmt.Sprintf("write %v to 1h", limit.min)))
		}
	}
	for name, value := range map[string]int{"successThreshold": p.SuccessThreshold, "failureThreshold": p.FailureThreshold} {
		if value < 1 || value > 1000 {
			errs = append(errs, field.Invalid(path.Child(name), value, "write 1 to 1000"))
		}
	}
	return errs
}

func (p *Probe) validateTarget(path *field.Path) field.ErrorList {
	switch p.Type {
	case ProbeCNI:
		return append(append(p.validatePlugin(path), absolute(path.Child("confDir"), p.ConfDir)...), p.validatePluginAddress(path.Child("address"))...)
	case ProbeCSI, ProbeDRA:
		return append(p.validateDrivers(path), absolute(path.Child("kubeletDir"), p.KubeletDir)...)
	case ProbeGPU, ProbeEFA, ProbeNeuron:
		if p.MinDevices < 0 {
			return field.ErrorList{field.Invalid(path.Child("minDevices"), p.MinDevices, "write 0 (as many as the PCI bus shows) or more")}
		}
	case ProbeSystemd:
		if !strings.Contains(p.Unit, ".") || strings.ContainsAny(p.Unit, "/ *?[") {
			return field.ErrorList{field.Invalid(path.Child("unit"), p.Unit, "write one whole unit name, such as kubelet.service")}
		}
	case ProbeHTTP:
		return p.validateURL(path)
	case ProbeTCP:
		return hostPort(path.Child("address"), p.Address)
	case ProbeGRPC:
		if socket, ok := strings.CutPrefix(p.Address, "unix://"); ok {
			return absolute(path.Child("address"), socket)
		}
		return hostPort(path.Child("address"), p.Address)
	case ProbeUnix, ProbeFile:
		return absolute(path.Child("path"), p.Path)
	case ProbeExec:
		return p.validateCommand(path)
	}
	return nil
}

func (p *Probe) validateURL(path *field.Path) field.ErrorList {
	u, err := url.Parse(p.URL)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return field.ErrorList{field.Invalid(path.Child("url"), p.URL, "write http://host:port/path or https://host:port/path")}
	}
	return nil
}

func (p *Probe) validateCommand(path *field.Path) field.ErrorList {
	if len(p.Command) == 0 || p.Command[0] == "" {
		return field.ErrorList{field.Required(path.Child("command"), `write the program and its arguments, such as ["/usr/bin/check", "--fast"]`)}
	}
	return absolute(path.Child("command").Index(0), p.Command[0])
}

func (p *Probe) validatePlugin(path *field.Path) field.ErrorList {
	plugins := []string{"auto", "aws-vpc-cni", "cilium", "calico", "generic"}
	if slices.Contains(plugins, p.Plugin) {
		return nil
	}
	return field.ErrorList{field.NotSupported(path.Child("plugin"), p.Plugin, plugins)}
}

// validatePluginAddress refuses an address that the plugin cannot answer at.
func (p *Probe) validatePluginAddress(path *field.Path) field.ErrorList {
	socket, isSocket := strings.CutPrefix(p.Address, "unix://")
	isURL := !isSocket && strings.Contains(p.Address, "://")
	switch {
	case p.Address == "":
		return nil
	case p.Plugin == "generic":
		return field.ErrorList{field.Forbidden(path, "a generic plugin has no signal of its own: leave address out, or add a probe of type http")}
	case isSocket && p.Plugin == "calico":
		return field.ErrorList{field.Invalid(path, p.Address, "Felix answers over HTTP: write http://host:port/readiness")}
	case isSocket:
		return absolute(path, socket)
	case isURL && p.Plugin == "aws-vpc-cni":
		return field.ErrorList{field.Invalid(path, p.Address, "ipamd answers over gRPC: write host:port or unix:///path")}
	case isURL:
		return (&Probe{URL: p.Address}).validateURL(path)
	}
	return hostPort(path, p.Address)
}

func (p *Probe) validateDrivers(path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if len(p.Drivers) == 0 {
		errs = append(errs, field.Required(path.Child("drivers"), "write the names of the drivers, such as [ebs.csi.aws.com]"))
	}
	for i, driver := range p.Drivers {
		// A driver's name becomes a path: it must not leave the kubelet's folder.
		for _, msg := range validation.IsDNS1123Subdomain(strings.ToLower(driver)) {
			errs = append(errs, field.Invalid(path.Child("drivers").Index(i), driver, msg))
		}
	}
	return errs
}
