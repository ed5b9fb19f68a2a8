package credentials

import (
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"

	"headstart.dev/bottlerocket"
)

func TestAHostsProviderRunsInTheHostsRoot(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), bottlerocket.CredentialProviderBinDir+"/ecr-credential-provider")
	intoHost(cmd)
	require.Equal(t, "/usr/libexec/kubernetes/kubelet/plugins/ecr-credential-provider", cmd.Path)
	require.Equal(t, bottlerocket.RootFS, cmd.SysProcAttr.Chroot)

	own := exec.CommandContext(t.Context(), "/etc/eks/image-credential-provider/ecr-credential-provider")
	intoHost(own)
	require.Equal(t, "/etc/eks/image-credential-provider/ecr-credential-provider", own.Path)
	require.Nil(t, own.SysProcAttr)
}
