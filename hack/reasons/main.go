// Command reasons writes the part of the API reference about conditions, reasons and entries of the patch log, which are
// constants and not types: their meaning is the comment in api/v1alpha1/reasons.go, and who uses them stands in the code.
// It fails if one of them is not documented or nobody uses it.
package main

import (
	"fmt"
	"io"
	"os"
	"strings"
)

func main() {
	text, err := reference(".")
	if err == nil {
		_, err = io.WriteString(os.Stdout, text)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "reasons:", err)
		os.Exit(1)
	}
}

// reference is the text, in Markdown, for the checkout at root.
func reference(root string) (string, error) {
	source, err := read(root)
	if err != nil {
		return "", err
	}
	if err := source.check(); err != nil {
		return "", err
	}
	var text strings.Builder
	text.WriteString("\n## Conditions, reasons and entries of the patch log\n\n" +
		"By names the programs that set it or act on it, and of an entry of the patch log who writes it: the manager, or the node's agent.\n")
	for _, group := range source.groups {
		fmt.Fprintf(&text, "\n### %s\n\n", strings.TrimSuffix(group.title, "."))
		if group.events() {
			text.WriteString("| Reason | Level | By | Regards | Meaning |\n| --- | --- | --- | --- | --- |\n")
		} else {
			text.WriteString("| Value | By | Meaning |\n| --- | --- | --- |\n")
		}
		for _, c := range group.constants {
			by := strings.Join(source.users(c), ", ")
			if !c.event() {
				fmt.Fprintf(&text, "| `%s` | %s | %s |\n", c.value, by, c.meaning())
				continue
			}
			regards, meaning, _ := strings.Cut(c.meaning(), ": ")
			fmt.Fprintf(&text, "| `%s` | %s | %s | %s | %s |\n", c.value, source.level(c), by, strings.TrimPrefix(regards, "regards "), meaning)
		}
	}
	return text.String(), nil
}
