package readiness

import (
	"fmt"
	"hash/fnv"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// What was seen before a node booted, or before a Node of that name was made anew, is no evidence of how the node is now:
// its pods, its CSINode and its devices stay in the API server for a while. A Mark names one such fact as it was.

// Mark identifies a fact about a node: what it is, and when it last changed.
type Mark uint32

// Marks are a few of them, in no order. In JSON they are one string of eight hexadecimal digits each.
type Marks []Mark

// MarshalJSON makes the string.
func (m Marks) MarshalJSON() ([]byte, error) {
	var b strings.Builder
	b.WriteByte('"')
	for _, one := range m {
		fmt.Fprintf(&b, "%08x", uint32(one))
	}
	b.WriteByte('"')
	return []byte(b.String()), nil
}

// UnmarshalJSON reads the string.
func (m *Marks) UnmarshalJSON(data []byte) error {
	text := strings.Trim(string(data), `"`)
	*m = nil
	for ; len(text) >= 8; text = text[8:] {
		one, err := strconv.ParseUint(text[:8], 16, 32)
		if err != nil {
			return fmt.Errorf("decode mark: %w", err)
		}
		*m = append(*m, Mark(one))
	}
	return nil
}

// Has says whether one is among them.
func (m Marks) Has(one Mark) bool { return slices.Contains(m, one) }

// Without is m without one.
func (m Marks) Without(one Mark) Marks {
	return slices.DeleteFunc(slices.Clone(m), func(other Mark) bool { return other == one })
}

func mark(parts ...string) Mark {
	h := fnv.New32a()
	for _, part := range parts {
		h.Write([]byte(part))
		h.Write([]byte{0})
	}
	return Mark(h.Sum32())
}

// Mark is the pod's: another one when it became Ready anew, or one of its containers was started.
func (p *Pod) Mark() Mark {
	return mark("pod", p.Namespace, p.Name, strconv.FormatInt(p.Changed.Unix(), 36), strconv.FormatInt(p.StartedAt, 36))
}

// DriverMark is that of a CSI driver in the node's CSINode. The kubelet writes a driver there once, and not again when it
// registers after a reboot: only one that was away and came back is renewed.
func DriverMark(driver string) Mark { return mark("csi", driver) }

// ResourceMark is that of an amount of a resource that a device plugin brings.
func ResourceMark(name corev1.ResourceName, amount string) Mark {
	return mark("resource", string(name), amount)
}

// Remains are the marks of what stays in the API server when the Node is gone.
func (f *Facts) Remains() Marks {
	rest := *f
	rest.Node = nil
	return rest.Evidence()
}

// Evidence are the marks of all that is known of the node now, beside its conditions.
func (f *Facts) Evidence() Marks {
	var out Marks
	for i := range f.Pods {
		out = append(out, f.Pods[i].Mark())
	}
	for _, driver := range f.CSIDrivers {
		out = append(out, DriverMark(driver))
	}
	if f.Node == nil {
		return out
	}
	for name, amount := range f.Node.Status.Allocatable {
		if extended(name) {
			out = append(out, ResourceMark(name, amount.String()))
		}
	}
	return out
}

// extended says whether a device plugin brings the resource: the kubelet reports its own with every status, and sets those
// of plugins to 0 when it starts.
func extended(name corev1.ResourceName) bool { return strings.Contains(string(name), "/") }

// stalePod says whether the pod tells of an earlier Node or, where fresh is asked for, of an earlier boot.
func (f *Facts) stalePod(p *Pod, fresh bool) bool {
	m := p.Mark()
	if f.OldNode.Has(m) || fresh && f.OldBoot.Has(m) {
		return true
	}
	made := f.Node.CreationTimestamp.Unix()
	return p.CreatedAt != 0 && max(p.CreatedAt, p.Changed.Unix(), p.StartedAt) < made
}

// hasDriver says whether the node's CSINode lists the driver, and not from an earlier Node or, where fresh is asked for, an
// earlier boot. Of this boot is also what the agent says of the drivers that it watches: the kubelet would not say it again.
func (f *Facts) hasDriver(driver string, fresh bool) bool {
	if !slices.Contains(f.CSIDrivers, driver) || f.OldNode.Has(DriverMark(driver)) {
		return false
	}
	switch {
	case f.CSINode.Owner != "" && f.CSINode.Owner != f.Node.UID:
		return false
	case f.CSINode.Owner == "" && f.CSINode.CreatedAt != 0 && f.CSINode.CreatedAt < f.Node.CreationTimestamp.Unix():
		return false
	case !fresh || !f.OldBoot.Has(DriverMark(driver)):
		return true
	}
	said := f.condition(ConditionCSIReady)
	return said != nil && said.Status == corev1.ConditionTrue && f.thisBoot(said)
}

// staleResource says whether the amount was there before the present boot and has not changed since.
func (f *Facts) staleResource(name corev1.ResourceName) bool {
	have := f.Node.Status.Allocatable[name]
	return extended(name) && f.OldBoot.Has(ResourceMark(name, have.String()))
}
