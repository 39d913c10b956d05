// A control server whose tailnet shares nodes with another one, which headscale can't do: Tailscale's own test control
// server, and a relay beside it.
//
//	sharing IP:PORT
//
// It says "serving" once it listens. Each line on stdin says how a node is to see a peer from now on, `NODE PEER AS`,
// and is answered by a line, "told" or what is wrong. AS: `sharer` (the peer was shared in), `sharee` (the peer is of
// a tailnet that NODE is shared with), `own` (as it is).
package main

import (
	"bufio"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/netip"
	"os"

	"tailscale.com/derp/derpserver"
	"tailscale.com/tailcfg"
	"tailscale.com/tstest/integration/testcontrol"
	"tailscale.com/types/key"
	"tailscale.com/types/logger"
)

func main() {
	address, err := netip.ParseAddrPort(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	control := &testcontrol.Server{
		Logf:            logger.Discard,
		ExplicitBaseURL: "http://" + address.String(),
		MagicDNSDomain:  "tail.test",
		DNSConfig:       &tailcfg.DNSConfig{Proxied: true},
		DERPMap: &tailcfg.DERPMap{Regions: map[int]*tailcfg.DERPRegion{999: {
			RegionID:   999,
			RegionCode: "test",
			RegionName: "test",
			Nodes: []*tailcfg.DERPNode{{
				Name:     "999a",
				RegionID: 999,
				HostName: address.Addr().String(),
				IPv4:     address.Addr().String(),
				IPv6:     "none",
				DERPPort: int(address.Port()),
				STUNPort: -1,
			}},
		}}},
	}
	mux := http.NewServeMux()
	mux.Handle("/derp", derpserver.Handler(derpserver.New(key.NewNode(), logger.Discard)))
	mux.HandleFunc("/derp/probe", func(http.ResponseWriter, *http.Request) {})
	mux.Handle("/", control)
	listener, err := net.Listen("tcp", address.String())
	if err != nil {
		log.Fatal(err)
	}
	go func() { log.Fatal(http.Serve(listener, mux)) }()
	fmt.Println("serving")

	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		var node, peer, as string
		fmt.Sscan(lines.Text(), &node, &peer, &as)
		fmt.Println(tell(control, node, peer, as))
	}
}

// tell has one node see another otherwise from now on, and returns "told" or why not.
func tell(control *testcontrol.Server, to, about, as string) string {
	node, peer := named(control, to), named(control, about)
	if node == nil || peer == nil {
		return "no such node"
	}
	switch as {
	case "sharer":
		peer.Sharer = node.User
	case "sharee":
		said := peer.Hostinfo.AsStruct()
		said.ShareeNode = true
		peer.Hostinfo = said.View()
	case "own":
	default:
		return "no such way"
	}
	if !control.AddRawMapResponse(node.Key, &tailcfg.MapResponse{PeersChanged: []*tailcfg.Node{peer}}) {
		return "it isn't connected"
	}
	return "told"
}

// named returns the node of a host name, nil for none.
func named(control *testcontrol.Server, name string) *tailcfg.Node {
	for _, node := range control.AllNodes() {
		if node.Hostinfo.Hostname() == name {
			return node
		}
	}
	return nil
}
