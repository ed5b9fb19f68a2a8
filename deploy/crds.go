// Package deploy embeds what the binaries install of this folder. It decides nothing.
package deploy

import "embed"

// CRDs holds our CustomResourceDefinitions as crd/*.yaml, without those of the guide's and upstream's rule forms.
//
//go:embed crd/*.yaml
var CRDs embed.FS
