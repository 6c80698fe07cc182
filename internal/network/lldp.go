package network

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/incusos/incusos/api"
)

const (
	// networkdSocket is where networkd answers questions in varlink: JSON, each
	// message ended by a zero byte (varlink.org/Interface-Definition).
	networkdSocket = "/run/systemd/netif/io.systemd.Network"
	lldpQuestion   = `{"method":"io.systemd.Network.GetLLDPNeighbors","parameters":{}}` + "\x00"

	lldpTime  = time.Second
	mostReply = 1 << 20 // bytes
)

// neighbours returns what was heard by LLDP, by the name of the device that heard
// it. None are heard while networkd does not answer.
func (n *Network) neighbours(ctx context.Context) map[string][]api.InterfaceLLDP {
	ctx, cancel := context.WithTimeout(ctx, lldpTime)
	defer cancel()
	conn, err := n.host.Files.DialUnix(ctx, networkdSocket)
	if err != nil {
		return nil
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	if _, err := io.WriteString(conn, lldpQuestion); err != nil {
		return nil
	}
	reply, err := bufio.NewReader(io.LimitReader(conn, mostReply)).ReadBytes(0)
	if err != nil {
		return nil
	}
	heard, _ := parseLLDP(bytes.TrimSuffix(reply, []byte{0})) // an answer of another form holds no neighbours
	return heard
}

// parseLLDP reads the answer to lldpQuestion, as networkd 257 gives it.
func parseLLDP(reply []byte) (map[string][]api.InterfaceLLDP, error) {
	var doc struct {
		Error      string `json:"error"`
		Parameters struct {
			Neighbors []struct {
				InterfaceName string
				Neighbors     []struct {
					ChassisID, PortID, PortDescription, SystemName string
				}
			}
		} `json:"parameters"`
	}
	if err := json.Unmarshal(reply, &doc); err != nil {
		return nil, fmt.Errorf("answer of networkd about neighbours: %w", err)
	}
	if doc.Error != "" {
		return nil, errors.New("networkd does not tell about neighbours: " + doc.Error)
	}
	heard := make(map[string][]api.InterfaceLLDP)
	for _, i := range doc.Parameters.Neighbors {
		for _, n := range i.Neighbors {
			heard[i.InterfaceName] = append(heard[i.InterfaceName], api.InterfaceLLDP{ChassisID: n.ChassisID, Name: n.SystemName, PortID: n.PortID, Port: n.PortDescription})
		}
	}
	return heard, nil
}
