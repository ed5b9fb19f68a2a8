package testenv

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

const (
	cniConfName = "10-headstart.conflist"
	conflist    = `{
  "cniVersion": "1.0.0",
  "name": %q,
  "plugins": [
    {
      "type": "bridge", "bridge": %q, "isGateway": true, "hairpinMode": true,
      "ipam": {"type": "host-local", "dataDir": %q, "ranges": [[{"subnet": %q}]], "routes": [{"dst": "0.0.0.0/0"}]}
    }
  ]
}
`
)

// WriteCNI makes the network configuration of pods appear, whole and at once, as the DaemonSet of a CNI plugin does when
// it is ready. Until then the CRI reports that its network is not ready.
func (c *Containerd) WriteCNI() error {
	prefix, err := unusedPrefix()
	if err != nil {
		return err
	}
	subnet := fmt.Sprintf("%d.%d.%d.0/24", prefix[0], prefix[1], prefix[2])
	content := fmt.Appendf(nil, conflist, c.work.Name("pods"), c.work.Link("cni"), c.work.Path("ipam"), subnet)
	// containerd re-reads the folder on writes and renames inside it, not on creations: a file that is moved in from
	// elsewhere goes unseen. Source: containerd internal/cri/server/cni_conf_syncer.go@v2.4.2
	temp, err := c.work.Write(content, "cni", ".headstart.tmp")
	if err != nil {
		return err
	}
	if err := os.Rename(temp, filepath.Join(c.CNIConfDir(), cniConfName)); err != nil {
		return fmt.Errorf("write the CNI configuration: %w", err)
	}
	return nil
}

// RemoveCNI takes the network configuration away again. One that is not there is no error.
func (c *Containerd) RemoveCNI() error {
	err := os.Remove(filepath.Join(c.CNIConfDir(), cniConfName))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove the CNI configuration: %w", err)
	}
	return nil
}
