package early

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"

	"github.com/incusos/incusos/internal/sets"
	"github.com/incusos/incusos/internal/sys"
)

const (
	active = sysroot + sets.Links // links to the images of applications
	shown  = sysroot + "/run"     // where systemd-sysext sees files instead
)

// merge puts the applications of the version that starts into /usr while nothing
// runs from it, so that the service manager finds their units the first time it
// looks. Only images whose root hash is signed by a key in the firmware's db are
// taken; the kernel checks it. Without them the machine starts all the same, and
// package apps tries again.
func merge(ctx context.Context, host sys.Host) error {
	return errors.Join(point(host.Files), mergeActive(ctx, host))
}

// point has the links lead to the set of the version that starts. One of which
// nothing was written down starts with what is active.
func point(files sys.Dir) error {
	root := sys.NewDir(files.Path(sysroot))
	version := sets.Running(root)
	set, err := sets.Open(root).Of(version)
	if err != nil || len(set.Now) == 0 {
		return err
	}
	missing, err := sets.Point(root, set.Now)
	for _, i := range missing {
		err = errors.Join(err, fmt.Errorf("application %q %s belongs to version %s and is not stored", i.Name, i.Version, version))
	}
	return err
}

func mergeActive(ctx context.Context, host sys.Host) error {
	links, err := host.Files.ReadDir(active)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(links) == 0 {
		return nil // the first boot
	}
	if err == nil {
		err = mergeLinks(ctx, host, links)
	}
	if err != nil {
		return fmt.Errorf("merging the applications: %w", err)
	}
	return nil
}

// mergeLinks shows systemd-sysext a file for each link: below another root than
// "/" it follows none (systemd 257), and what it then does not find is no error.
// The files are mounts, which go again before anybody else sees them.
func mergeLinks(ctx context.Context, host sys.Host, links []fs.DirEntry) (err error) {
	if err := host.Files.MkdirAll(shown, 0o755); err != nil {
		return err
	}
	if err := host.Mounts.Mount("tmpfs", shown, "tmpfs", "mode=0755", "nodev", "nosuid", "noexec"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, host.Mounts.Unmount(shown)) }()
	if err := host.Files.MkdirAll(shown+"/extensions", 0o755); err != nil {
		return err
	}
	for _, link := range links {
		file := path.Join(shown, "extensions", link.Name())
		if err := show(host, path.Join(active, link.Name()), file); err != nil {
			return err
		}
		defer func() { err = errors.Join(host.Mounts.Unmount(file), err) }()
	}
	_, err = host.Exec.Run(ctx, sys.Command("systemd-sysext", "merge", "--root="+sysroot,
		"--image-policy=root=signed+absent:usr=signed+absent"))
	return err
}

// show mounts the image that link names on file. A link's target counts from the
// root of the system to come.
func show(host sys.Host, link, file string) error {
	target, err := host.Files.Readlink(link)
	if err != nil {
		return err
	}
	if !path.IsAbs(target) {
		target = path.Join(path.Dir(link), target)
	} else {
		target = path.Join(sysroot, target)
	}
	if err := host.Files.WriteFile(file, nil, 0o600); err != nil {
		return err
	}
	return host.Mounts.Mount(target, file, "", "bind")
}
