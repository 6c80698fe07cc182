package apps

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/incusos/incusos/internal/incus"
	"github.com/incusos/incusos/internal/sets"
)

// zfsPool is the pool that the storage area makes, and zfsShown where the
// kernel shows it once it is imported.
const (
	zfsPool  = "local"
	zfsShown = "/proc/spl/kstat/zfs/" + zfsPool
)

// setUp brings Incus to what the seed asks for. It happens once: what is done
// is recorded section by section, so that a later attempt neither repeats it nor
// takes back what the operator changed since. A section that cannot be done does
// not keep the others from being done: with the certificates in place, somebody
// can log in and look.
func (a *Apps) setUp(ctx context.Context, c *incus.Client) error {
	saved := a.saved.Get()
	if saved.Initialized {
		return nil
	}
	a.mu.Lock()
	seed := *a.seed
	a.mu.Unlock()
	p, err := parse(seed)
	if err != nil {
		return fmt.Errorf("setting up Incus: %w", err)
	}
	var all []error
	for _, step := range a.steps(c, p) {
		if slices.Contains(saved.Preseeded, step.key) || !contains(saved.Preseeded, step.needs) {
			continue
		}
		if err := step.run(ctx); err != nil {
			all = append(all, fmt.Errorf("setting up Incus: %w", err))
			continue
		}
		saved.Preseeded = append(saved.Preseeded, step.key)
		if err := a.update(func(s *Saved) { s.Preseeded = saved.Preseeded }); err != nil {
			return errors.Join(append(all, err)...)
		}
	}
	if len(all) > 0 {
		return errors.Join(all...)
	}
	return a.update(func(s *Saved) {
		s.Initialized, s.Preseeded = true, nil
		s.Version = sets.VersionOf(s.Populated[incusName])
	})
}

func contains(all, wanted []string) bool {
	return !slices.ContainsFunc(wanted, func(s string) bool { return !slices.Contains(all, s) })
}

type step struct {
	key   string
	needs []string
	run   func(context.Context) error
}

func (a *Apps) steps(c *incus.Client, p preseed) []step {
	steps := []step{{key: configKey, run: func(ctx context.Context) error { return a.configureIncus(ctx, c, p.config) }}}
	for _, s := range sections() {
		steps = append(steps, step{key: s.key, needs: s.needs, run: func(ctx context.Context) error {
			for _, i := range p.items[s.key] {
				if err := a.ensure(ctx, c, s, i); err != nil {
					return fmt.Errorf("%s %q: %w", s.key, i.text("name"), err)
				}
			}
			return nil
		}})
	}
	return steps
}

func (a *Apps) configureIncus(ctx context.Context, c *incus.Client, config map[string]any) error {
	if err := c.Do(ctx, http.MethodPatch, "/1.0", map[string]any{"config": config}, nil); err != nil {
		return fmt.Errorf("config: %w", err)
	}
	return nil
}

// ensure makes an item exist. See section for what happens to one that does.
func (a *Apps) ensure(ctx context.Context, c *incus.Client, s section, i item) error {
	query := ""
	if project := i.text("project"); project != "" {
		query = "?project=" + url.QueryEscape(project)
	}
	body := maps.Clone(i)
	delete(body, "project")
	one := s.path + "/" + url.PathEscape(s.id(i)) + query
	// Incus also shows devices of the kernel as networks, not managed by it.
	var there struct {
		Managed *bool `json:"managed"`
	}
	err := c.Do(ctx, http.MethodGet, one, nil, &there)
	switch {
	case incus.NotFound(err), err == nil && there.Managed != nil && !*there.Managed:
		return a.create(ctx, c, s, s.path+query, body)
	case err != nil || !s.patch:
		return err
	}
	delete(body, "name")
	return c.Do(ctx, http.MethodPatch, one, body, nil)
}

func (a *Apps) create(ctx context.Context, c *incus.Client, s section, path string, body item) error {
	if s.key == poolsKey && body.options("config")["source"] == zfsPool+"/incus" && !a.host.Files.Exists(zfsShown) {
		return fmt.Errorf("the ZFS pool %q is not imported; see what the storage area says", zfsPool)
	}
	err := c.Do(ctx, http.MethodPost, path, body, nil)
	if s.key == networksKey {
		return a.retryAddressed(ctx, c, path, body, err)
	}
	return err
}

// retryAddressed creates a network again with addresses picked here, if Incus
// did not find any itself. It looks for a subnet in which nobody answers, and
// there are networks in which somebody answers for every address.
func (a *Apps) retryAddressed(ctx context.Context, c *incus.Client, path string, body item, err error) error {
	pick := map[string]func() (string, error){"4": a.freeIPv4, "6": randomIPv6}
	for range len(pick) { // Incus complains of one family at a time
		family := refusedFamily(err)
		config := maps.Clone(body.options("config"))
		key := "ipv" + family + ".address"
		if family == "" || config[key] != auto {
			return err
		}
		address, pickErr := pick[family]()
		if pickErr != nil {
			return errors.Join(err, pickErr)
		}
		config[key] = address
		body["config"] = config
		err = c.Do(ctx, http.MethodPost, path, body, nil)
	}
	return err
}

// refusedFamily returns "4" or "6" if err says that Incus found no subnet of
// that family of addresses, else "".
func refusedFamily(err error) string {
	refused, ok := errors.AsType[*incus.Refusal](err)
	if !ok {
		return ""
	}
	_, rest, _ := strings.Cut(refused.Text, "unused IPv")
	family, _, found := strings.Cut(rest, " subnet")
	if !found || family != "4" && family != "6" {
		return ""
	}
	return family
}

// candidates is how many private subnets are considered.
const candidates = 100

// freeIPv4 returns a private address with its prefix length, on whose subnet
// the machine has no address yet.
func (a *Apps) freeIPv4() (string, error) {
	links, err := a.host.Links.List()
	if err != nil {
		return "", err
	}
	var used []netip.Prefix
	for _, l := range links {
		for _, s := range l.Addresses {
			if p, err := netip.ParsePrefix(s); err == nil {
				used = append(used, p)
			}
		}
	}
	for n := range candidates {
		// Away from the round numbers that people choose.
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(101 + n), byte(37 + 2*n), 1}), 24)
		if !slices.ContainsFunc(used, p.Overlaps) {
			return p.String(), nil
		}
	}
	return "", errors.New("no private IPv4 subnet is free; give the bridge an address in the seed")
}

// randomIPv6 returns an address in a unique local prefix (RFC 4193).
func randomIPv6() (string, error) {
	addr := [16]byte{0: 0xfd, 15: 1}
	if _, err := rand.Read(addr[1:8]); err != nil {
		return "", err
	}
	return netip.PrefixFrom(netip.AddrFrom16(addr), 64).String(), nil
}
