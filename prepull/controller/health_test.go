package controller

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestLeaderIsReadyWhenItKnowsPoliciesAndNodes(t *testing.T) {
	c, leads := &Controller{}, make(chan struct{})
	require.NoError(t, c.ready(leads), "a standby has nothing to know")
	close(leads)
	require.Error(t, c.ready(leads))
	c.knowNodes = true
	require.Error(t, c.ready(leads))
	c.knowPolicies = true
	require.NoError(t, c.ready(leads))
}
