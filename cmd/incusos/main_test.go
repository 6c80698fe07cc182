package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
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
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"incusos": func() { os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr)) },
	})
}

// TestScripts runs the program the way people do. Beside what testscript knows,
// scripts have "image FILE", which makes a disk image with a seed partition.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"image": func(ts *testscript.TestScript, _ bool, args []string) { ts.Check(makeImage(ts.MkAbs(args[0]))) },
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
