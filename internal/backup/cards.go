package backup

import (
	"slices"
	"strings"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/sys"
)

// fitCards returns the network document as it fits the cards of this machine. A
// document goes by MAC addresses, which on other hardware are others. With
// byName, those that no card here has are replaced by the name of the interface,
// if a card is called that. Without it, a document that means no card here at all
// is refused: nobody could reach the machine any more.
func fitCards(content []byte, links []sys.Link, byName bool) ([]byte, error) {
	doc, config, err := open(content)
	if err != nil {
		return nil, api.Errorf(api.Invalid, "the document \"network\" of the backup: %v", err)
	}
	c := newCards(links)
	c.devices(config["interfaces"], byName)
	c.devices(config["bonds"], byName)
	switch {
	case byName && len(c.strange) > 0:
		return nil, api.Errorf(api.Conflict, "the backup means network cards that are not here, and none is called as it calls them: %s; this machine has %s",
			strings.Join(c.strange, ", "), c)
	case c.known == 0 && len(c.strange) > 0:
		return nil, api.Errorf(api.Conflict, "the backup means network cards of another machine (%s), and this one, which has %s, could not be reached; restore it with skip=%s",
			strings.Join(c.strange, ", "), c, skipMACs)
	case !c.changed:
		return content, nil
	}
	return closed(doc)
}

// cards are the network cards of a machine, and how a document fared with them.
type cards struct {
	macs, names []string // of the same card at the same place
	known       int      // cards that the document means and that are here
	strange     []string // those that are not
	changed     bool
}

func newCards(links []sys.Link) *cards {
	c := &cards{}
	for _, l := range links {
		if l.Physical {
			c.macs, c.names = append(c.macs, strings.ToLower(l.Hwaddr)), append(c.names, l.Name)
		}
	}
	return c
}

func (c *cards) String() string {
	var all []string
	for i, name := range c.names {
		all = append(all, name+" "+c.macs[i])
	}
	if all == nil {
		return "none"
	}
	return strings.Join(all, ", ")
}

// devices looks at a list of interfaces or bonds. The document has been checked,
// so that what is of another type is not there.
func (c *cards) devices(v any, byName bool) {
	list, _ := v.([]any)
	for _, d := range list {
		device, _ := d.(map[string]any)
		name, _ := device["name"].(string)
		if hwaddr, _ := device["hwaddr"].(string); hwaddr != "" {
			device["hwaddr"] = c.card(hwaddr, name, byName)
		}
		members, _ := device["members"].([]any)
		for i, m := range members {
			if hwaddr, _ := m.(string); hwaddr != "" {
				members[i] = c.card(hwaddr, "", byName)
			}
		}
	}
}

// card returns how a document should call the card that it calls hwaddr.
func (c *cards) card(hwaddr, name string, byName bool) string {
	switch {
	case slices.Contains(c.macs, strings.ToLower(hwaddr)), slices.Contains(c.names, hwaddr):
		c.known++
		return hwaddr
	case byName && slices.Contains(c.names, name):
		c.known++
		c.changed = true
		return name
	}
	c.strange = append(c.strange, strings.TrimSpace(name+" "+hwaddr))
	return hwaddr
}
