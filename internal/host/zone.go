package host

import (
	"cmp"
	"fmt"

	"github.com/incusos/incusos/api"
)

const (
	localtime = "/etc/localtime" // localtime(5)
	zoneinfo  = "/usr/share/zoneinfo/"
	utc       = "UTC"
)

// CheckZone refuses a time zone that this system does not know.
func (h *Host) CheckZone(name string) error {
	if fi, err := h.host.Files.Stat(zoneinfo + name); name == "" || name == utc || err == nil && fi.Mode().IsRegular() {
		return nil
	}
	return api.Fieldf("time.timezone", "%q is no time zone that this system knows; want one of the IANA database, such as %q", name, "Europe/Paris")
}

// setZone makes local time that of the zone the operator chose. Programs that
// run already go on with what they have.
func (h *Host) setZone(name string) error {
	name = cmp.Or(name, utc)
	if h.inZone(name) {
		return nil
	}
	if err := h.CheckZone(name); err != nil {
		return err
	}
	if err := h.host.Files.Symlink(".."+zoneinfo+name, localtime); err != nil {
		return fmt.Errorf("setting the time zone: %w", err)
	}
	return nil
}

// inZone reports whether local time is that of a zone.
func (h *Host) inZone(name string) bool {
	now, err := h.host.Files.Readlink(localtime)
	return err == nil && (now == ".."+zoneinfo+name || now == zoneinfo+name)
}
