//go:build tools

// Package deploy keeps in go.mod the modules whose CRD files the tests read.
package deploy

import (
	_ "github.com/aws/karpenter-provider-aws/pkg/apis"
	_ "github.com/prometheus-operator/prometheus-operator/pkg/versionutil"
	_ "sigs.k8s.io/karpenter/pkg/apis"
)
