package containerd

import (
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"
)

func TestPlanPins(t *testing.T) {
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	one, two := digest.FromString("one"), digest.FromString("two")
	record := func(name string, target digest.Digest, owner string, left time.Duration) images.Image {
		img := images.Image{Name: name, Target: ocispec.Descriptor{Digest: target}, Labels: map[string]string{labelManaged: labelManagedValue}}
		if owner != "" {
			img.Labels[labelPinned], img.Labels[labelOwner] = labelPinnedValue, owner
			img.Labels[labelUntil] = now.Add(left).Format(time.RFC3339)
		}
		return img
	}
	const app, other = "registry.example/app:v1", "registry.example/other:v1"
	config := digest.FromString("config").String()
	forever := record(app, one, OwnerAgent, time.Hour)
	delete(forever.Labels, labelUntil)
	const fresh = 6 * 24 * time.Hour
	for name, tc := range map[string]struct {
		records     []images.Image
		wanted      []string
		drop, renew []string
	}{
		"wanted and fresh":              {records: []images.Image{record(app, one, OwnerAgent, fresh), record(config, one, OwnerAgent, fresh)}, wanted: []string{app}},
		"wanted and about to expire":    {records: []images.Image{record(app, one, OwnerAgent, time.Hour), record(config, one, OwnerAgent, fresh)}, wanted: []string{app}, renew: []string{app}},
		"wanted, expired meanwhile":     {records: []images.Image{record(app, one, OwnerAgent, -time.Hour)}, wanted: []string{app}, renew: []string{app}},
		"a kubelet took the labels off": {records: []images.Image{record(app, one, "", 0), record("registry.example/app@"+one.String(), one, OwnerAgent, fresh)}, wanted: []string{app}, renew: []string{app}},
		"wanted no longer":              {records: []images.Image{record(app, one, OwnerAgent, fresh), record(config, one, OwnerAgent, fresh)}, wanted: []string{}, drop: []string{app, config}},
		"not known whether wanted":      {records: []images.Image{record(app, one, OwnerAgent, fresh)}},
		"not known, but expired":        {records: []images.Image{record(app, one, OwnerAgent, -time.Second)}, drop: []string{app}},
		"it never said when it ends":    {records: []images.Image{forever}, drop: []string{app}},
		"the command's":                 {records: []images.Image{record(app, one, OwnerCommand, fresh)}, wanted: []string{}},
		"the command's, expired":        {records: []images.Image{record(app, one, OwnerCommand, -time.Hour)}, wanted: []string{}, drop: []string{app}},
		"the tag has moved": {
			records: []images.Image{record(app, two, OwnerAgent, fresh), record("registry.example/app@"+one.String(), one, OwnerAgent, fresh), record("registry.example/app@"+two.String(), two, OwnerAgent, fresh)},
			wanted:  []string{app}, drop: []string{"registry.example/app@" + one.String()},
		},
		"two names of one image": {
			records: []images.Image{record(app, one, OwnerAgent, fresh), record(other, one, OwnerAgent, fresh), record(config, one, OwnerAgent, fresh)},
			wanted:  []string{other}, drop: []string{app},
		},
		"somebody else's": {records: []images.Image{record(app, one, "kruise", -time.Hour), record("sandbox", two, "", 0)}, wanted: []string{}},
	} {
		t.Run(name, func(t *testing.T) {
			plan := planPins(tc.records, OwnerAgent, tc.wanted, now)
			names := func(records []images.Image) (all []string) {
				for _, r := range records {
					all = append(all, r.Name)
				}
				return all
			}
			require.Equal(t, tc.drop, names(plan.drop))
			require.Equal(t, tc.renew, names(plan.renew))
		})
	}
}
