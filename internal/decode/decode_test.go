package decode_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"headstart.dev/internal/decode"
)

type thing struct {
	metav1.ObjectMeta `json:"metadata"`

	Spec struct {
		Min resource.Quantity `json:"min"`
	} `json:"spec"`
	Status struct {
		Held int32 `json:"held"`
	} `json:"status"`
}

func TestObject(t *testing.T) {
	cases := map[string]struct {
		data, why, err string
		min            string
		held           int32
	}{
		"whole":                        {data: `{"metadata":{"name":"a"},"spec":{"min":"2"},"status":{"held":3}}`, min: "2", held: 3},
		"a quantity that is none":      {data: `{"metadata":{"name":"a"},"spec":{"min":"1e1.5"},"status":{"held":3}}`, why: "quantities must match", min: "0", held: 3},
		"a status that is none either": {data: `{"metadata":{"name":"a"},"spec":{"min":"1e1.5"},"status":{"held":"x"}}`, why: "the object cannot be read", min: "0"},
		"no object":                    {data: `[]`, err: "decode object"},
		"no metadata":                  {data: `{"metadata":7}`, err: "decode object"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			var out thing
			why, err := decode.Object([]byte(tc.data), &out)
			if tc.err != "" {
				require.ErrorContains(t, err, tc.err)
				return
			}
			require.NoError(t, err)
			require.Equal(t, tc.why == "", why == "", why)
			require.Contains(t, why, tc.why)
			require.Equal(t, "a", out.Name)
			require.Equal(t, tc.min, out.Spec.Min.String())
			require.Equal(t, tc.held, out.Status.Held)
		})
	}
}
