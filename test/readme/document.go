// Package readme reads README.md as a person does who follows it: its commands, in
// their order, with the output that it promises. Its test runs all of them.
package readme

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/extension"
	"github.com/yuin/goldmark/text"
)

// Command is something that README tells its reader to run.
type Command struct {
	// Line of README on which it begins, from 1.
	Line int
	// Section is the nearest heading of the second level above it; empty before the first one.
	Section string
	// Text is what the reader types, with its line breaks.
	Text string
	// Output are the lines that README shows below it; see [Shows].
	Output []string
}

func (c Command) String() string { return fmt.Sprintf("README.md:%d: $ %s", c.Line, c.Text) }

// programs begin a command that stands in running text or in a table. A code span of one word is a
// name and not a command.
var programs = []string{"docker", "export", "go", "hack/machine", "hack/undeploy", "helm", "kubectl", "make", "promtool"}

// Commands returns a document's commands in their order:
//
//   - in a block marked console, the lines that begin with "$ ", each with the lines below it as its output;
//   - in a block marked sh, every line that is not empty and not a comment;
//   - a block marked yaml, as a file that the API server must accept;
//   - code spans, wherever they stand, of one of the programs and at least one argument.
//
// A command goes on in the next line after a backslash, and up to the end of a here-document. Blocks
// marked mermaid or text hold no commands; any other mark is an error, so that nothing is passed over.
func Commands(markdown []byte) ([]Command, error) {
	document := goldmark.New(goldmark.WithExtensions(extension.Table)).Parser().Parse(text.NewReader(markdown))
	var (
		found   []Command
		section string
	)
	err := ast.Walk(document, func(node ast.Node, entering bool) (ast.WalkStatus, error) {
		if !entering {
			return ast.WalkContinue, nil
		}
		switch node := node.(type) {
		case *ast.Heading:
			if node.Level == 2 {
				section = words(node, markdown)
			}
		case *ast.FencedCodeBlock:
			commands, err := ofBlock(node, markdown)
			if err != nil {
				return ast.WalkStop, err
			}
			found = append(found, commands...)
			for i := range commands {
				found[len(found)-1-i].Section = section
			}
			return ast.WalkSkipChildren, nil
		case *ast.CodeBlock:
			line := lineNumber(markdown, node.Lines().At(0).Start)
			return ast.WalkStop, fmt.Errorf("line %d: a block without a mark; fence it, and mark commands as sh or console", line)
		case *ast.CodeSpan:
			span := words(node, markdown)
			program, arguments, _ := strings.Cut(span, " ")
			if slices.Contains(programs, program) && arguments != "" {
				found = append(found, Command{Line: lineOf(node, markdown), Section: section, Text: span})
			}
			return ast.WalkSkipChildren, nil
		}
		return ast.WalkContinue, nil
	})
	return found, err
}

// ofBlock returns the commands of a fenced block.
func ofBlock(block *ast.FencedCodeBlock, markdown []byte) ([]Command, error) {
	lines := block.Lines()
	if lines.Len() == 0 {
		return nil, nil
	}
	first := lineNumber(markdown, lines.At(0).Start)
	var content []string
	for i := range lines.Len() {
		line := lines.At(i)
		content = append(content, strings.TrimRight(string(line.Value(markdown)), "\n"))
	}
	switch mark := string(block.Language(markdown)); mark {
	case "console":
		return transcript(content, first), nil
	case "sh":
		return script(content, first), nil
	case "yaml":
		file := "kubectl apply --dry-run=server --validate=strict -f - <<'EOT'\n" + strings.Join(content, "\n") + "\nEOT"
		return []Command{{Line: first, Text: file}}, nil
	case "mermaid", "text":
		return nil, nil
	default:
		return nil, fmt.Errorf("line %d: a block marked %q: mark commands as sh, commands with their output as console, the rest as yaml, mermaid or text", first-1, mark)
	}
}

// transcript splits a terminal's content into its commands and what each has printed.
func transcript(content []string, first int) []Command {
	var found []Command
	for i := 0; i < len(content); i++ {
		if typed, ok := strings.CutPrefix(content[i], "$ "); ok {
			whole, last := throughEnd(content, i, typed)
			found = append(found, Command{Line: first + i, Text: whole})
			i = last
		} else if len(found) > 0 && strings.TrimSpace(content[i]) != "" {
			found[len(found)-1].Output = append(found[len(found)-1].Output, content[i])
		}
	}
	return found
}

// script splits a shell script into its commands.
func script(content []string, first int) []Command {
	var found []Command
	for i := 0; i < len(content); i++ {
		if line := strings.TrimSpace(content[i]); line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		whole, last := throughEnd(content, i, content[i])
		found = append(found, Command{Line: first + i, Text: whole})
		i = last
	}
	return found
}

var hereDocument = regexp.MustCompile(`<<-?'?([A-Z]+)'?`)

// remark is what README says about a command behind it.
var remark = regexp.MustCompile(`\s{2,}# .*$`)

// throughEnd returns the command that begins as typed in line i, and its last line.
func throughEnd(content []string, i int, typed string) (whole string, last int) {
	whole = remark.ReplaceAllString(typed, "")
	for strings.HasSuffix(whole, `\`) && i+1 < len(content) {
		i++
		whole += "\n" + content[i]
	}
	if end := hereDocument.FindStringSubmatch(whole); end != nil {
		for i+1 < len(content) {
			i++
			whole += "\n" + content[i]
			if content[i] == end[1] {
				break
			}
		}
	}
	return whole, i
}

// words returns the text of a heading or a code span, with a line break as a space.
func words(node ast.Node, markdown []byte) string {
	var all strings.Builder
	for child := node.FirstChild(); child != nil; child = child.NextSibling() {
		if part, ok := child.(*ast.Text); ok {
			all.Write(part.Value(markdown))
		} else {
			all.WriteString(words(child, markdown))
		}
	}
	return strings.Join(strings.Fields(all.String()), " ")
}

func lineOf(node ast.Node, markdown []byte) int {
	if part, ok := node.FirstChild().(*ast.Text); ok {
		return lineNumber(markdown, part.Segment.Start)
	}
	return 0
}

func lineNumber(markdown []byte, offset int) int {
	return 1 + bytes.Count(markdown[:offset], []byte("\n"))
}

// number is what differs between two readers: a count, a version, a time, the number in a name.
var number = regexp.MustCompile(`\d[\w.+~:-]*`)

// Shows tells whether an output has all lines that README shows, and returns the first that it lacks. Numbers,
// versions and durations may be others, so may the width of gaps; an ellipsis stands for anything, and a
// line of nothing else for any lines. All words must be there. The order may be another: kubectl sorts
// events by the second.
func Shows(output string, shown []string) (lacks string, ok bool) {
	lines := strings.Split(output, "\n")
	for _, want := range shown {
		if strings.TrimSpace(want) == "…" {
			continue
		}
		at := slices.IndexFunc(lines, like(want).MatchString)
		if at < 0 {
			return want, false
		}
		lines = slices.Delete(lines, at, at+1)
	}
	return "", true
}

// like is a pattern for lines like the one that README shows.
func like(shown string) *regexp.Regexp {
	var fields []string
	for _, field := range strings.Fields(shown) {
		var parts []string
		for _, part := range strings.Split(field, "…") {
			parts = append(parts, aroundNumbers(part))
		}
		fields = append(fields, strings.Join(parts, ".*"))
	}
	return regexp.MustCompile(`^\s*` + strings.Join(fields, `\s+`) + `\s*$`)
}

// aroundNumbers is a pattern for a word, with any other number where it has one.
func aroundNumbers(word string) string {
	var pattern strings.Builder
	end := 0
	for _, at := range number.FindAllStringIndex(word, -1) {
		pattern.WriteString(regexp.QuoteMeta(word[end:at[0]]) + `\d[\w.+~:-]*`)
		end = at[1]
	}
	return pattern.String() + regexp.QuoteMeta(word[end:])
}
