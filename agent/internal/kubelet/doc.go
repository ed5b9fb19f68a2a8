// Package kubelet meets the kubelet of this node without the API server: the files that it reads when it starts, and the
// sockets that it serves.
package kubelet
