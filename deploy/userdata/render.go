package userdata

import (
	"fmt"

	"k8s.io/apimachinery/pkg/runtime"

	"headstart.dev/bottlerocket"
)

const (
	// maxBytes is EC2's limit of raw userData.
	maxBytes = 16 << 10
	// othersBytes is what others add: Karpenter and EKS's managed node groups write the cluster's name, address, CIDR and
	// certificate, and the labels and taints of the pool, into the same userData.
	// Source: aws/karpenter-provider-aws pkg/providers/amifamily/bootstrap/nodeadm.go@v1.8.
	othersBytes = 2560
)

// Render returns the userData of an instance with this operating system, ready to be pasted into an EC2NodeClass. The
// values must come from Parse. The same values give the same bytes.
func Render(system OS, v Values) (string, error) { return Merge(system, v, nil) }

// Merge is Render into userData that is there already: its parts and settings stay, and what an earlier Merge wrote is
// written anew. AL2023's may be MIME multipart, a shell script, a NodeConfig or a cloud-config; Bottlerocket's is TOML.
func Merge(system OS, v Values, earlier []byte) (string, error) {
	var out string
	var err error
	switch system {
	case AL2023:
		out, err = renderAL2023(v, earlier)
	case Bottlerocket:
		out, err = renderBottlerocket(v, earlier)
	default:
		return "", fmt.Errorf("unknown operating system %q: want %s or %s", system, AL2023, Bottlerocket)
	}
	if err != nil {
		return "", err
	}
	return out, v.checkSize(len(out))
}

// checkSize leaves room for those who add to the userData.
func (v *Values) checkSize(bytes int) error {
	room, why := maxBytes, ""
	if v.Cluster == nil {
		room -= othersBytes
		who := "a managed node group adds"
		if v.Provisioner == Karpenter {
			who = "Karpenter adds"
		}
		why = fmt.Sprintf(", and %s up to %d", who, othersBytes)
	}
	if bytes > room {
		return fmt.Errorf("render userData: %d bytes; EC2 takes %d%s: at most %d are left; move images from config to a PrepullPolicy", bytes, maxBytes, why, room)
	}
	return nil
}

func renderBottlerocket(v Values, earlier []byte) (string, error) {
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
		settings.Taints, settings.Labels = v.register.Taints, v.register.Labels
	}
	if c := v.Cluster; c != nil {
		settings.Cluster = &bottlerocket.Cluster{Name: c.Name, APIServer: c.APIServerEndpoint, Certificate: c.CertificateAuthority}
	}
	return bottlerocket.Merge(settings, earlier)
}
