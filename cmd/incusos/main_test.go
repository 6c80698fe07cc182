package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/diskfs/go-diskfs"
	"github.com/diskfs/go-diskfs/partition/gpt"
	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/incusos/incusos/internal/verity"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"incusos": func() { os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr)) },
	})
}

// TestScripts runs the program the way people do. Beside what testscript knows,
// scripts have "image FILE", which makes a disk image with a seed partition, and
// "build DIR VERSION", which makes what a build of an image leaves.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"image": func(ts *testscript.TestScript, _ bool, args []string) { ts.Check(makeImage(ts.MkAbs(args[0]))) },
			"build": func(ts *testscript.TestScript, _ bool, args []string) {
				ts.Check(makeBuild(ts.MkAbs(args[0]), args[1]))
			},
		},
	})
}

func TestReferenceIsUpToDate(t *testing.T) {
	got, err := os.ReadFile("../../doc/reference/cli.md")
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != reference(rootCommand()) {
		t.Error("doc/reference/cli.md is not what the code says; run `go generate ./cmd/incusos`")
	}
}

// A person should find out how a command is used without trying.
func TestCommandsOfMachinesShowHowTheyAreUsed(t *testing.T) {
	var look func(c *cobra.Command)
	look = func(c *cobra.Command) {
		for _, sub := range c.Commands() {
			look(sub)
		}
		if !strings.HasSuffix(c.Short, ".") {
			t.Errorf("%s says %q about itself; want a sentence", c.CommandPath(), c.Short)
		}
		if example := "incusos os "; !c.HasSubCommands() && !strings.Contains(c.Example, example) {
			t.Errorf("%s has no example", c.CommandPath())
		}
	}
	for _, c := range rootCommand().Commands() {
		if c.Name() == "os" {
			look(c)
		}
	}
}

// typed is a command in a page: a line that is set apart, or one in backquotes.
var typed = regexp.MustCompile("(?m)^    (?:[a-z]+=\\$\\()?(incusos [^\n|>&)]*)|`(incusos [a-z][^`\n]*)`")

// What a page tells people to type has to be understood.
func TestCommandsInPages(t *testing.T) {
	count := 0
	err := filepath.WalkDir("../..", func(name string, e fs.DirEntry, err error) error {
		if e != nil && e.IsDir() && name != "../.." && strings.HasPrefix(e.Name(), ".") {
			return fs.SkipDir
		}
		if err != nil || filepath.Ext(name) != ".md" || e.Name() == "cli.md" {
			return err
		}
		page, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		for _, found := range typed.FindAllStringSubmatch(string(page), -1) {
			count++
			if err := understand(strings.Fields(found[1] + found[2])[1:]); err != nil {
				t.Errorf("%s: %q: %v", name, found[1]+found[2], err)
			}
		}
		return nil
	})
	if err != nil || count < 15 {
		t.Errorf("looked at %d commands, %v; has the form of the pages changed?", count, err)
	}
}

// understand reads a command line without running it.
func understand(args []string) error {
	root := rootCommand()
	root.InitDefaultCompletionCmd(args...)
	c, rest, err := root.Find(args)
	if err != nil {
		return err
	}
	if err := c.ParseFlags(rest); err != nil && !errors.Is(err, pflag.ErrHelp) {
		return err
	}
	if words := c.Flags().Args(); c.HasSubCommands() && len(words) > 0 {
		return fmt.Errorf("%s has no command %q", c.CommandPath(), words[0])
	}
	return nil
}

func makeImage(file string) error {
	d, err := diskfs.Create(file, 8<<20, diskfs.SectorSize512)
	if err != nil {
		return err
	}
	return errors.Join(d.Partition(&gpt.Table{
		ProtectiveMBR: true, LogicalSectorSize: 512, PhysicalSectorSize: 512,
		Partitions: []*gpt.Partition{
			{Index: 1, Name: "esp", Type: gpt.EFISystemPartition, Start: 2048, End: 4095},
			{Index: 2, Name: "seed-data", Type: gpt.LinuxFilesystem, Start: 4096, End: 8191},
		},
	}), d.Close())
}

// makeBuild makes a build whose file system, kernel and Incus are 40 blocks each.
func makeBuild(dir, version string) error {
	usr := bytes.Repeat([]byte(version+"----"), 40*256)
	tree, err := verity.Build(context.Background(), verity.Superblock{Blocks: 40}, bytes.NewReader(usr))
	if err != nil {
		return err
	}
	base := "IncusOS_" + version
	for name, b := range map[string][]byte{
		"version":                             []byte(version + "\n"),
		base + ".usr-x86-64.0.raw":            usr,
		base + ".usr-x86-64-verity.0.raw":     tree.Bytes(),
		base + ".usr-x86-64-verity-sig.0.raw": fmt.Appendf(nil, `{"rootHash":"%v"}`, tree.Root),
		base + ".efi":                         usr,
		"incus.raw":                           usr,
	} {
		if err := errors.Join(os.MkdirAll(dir, 0o700), os.WriteFile(filepath.Join(dir, name), b, 0o600)); err != nil {
			return err
		}
	}
	return nil
}

// A repository is served until the program is told to stop.
func TestServe(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"metadata/timestamp.json": "{}", "token": "secret\n"} {
		name = filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o700), os.WriteFile(name, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	out, in := io.Pipe()
	ended := make(chan int)
	go func() {
		ended <- run(ctx, []string{"serve", "--listen", "127.0.0.1:0", "--token-file", filepath.Join(dir, "token"), dir}, in, io.Discard)
	}()
	var address string
	if _, err := fmt.Fscanf(out, "Serving "+dir+" on %s\n", &address); err != nil {
		t.Fatal(err)
	}
	for token, want := range map[string]int{"secret": 200, "": 401} {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/metadata/timestamp.json", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		resp, err := http.DefaultClient.Do(req)
		if err != nil || resp.StatusCode != want {
			t.Errorf("with the token %q: %v %v, want %d", token, resp, err, want)
		}
		if err == nil {
			resp.Body.Close() //nolint:errcheck // only read
		}
	}
	stop()
	if code := <-ended; code != 0 {
		t.Errorf("it ended with %d", code)
	}
}
