package nodewatch

import (
	"fmt"
	"sync"

	"google.golang.org/protobuf/encoding/protowire"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"

	"headstart.dev/readiness"
)

// MaxImageBytes is the size of the largest image of status.images that followers are told of: they ask for the sandbox's,
// which has less than 1 MB. The others, with their names, are a third of a Node.
const MaxImageBytes = 4 << 20

// Most of what the API server sends of a Node is nothing to any follower, and to decode it is most of what an event costs:
// some two hundred strings. So it is taken out of the encoded Node before that is decoded, in this process and at every
// event; there is no way to ask the API server for a part of an object that has what is needed here.

// unread are the fields of a Node that no follower reads.
// Source: k8s.io/api core/v1/generated.proto@v0.37.
var unread = cut{fields: map[protowire.Number]cut{
	1: {fields: map[protowire.Number]cut{17: whole}}, // metadata.managedFields
	3: {fields: map[protowire.Number]cut{ // status
		1:  whole,                                                                // capacity
		4:  {fields: map[protowire.Number]cut{5: {drop: otherReason}, 6: whole}}, // conditions: reason, message
		5:  whole,                                                                // addresses
		8:  {drop: largeImage},                                                   // images
		9:  whole,                                                                // volumesInUse
		10: whole,                                                                // volumesAttached
		12: whole,                                                                // runtimeHandlers
	}},
}}

// cut says what of a message, or of one field of it, is left out.
type cut struct {
	// fields are those of which something is left out.
	fields map[protowire.Number]cut
	// drop, where set, says whether the whole field is.
	drop func(value []byte) bool
}

var whole = cut{drop: func([]byte) bool { return true }}

// otherReason says whether the reason of a condition is none that is read: the agent's that it may not run a probe.
func otherReason(reason []byte) bool { return string(reason) != readiness.ReasonExecNotAllowed }

// largeImage says whether a ContainerImage is larger than MaxImageBytes.
func largeImage(image []byte) bool {
	const sizeBytes = 2
	for len(image) > 0 {
		number, kind, n := protowire.ConsumeTag(image)
		if n < 0 {
			return false
		}
		if number == sizeBytes && kind == protowire.VarintType {
			size, _ := protowire.ConsumeVarint(image[n:])
			return size > MaxImageBytes
		}
		value := protowire.ConsumeFieldValue(number, kind, image[n:])
		if value < 0 {
			return false
		}
		image = image[n+value:]
	}
	return false
}

// copyTo appends message to out, without what is left out.
func (c cut) copyTo(out, message []byte) ([]byte, error) {
	for len(message) > 0 {
		number, kind, tag := protowire.ConsumeTag(message)
		if tag < 0 {
			return nil, fmt.Errorf("decode node: %w", protowire.ParseError(tag))
		}
		size := protowire.ConsumeFieldValue(number, kind, message[tag:])
		if size < 0 {
			return nil, fmt.Errorf("decode node: field %d: %w", number, protowire.ParseError(size))
		}
		field := message[:tag+size]
		message = message[tag+size:]
		inner, listed := c.fields[number]
		if !listed || kind != protowire.BytesType {
			out = append(out, field...)
			continue
		}
		value, _ := protowire.ConsumeBytes(field[tag:])
		if inner.drop != nil {
			if !inner.drop(value) {
				out = append(out, field...)
			}
			continue
		}
		var err error
		if out, err = inner.copyField(out, field[:tag], value); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// copyField appends a message's field. The length before it is not known yet: it takes as many bytes as that of the whole
// value would, which protobuf allows.
func (c cut) copyField(out, tag, value []byte) ([]byte, error) {
	out = append(out, tag...)
	width := protowire.SizeVarint(uint64(len(value)))
	at := len(out)
	for range width {
		out = append(out, 0)
	}
	out, err := c.copyTo(out, value)
	if err != nil {
		return nil, err
	}
	length := uint64(len(out) - at - width)
	for i := range width {
		out[at+i] = byte(length>>(7*i)) & 0x7f
		if i < width-1 {
			out[at+i] |= 0x80
		}
	}
	return out, nil
}

// scratch holds encoded Nodes without what nobody reads.
var scratch = sync.Pool{New: func() any { return new([]byte) }}

// decode calls unmarshal, which must keep nothing of its argument, with data without what c leaves out.
func (c cut) decode(data []byte, unmarshal func([]byte) error) error {
	buffer, ok := scratch.Get().(*[]byte)
	if !ok {
		buffer = new([]byte)
	}
	defer scratch.Put(buffer)
	out, err := c.copyTo((*buffer)[:0], data)
	if err != nil {
		return err
	}
	*buffer = out
	return unmarshal(out)
}

// partialNode is a Node that decodes to what followers read.
type partialNode struct {
	corev1.Node `json:",inline"`
}

// Unmarshal decodes the protobuf form.
func (n *partialNode) Unmarshal(data []byte) error { return unread.decode(data, n.Node.Unmarshal) }

// DeepCopyObject is a copy.
func (n *partialNode) DeepCopyObject() runtime.Object { return &partialNode{*n.DeepCopy()} }

// partialList is a list of Nodes that decodes to what followers read.
type partialList struct {
	corev1.NodeList `json:",inline"`
}

var unreadInList = cut{fields: map[protowire.Number]cut{2: unread}}

// Unmarshal decodes the protobuf form.
func (l *partialList) Unmarshal(data []byte) error {
	return unreadInList.decode(data, l.NodeList.Unmarshal)
}

// DeepCopyObject is a copy.
func (l *partialList) DeepCopyObject() runtime.Object { return &partialList{*l.DeepCopy()} }

// nodeOf is the Node of what the client decoded.
func nodeOf(obj any) (*corev1.Node, bool) {
	switch in := obj.(type) {
	case *partialNode:
		return &in.Node, true
	case *corev1.Node:
		return in, true
	}
	return nil, false
}

// newClient makes a client that knows Nodes alone, and of those what followers read.
func newClient(config *rest.Config) (rest.Interface, error) {
	scheme := runtime.NewScheme()
	scheme.AddKnownTypeWithName(corev1.SchemeGroupVersion.WithKind("Node"), &partialNode{})
	scheme.AddKnownTypeWithName(corev1.SchemeGroupVersion.WithKind("NodeList"), &partialList{})
	metav1.AddToGroupVersion(scheme, corev1.SchemeGroupVersion)
	config = rest.CopyConfig(config)
	config.ContentType = runtime.ContentTypeProtobuf
	config.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	config.GroupVersion, config.APIPath = &corev1.SchemeGroupVersion, "/api"
	config.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	return rest.RESTClientFor(config)
}
