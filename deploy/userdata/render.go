package userdata

import (
	"fmt"

	"k8s.io/apimachinery/pkg/runtime"

	"headstart.dev/bottlerocket"
)

// Render returns the userData of an instance with this operating system, ready to be pasted into an EC2NodeClass. The
// values must come from Parse. The same values give the same bytes.
func Render(system OS, v Values) (string, error) {
	switch system {
	case AL2023:
		return renderAL2023(v)
	case Bottlerocket:
		return renderBottlerocket(v)
	default:
		return "", fmt.Errorf("unknown operating system %q: want %s or %s", system, AL2023, Bottlerocket)
	}
}

func renderBottlerocket(v Values) (string, error) {
	if v.Agent.Image == "" {
		return "", fmt.Errorf("render userData: Bottlerocket has no shell and a read-only root; give agent.image")
	}
	v.Config = runtime.DeepCopyJSON(v.Config)
	setDefault(v.Config, bottlerocket.ContainerdSocket, "containerd", "address")
	setDefault(v.Config, bottlerocket.CredentialProviderConfig, "registry", "credentialProviderConfig")
	setDefault(v.Config, bottlerocket.CredentialProviderBinDir, "registry", "credentialProviderBinDir")
	config, err := agentConfig(v)
	if err != nil {
		return "", err
	}
	settings := bottlerocket.Settings{Image: v.Agent.Image, Config: []byte(config), FastImagePull: v.FastImagePull}
	if v.Provisioner == Other {
		r, err := v.registration()
		if err != nil {
			return "", err
		}
		settings.Taints, settings.Labels = r.Taints, r.Labels
	}
	if c := v.Cluster; c != nil {
		settings.Cluster = &bottlerocket.Cluster{Name: c.Name, APIServer: c.APIServerEndpoint, Certificate: c.CertificateAuthority}
	}
	out, err := bottlerocket.Render(settings)
	if err != nil {
		return "", err
	}
	if len(out) > maxBytes {
		return "", fmt.Errorf("render userData: %d bytes, EC2 takes %d; move images from config to a PrepullPolicy", len(out), maxBytes)
	}
	return out, nil
}
