package image

// Mirrors returns the archives of Debian that the Builder takes packages from:
// what it was given, or what apt on this host uses.
func (b *Builder) Mirrors() (main, security string, err error) {
	m, err := b.mirror()
	return m.main, m.security, err
}
