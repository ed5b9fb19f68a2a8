package budget_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"headstart.dev/prepull/budget"
)

const gib = 1 << 30

func image(name string, layers ...budget.Layer) budget.Image {
	return budget.Image{Name: name, Layers: layers}
}

func layer(digest string, bytes int64) budget.Layer {
	return budget.Layer{Digest: digest, Bytes: bytes}
}

func TestChoose(t *testing.T) {
	required := image("required", layer("r", 3*gib))
	required.Required = true
	important := image("important", layer("i", 2*gib))
	important.Priority = 100
	first, second := image("first", layer("f", gib)), image("second", layer("s", gib))
	second.Order = 1
	base := layer("base", 2*gib)

	cases := map[string]struct {
		images     []budget.Image
		limits     budget.Limits
		want       []string
		wantReason map[string]string
	}{
		"no limit takes all, most important first": {
			images: []budget.Image{second, first, important, required},
			want:   []string{"required", "important", "first", "second"},
		},
		"the least important does not fit": {
			images:     []budget.Image{second, first, important, required},
			limits:     budget.Limits{Bytes: 6 * gib},
			want:       []string{"required", "important", "first"},
			wantReason: map[string]string{"second": "needs 1Gi, and 0 of maxBytes 6Gi are left"},
		},
		"a smaller one still fits where a larger one did not": {
			images:     []budget.Image{required, important, first},
			limits:     budget.Limits{Bytes: 4 * gib},
			want:       []string{"required", "first"},
			wantReason: map[string]string{"important": "needs 2Gi, and 1Gi of maxBytes 4Gi are left"},
		},
		"shared layers count once": {
			images: []budget.Image{image("a", base, layer("a", gib)), image("b", base, layer("b", gib))},
			limits: budget.Limits{Bytes: 4 * gib},
			want:   []string{"a", "b"},
		},
		"a layer that an image has twice counts once": {
			images: []budget.Image{image("a", base, base)},
			limits: budget.Limits{Bytes: 2 * gib},
			want:   []string{"a"},
		},
		"an image of unknown size is not left out": {
			images: []budget.Image{required, image("unknown")},
			limits: budget.Limits{Bytes: 3 * gib},
			want:   []string{"required", "unknown"},
		},
		"too many": {
			images:     []budget.Image{first, second},
			limits:     budget.Limits{Images: 1},
			want:       []string{"first"},
			wantReason: map[string]string{"second": "the policy has more than 1 images"},
		},
		"lying sizes make no room": {
			images:     []budget.Image{image("a", layer("liar", -5*gib), layer("a", gib)), image("b", layer("b", gib))},
			limits:     budget.Limits{Bytes: gib},
			want:       []string{"a"},
			wantReason: map[string]string{"b": "needs 1Gi, and 0 of maxBytes 1Gi are left"},
		},
		"fractions are rounded for reading": {
			images:     []budget.Image{image("a", layer("a", 3*gib/2+17))},
			limits:     budget.Limits{Bytes: gib},
			wantReason: map[string]string{"a": "needs 1.5Gi, and 1Gi of maxBytes 1Gi are left"},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			chosen, out := budget.Choose(tc.images, tc.limits)
			var names []string
			for _, img := range chosen {
				names = append(names, img.Name)
			}
			require.Equal(t, tc.want, names)
			reasons := map[string]string{}
			for _, left := range out {
				reasons[left.Name] = left.Why
			}
			if tc.wantReason == nil {
				tc.wantReason = map[string]string{}
			}
			require.Equal(t, tc.wantReason, reasons)
		})
	}
}
