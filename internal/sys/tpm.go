package sys

import (
	"io"
	"os"

	"github.com/google/go-tpm/tpm2/transport"
)

// A TPM is the security chip, as a way to send it commands.
type TPM interface {
	// Open begins a conversation. What is loaded in it is gone after Close.
	// Without a TPM the error is fs.ErrNotExist.
	Open() (TPMConn, error)
}

// A TPMConn is a conversation with a TPM. Send sends a command as the TPM 2.0 Library
// Specification has it, and returns the answer.
type TPMConn interface {
	Send(command []byte) (answer []byte, err error)
	io.Closer
}

// tpmDevice is the TPM behind the kernel's resource manager, so that two
// conversations do not get into each other's way.
const tpmDevice = "/dev/tpmrm0"

type kernelTPM struct{}

func (kernelTPM) Open() (TPMConn, error) {
	f, err := os.OpenFile(tpmDevice, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	return transport.FromReadWriteCloser(f), nil
}
