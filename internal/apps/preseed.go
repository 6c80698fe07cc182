package apps

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"maps"
	"slices"

	"github.com/incusos/incusos/api"
)

// An item is one object of a preseed as Incus takes it: a pool, a network, ...
type item map[string]any

// text returns a field that is text, "" if it is absent or something else.
func (i item) text(field string) string {
	s, _ := i[field].(string)
	return s
}

// options returns a field that is a map, nil if it is absent.
func (i item) options(field string) map[string]any {
	m, _ := i[field].(map[string]any)
	return m
}

// A preseed is what Incus is set up with, checked.
type preseed struct {
	config map[string]any // of the server
	items  map[string][]item
}

// A section is a kind of item: its key in a preseed and its place in the API.
type section struct {
	key    string
	path   string
	fields []string // that an item may have
	patch  bool     // one that exists is changed rather than left alone
	needs  []string // sections that come first
}

const (
	configKey      = "config"
	projectsKey    = "projects"
	poolsKey       = "storage_pools"
	networksKey    = "networks"
	profilesKey    = "profiles"
	certificateKey = "certificates"
)

// sections returns those that are handled, in the order in which they are
// applied. Pools and networks that exist come from an attempt that was cut; the
// default profile and project are always there.
func sections() []section {
	return []section{
		{key: projectsKey, path: "/1.0/projects", patch: true, fields: []string{"name", "description", "config"}},
		{key: poolsKey, path: "/1.0/storage-pools", fields: []string{"name", "description", "driver", "config"}},
		{key: networksKey, path: "/1.0/networks", needs: []string{projectsKey}, fields: []string{"name", "description", "type", "config", "project"}},
		{
			key: profilesKey, path: "/1.0/profiles", patch: true, needs: []string{projectsKey, poolsKey, networksKey},
			fields: []string{"name", "description", "config", "devices", "project"},
		},
		{
			key: certificateKey, path: "/1.0/certificates", needs: []string{projectsKey},
			fields: []string{"name", "type", "certificate", "description", "restricted", "projects"},
		},
	}
}

// The names of what apply_defaults makes.
const (
	defaultPool    = "local"
	defaultBridge  = "incusbr0"
	defaultAddress = ":8443"
	auto           = "auto"
)

// parse checks a seed completely and returns what it asks for, defaults
// included. An error is a FieldError below "preseed".
func parse(seed api.SeedIncus) (preseed, error) {
	p := preseed{config: map[string]any{}, items: make(map[string][]item)}
	handled := []string{configKey}
	for _, s := range sections() {
		handled = append(handled, s.key)
		items, err := s.parse(seed.Preseed[s.key])
		if err != nil {
			return preseed{}, err
		}
		p.items[s.key] = items
	}
	for _, key := range slices.Sorted(maps.Keys(seed.Preseed)) {
		if !slices.Contains(handled, key) {
			return preseed{}, api.Fieldf("preseed."+key, "is not handled by this release; take it out and set it up over the API of Incus")
		}
	}
	if raw, ok := seed.Preseed[configKey]; ok && raw != nil {
		config, err := options("preseed.config", raw)
		if err != nil {
			return preseed{}, err
		}
		p.config = config
	}
	if _, ok := p.config["core.https_address"]; !ok {
		p.config["core.https_address"] = defaultAddress
	}
	if seed.ApplyDefaults {
		p.addDefaults()
	}
	return p, nil
}

// parse checks the items of one section.
func (s section) parse(raw any) ([]item, error) {
	if raw == nil {
		return nil, nil
	}
	field := "preseed." + s.key
	list, ok := raw.([]any)
	if !ok {
		return nil, api.Fieldf(field, "is no list")
	}
	var items []item
	for n, v := range list {
		i, err := s.item(fmt.Sprintf("%s[%d]", field, n), v)
		if err != nil {
			return nil, err
		}
		items = append(items, i)
	}
	return items, nil
}

func (s section) item(field string, raw any) (item, error) {
	given, ok := raw.(map[string]any)
	if !ok {
		return nil, api.Fieldf(field, "is no mapping")
	}
	i := item(maps.Clone(given))
	for _, key := range slices.Sorted(maps.Keys(i)) {
		if !slices.Contains(s.fields, key) {
			return nil, api.Fieldf(field+"."+key, "is unknown; want one of %q", s.fields)
		}
	}
	if s.key == certificateKey {
		return certificate(field, i)
	}
	if i.text("name") == "" {
		return nil, api.Fieldf(field+".name", "is missing")
	}
	if err := i.stringify(field); err != nil {
		return nil, err
	}
	return i, nil
}

// stringify makes values text, which is all Incus takes, since YAML makes
// numbers and booleans of what people write.
func (i item) stringify(field string) error {
	if raw, ok := i["config"]; ok && raw != nil {
		config, err := options(field+".config", raw)
		if err != nil {
			return err
		}
		i["config"] = config
	}
	raw, ok := i["devices"]
	if !ok || raw == nil {
		return nil
	}
	given, ok := raw.(map[string]any)
	if !ok {
		return api.Fieldf(field+".devices", "is no mapping")
	}
	devices := make(map[string]any)
	for name, device := range given {
		d, err := options(field+".devices."+name, device)
		if err != nil {
			return err
		}
		devices[name] = d
	}
	i["devices"] = devices
	return nil
}

func options(field string, raw any) (map[string]any, error) {
	given, ok := raw.(map[string]any)
	if !ok {
		return nil, api.Fieldf(field, "is no mapping")
	}
	out := make(map[string]any)
	for key, value := range given {
		switch v := value.(type) {
		case nil:
			out[key] = ""
		case map[string]any, []any:
			return nil, api.Fieldf(field+"."+key, "is no text, number or boolean")
		case float64: // JSON has no other numbers; %v would write 1e+06
			out[key] = fmt.Sprintf("%.0f", v)
			if v != float64(int64(v)) {
				out[key] = fmt.Sprint(v)
			}
		default:
			out[key] = fmt.Sprint(v)
		}
	}
	return out, nil
}

// certificate turns PEM, which people have, into base64 of DER, which Incus
// wants.
func certificate(field string, i item) (item, error) {
	block, _ := pem.Decode([]byte(i.text("certificate")))
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, api.Fieldf(field+".certificate", "is no certificate in PEM; want text that begins with -----BEGIN CERTIFICATE-----")
	}
	i["certificate"] = base64.StdEncoding.EncodeToString(block.Bytes)
	if i.text("type") == "" {
		i["type"] = "client"
	}
	return i, nil
}

// id is the last element of the item's path in the API.
func (s section) id(i item) string {
	if s.key != certificateKey {
		return i.text("name")
	}
	der, err := base64.StdEncoding.DecodeString(i.text("certificate"))
	if err != nil {
		return "" // certificate encoded it
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}

// addDefaults adds a pool, a bridge, and the devices of the default profile
// that use them. Where the seed brings pools or networks of its own, there is
// no default one, unless the seed's has the same name and thus adds to it.
func (p *preseed) addDefaults() {
	devices := map[string]any{}
	if p.lays(poolsKey, defaultPool) {
		p.underlay(poolsKey, item{
			"name": defaultPool, "driver": "zfs", "description": "Local storage pool (on system drive)",
			"config": map[string]any{"source": zfsPool + "/incus"},
		})
		devices["root"] = map[string]any{"type": "disk", "path": "/", "pool": defaultPool}
	}
	if p.lays(networksKey, defaultBridge) {
		p.underlay(networksKey, item{
			"name": defaultBridge, "type": "bridge", "description": "Local network bridge (NAT)",
			"config": map[string]any{"ipv4.address": auto, "ipv6.address": auto},
		})
		devices["eth0"] = map[string]any{"type": "nic", "name": "eth0", "network": defaultBridge}
	}
	p.underlay(profilesKey, item{"name": "default", "description": "Default Incus profile", "devices": devices})
}

// lays reports whether the default item of a section is to be made.
func (p *preseed) lays(key, name string) bool {
	return len(p.items[key]) == 0 || p.find(key, name) >= 0
}

// find returns the index of an item of the default project, -1 if there is none.
func (p *preseed) find(key, name string) int {
	return slices.IndexFunc(p.items[key], func(i item) bool {
		project := i.text("project")
		return i.text("name") == name && (project == "" || project == "default")
	})
}

// underlay adds an item, or fills in what the seed's item of that name lacks.
func (p *preseed) underlay(key string, base item) {
	n := p.find(key, base.text("name"))
	if n < 0 {
		p.items[key] = append([]item{base}, p.items[key]...)
		return
	}
	over := p.items[key][n]
	for field, value := range base {
		switch _, ok := over[field]; {
		case !ok:
			over[field] = value
		case field == "config" || field == "devices":
			merged := maps.Clone(base.options(field))
			maps.Copy(merged, over.options(field))
			over[field] = merged
		}
	}
}
