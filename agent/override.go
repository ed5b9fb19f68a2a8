package agent

import "cmp"

// Overrides are what flags and environment say instead of the file; empty fields leave the file's.
type Overrides struct {
	NodeName, Kubeconfig, StateDir, MetricsBindAddress string
}

// With returns the config with the overrides laid over it, validated again.
func (c Config) With(o Overrides) (Config, error) {
	c.NodeName = cmp.Or(o.NodeName, c.NodeName)
	c.Kubeconfig = cmp.Or(o.Kubeconfig, c.Kubeconfig)
	c.StateDir = cmp.Or(o.StateDir, c.StateDir)
	c.Metrics.BindAddress = cmp.Or(o.MetricsBindAddress, c.Metrics.BindAddress)
	if err := c.validate(); err != nil {
		return Config{}, err
	}
	return c, nil
}
