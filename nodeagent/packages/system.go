package packages

// OS names the host's operating system, as its os-release file does.
type OS struct {
	// ID and VersionID are for programs, such as "debian" and "12".
	ID        string
	VersionID string
	// IDLike are the distributions that this one was made from, the closest first.
	IDLike []string
	// PrettyName is for people, such as "Debian GNU/Linux 12 (bookworm)".
	PrettyName string
}

// Kernel names the kernels of the host by their release, as uname -r does.
type Kernel struct {
	// Running is the release of the running kernel.
	Running string
	// NewestInstalled is the newest installed release of the running kernel's
	// flavour; empty if none is installed, as in a container.
	NewestInstalled string
}
