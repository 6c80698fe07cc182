package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/incusos/incusos/internal/publish"
)

func serveCommand() *cobra.Command {
	var address, cert, key, token string
	c := &cobra.Command{
		Use:   "serve REPO",
		Short: "Serve an update repository.",
		Long: `Serve an update repository.

For labs, and for those who have no web server: any other that answers range
requests does as well. Only what machines need is served. With --token-file, a
machine has to bring the token that is in the file.`,
		Example: `  incusos serve updates
  incusos serve --listen :8443 --certificate server.crt --key server.key --token-file token updates`,
		Args: operands("REPO"),
		RunE: func(c *cobra.Command, args []string) error {
			return cannot("serve the repository", serve(c, args[0], address, cert, key, token))
		},
	}
	c.Flags().StringVar(&address, "listen", ":8080", "listen on `ADDRESS`")
	c.Flags().StringVar(&cert, "certificate", "", "speak TLS with the certificate in `FILE` (PEM)")
	c.Flags().StringVar(&key, "key", "", "and its private key in `FILE`")
	c.Flags().StringVar(&token, "token-file", "", "ask for the token in `FILE`")
	return c
}

func serve(c *cobra.Command, dir, address, cert, key, tokenFile string) error {
	token, err := readToken(tokenFile)
	if err != nil {
		return err
	}
	if (cert == "") != (key == "") {
		return errors.New("want both --certificate and --key, or neither")
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close() //nolint:errcheck // only read
	var lc net.ListenConfig
	l, err := lc.Listen(c.Context(), "tcp", address)
	if err != nil {
		return err
	}
	fmt.Fprintf(c.OutOrStdout(), "Serving %s on %s\n", dir, l.Addr())
	srv := &http.Server{Handler: publish.Handler(root, token), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute}
	stop := context.AfterFunc(c.Context(), func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		srv.Shutdown(ctx) //nolint:errcheck // it ends all the same
	})
	defer stop()
	if cert != "" {
		err = srv.ServeTLS(l, cert, key)
	} else {
		err = srv.Serve(l)
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}
