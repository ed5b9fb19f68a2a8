package resolve

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
)

// errAddress says that no registry is at an address.
var errAddress = errors.New("no registry is looked for at")

// refusedPrefixes are where clouds answer questions about the machine, beside link-local addresses.
// Sources: AWS EC2 "Use IMDS" (IPv6), Google Compute Engine "Metadata server" (IPv6), Azure "What is IP address
// 168.63.129.16", Alibaba Cloud ECS "Instance metadata", RFC 7723 and 8155 (192.0.0.0/24, Oracle's 192.0.0.192).
var refusedPrefixes = []netip.Prefix{
	netip.MustParsePrefix("fd00:ec2::/32"),
	netip.MustParsePrefix("fd20:ce::/32"),
	netip.MustParsePrefix("168.63.129.16/32"),
	netip.MustParsePrefix("100.100.100.200/32"),
	netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("0.0.0.0/8"),
}

// embedding are IPv6 prefixes whose last four bytes are an IPv4 address that is reached by them: RFC 6052, RFC 4291.
var embedding = []netip.Prefix{netip.MustParsePrefix("64:ff9b::/96"), netip.MustParsePrefix("::/96")}

// refuse keeps a made-up image name from reaching what is no registry: the instance metadata service of a cloud above all,
// and, unless loopback is allowed, this process' own neighbours in its pod. It is asked after names are resolved, at every
// redirect too. Private addresses are allowed: registries of a VPC have them.
func refuse(loopback bool) func(network, address string, _ syscall.RawConn) error {
	return func(_, address string, _ syscall.RawConn) error {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			return fmt.Errorf("split address %q: %w", address, err)
		}
		ip, err := netip.ParseAddr(host)
		if err != nil || !allowed(ip, loopback) {
			return fmt.Errorf("%w %s", errAddress, host)
		}
		return nil
	}
}

func allowed(ip netip.Addr, loopback bool) bool {
	ip = ip.WithZone("").Unmap()
	if ip.IsLoopback() {
		return loopback
	}
	for _, p := range embedding {
		if p.Contains(ip) {
			bytes := ip.As16()
			return allowed(netip.AddrFrom4([4]byte(bytes[12:])), loopback)
		}
	}
	for _, p := range refusedPrefixes {
		if p.Contains(ip) {
			return false
		}
	}
	return !ip.IsLinkLocalUnicast() && !ip.IsMulticast() && !ip.IsUnspecified()
}
