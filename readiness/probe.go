package readiness

import (
	"errors"
	"fmt"
	"net"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
)

// addProbe takes over the readinessProbe of a required DaemonSet. What no agent can run is refused here, before a node is
// held for it.
func (d *DaemonSet) addProbe(p *corev1.Probe) error {
	if err := CheckProbe(p); err != nil {
		return err
	}
	if p.Exec != nil {
		if wait, err := ParsePodWait(p.Exec.Command); err == nil {
			d.Wait = wait
			return nil
		}
	}
	d.ProbeCondition = ProbeCondition(d.Name)
	d.ExecProbe = p.Exec != nil
	return nil
}

// CheckProbe says what of a probe no agent can run. Whoever may write rules may make nodes look at themselves, and at
// nothing else.
func CheckProbe(p *corev1.Probe) error {
	handlers := 0
	for _, there := range []bool{p.Exec != nil, p.HTTPGet != nil, p.TCPSocket != nil, p.GRPC != nil} {
		if there {
			handlers++
		}
	}
	switch {
	case handlers != 1:
		return errors.New("write exactly one of exec, httpGet, tcpSocket and grpc")
	case p.Exec != nil:
		if len(p.Exec.Command) == 0 || p.Exec.Command[0] == "" {
			return errors.New("exec.command is empty: write the program and its arguments")
		}
		return nil
	case p.HTTPGet != nil:
		return checkHTTP(p.HTTPGet)
	case p.TCPSocket != nil:
		return checkAddress("tcpSocket", p.TCPSocket.Host, p.TCPSocket.Port)
	}
	return checkAddress("grpc", "", intstr.FromInt32(p.GRPC.Port))
}

func checkHTTP(in *corev1.HTTPGetAction) error {
	if scheme := strings.ToUpper(string(in.Scheme)); scheme != "" && scheme != "HTTP" && scheme != "HTTPS" {
		return fmt.Errorf("httpGet.scheme %q: write HTTP or HTTPS", in.Scheme)
	}
	for _, header := range in.HTTPHeaders {
		if problems := validation.IsHTTPHeaderName(header.Name); len(problems) > 0 || strings.ContainsAny(header.Value, "\r\n\x00") {
			return fmt.Errorf("httpGet.httpHeaders: %q is not a header", header.Name)
		}
	}
	return checkAddress("httpGet", in.Host, in.Port)
}

func checkAddress(handler, host string, port intstr.IntOrString) error {
	if ip := net.ParseIP(host); host != "" && host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return fmt.Errorf("%s.host %q is not the node itself: leave it out", handler, host)
	}
	if port.Type == intstr.Int && (port.IntVal < 1 || port.IntVal > 65535) {
		return fmt.Errorf("%s.port %d: write a number from 1 to 65535, or the name of a container's port", handler, port.IntVal)
	}
	if port.Type == intstr.String {
		if problems := validation.IsValidPortName(port.StrVal); len(problems) > 0 {
			return fmt.Errorf("%s.port %q is neither a number nor the name of a container's port", handler, port.StrVal)
		}
	}
	return nil
}
