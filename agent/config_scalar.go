package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
)

// Duration is a Go duration ("250ms"). It keeps what it could not read, so that the validation can say where it stands.
type Duration struct {
	time.Duration
	err error
}

// UnmarshalJSON never fails: see Duration.
func (d *Duration) UnmarshalJSON(raw []byte) error {
	var text string
	if err := json.Unmarshal(raw, &text); err != nil {
		d.err = fmt.Errorf("%s has no unit: write a duration such as 250ms or 10s", raw)
		return nil //nolint:nilerr // reported by the validation, with the name of the field
	}
	parsed, err := time.ParseDuration(text)
	if err != nil {
		d.err = fmt.Errorf("%q is no duration: write a number and a unit, such as 250ms or 10s", text)
		return nil //nolint:nilerr // reported by the validation, with the name of the field
	}
	d.Duration = parsed
	return nil
}

// MarshalJSON writes the duration as it is typed.
func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(d.String()) }

// IsZero makes omitzero leave it out.
func (d Duration) IsZero() bool { return d.Duration == 0 && d.err == nil }

// Quantity is a number of bytes, written as a Kubernetes quantity ("16Mi", "100M", 0, ""). It keeps what it could not
// read, as Duration does.
type Quantity struct {
	Bytes int64
	err   error
}

// UnmarshalJSON never fails: see Quantity.
func (q *Quantity) UnmarshalJSON(raw []byte) error {
	text := string(raw)
	if err := json.Unmarshal(raw, &text); err != nil {
		text = string(raw)
	}
	if text == "" {
		return nil
	}
	q.Bytes, q.err = parseBytes(text)
	return nil
}

// MarshalJSON writes the canonical quantity.
func (q Quantity) MarshalJSON() ([]byte, error) {
	return json.Marshal(resource.NewQuantity(q.Bytes, resource.BinarySI).String())
}

// IsZero makes omitzero leave it out.
func (q Quantity) IsZero() bool { return q.Bytes == 0 && q.err == nil }

// parseBytes reads a quantity of whole, non-negative bytes.
func parseBytes(text string) (int64, error) {
	parsed, err := resource.ParseQuantity(text)
	if err != nil {
		return 0, fmt.Errorf("%q is no size: write a number with a Kubernetes unit, such as 16Mi or 1Gi", text)
	}
	if parsed.Sign() < 0 {
		return 0, errors.New("must not be negative")
	}
	return parsed.Value(), nil
}
