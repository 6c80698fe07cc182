package luks

// Wrap returns a header with any JSON, for fuzzing.
func Wrap(text []byte) []byte {
	const size = 64 << 10
	return encodeCopy("LUKS\xba\xbe", text[:min(len(text), size-binaryHeader-1)], size)
}
