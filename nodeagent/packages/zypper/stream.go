package zypper

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
)

// The elements of zypper's XML that are read. What is not needed is left out,
// above all the descriptions, which are most of the output.
type (
	message struct {
		Type string `xml:"type,attr"`
		Text string `xml:",chardata"`
	}
	progress struct {
		ID   string `xml:"id,attr"`
		Name string `xml:"name,attr"`
		// Done is "1" if it succeeded, "0" if it failed (the schema says the
		// opposite), and empty while it goes on.
		Done string `xml:"done,attr"`
	}
	prompt struct {
		Description string `xml:"description"`
		Text        string `xml:"text"`
	}
	updateStatus struct {
		Updates []update `xml:"update-list>update"`
		// Blocked wait for an update of zypper itself, if zypper is asked for patches.
		Blocked []update `xml:"blocked-update-list>update"`
	}
	update struct {
		Kind       string  `xml:"kind,attr"`
		Name       string  `xml:"name,attr"`
		Edition    string  `xml:"edition,attr"`
		Arch       string  `xml:"arch,attr"`
		EditionOld string  `xml:"edition-old,attr"`
		Category   string  `xml:"category,attr"`
		Severity   string  `xml:"severity,attr"`
		Source     source  `xml:"source"`
		Issues     []issue `xml:"issue-list>issue"`
	}
	source struct {
		Alias string `xml:"alias,attr"`
	}
	issue struct {
		Type string `xml:"type,attr"`
		ID   string `xml:"id,attr"`
	}
	lockList struct {
		Locks []lock `xml:"lock"`
	}
	lock struct {
		Matches []match `xml:"matches>match"`
	}
	match struct {
		Kind      string `xml:"kind,attr"`
		Name      string `xml:"name,attr"`
		Edition   string `xml:"edition,attr"`
		Arch      string `xml:"arch,attr"`
		Installed string `xml:"installed,attr"`
	}
	repositoryList struct {
		Repositories []repository `xml:"repo"`
	}
	repository struct {
		Alias   string   `xml:"alias,attr"`
		Name    string   `xml:"name,attr"`
		Enabled string   `xml:"enabled,attr"`
		URLs    []string `xml:"url"`
	}
	installSummary struct {
		// DownloadSize is in bytes, without what is in the cache.
		DownloadSize int64     `xml:"download-size,attr"`
		Sections     []section `xml:",any"`
	}
	section struct {
		XMLName   xml.Name
		Solvables []solvable `xml:"solvable"`
	}
	solvable struct {
		Type    string `xml:"type,attr"`
		Kind    string `xml:"kind,attr"`
		Name    string `xml:"name,attr"`
		Edition string `xml:"edition,attr"`
		Arch    string `xml:"arch,attr"`
	}
	searchResult struct {
		Solvables []solvable `xml:"solvable-list>solvable"`
	}
	downloadResult struct {
		Package conflicting `xml:"solvable"`
		File    struct {
			Path string `xml:"path,attr"`
		} `xml:"localfile"`
	}
	fileConflictSummary struct {
		Conflicts []fileConflict `xml:"fileconflicts>fileconflict"`
	}
	fileConflict struct {
		Left  conflictSide `xml:"lhs"`
		Right conflictSide `xml:"rhs"`
	}
	conflictSide struct {
		File    string      `xml:"file"`
		Package conflicting `xml:"solvable"`
	}
	// conflicting is a package in the other of the two forms that zypper has.
	conflicting struct {
		Name    string `xml:"name"`
		Edition struct {
			Epoch   string `xml:"epoch,attr"`
			Version string `xml:"version,attr"`
			Release string `xml:"release,attr"`
		} `xml:"edition"`
		Arch string `xml:"arch"`
	}
)

// elementOf returns a new value for an element of the stream; nil for those that
// are not read.
func elementOf(name string) any {
	switch name {
	case "message":
		return &message{}
	case "progress":
		return &progress{}
	case "prompt":
		return &prompt{}
	case "update-status":
		return &updateStatus{}
	case "locks":
		return &lockList{}
	case "repo-list":
		return &repositoryList{}
	case "install-summary":
		return &installSummary{}
	case "search-result":
		return &searchResult{}
	case "download-result":
		return &downloadResult{}
	case "fileconflict-summary":
		return &fileConflictSummary{}
	}
	return nil
}

// parseStream reads what zypper printed with --xmlout: a document of one
// element, "stream". Text between its elements has no meaning, by the schema;
// text around it is refused. With an error it returns what it read before.
func parseStream(tool string, output []byte) ([]any, error) {
	not := func(d *xml.Decoder, format string, args ...any) error {
		line, _ := d.InputPos()
		return notUnderstood(tool, line, "", fmt.Sprintf(format, args...))
	}
	d := xml.NewDecoder(bytes.NewReader(sanitize(output)))
	var elements []any
	inside, ended := false, false
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			if !ended {
				return elements, not(d, "it has no <stream>, or no end of it")
			}
			return elements, nil
		}
		if err != nil {
			return elements, not(d, "it is not XML: %v", err)
		}
		switch token := token.(type) {
		case xml.StartElement:
			if !inside {
				if ended || token.Name.Local != "stream" {
					return elements, not(d, "an element <%s> outside of <stream>", token.Name.Local)
				}
				inside = true
				continue
			}
			element := elementOf(token.Name.Local)
			if element == nil {
				err = d.Skip()
			} else {
				err = d.DecodeElement(element, &token)
			}
			if err != nil {
				return elements, not(d, "its element <%s> cannot be read: %v", token.Name.Local, err)
			}
			if element != nil {
				elements = append(elements, element)
			}
		case xml.EndElement:
			inside, ended = false, true
		case xml.CharData:
			if text := strings.TrimSpace(string(token)); !inside && text != "" {
				return elements, not(d, "text outside of <stream>")
			}
		}
	}
}

// sanitize replaces what XML does not allow. Summaries and the output of scripts
// are passed on by zypper as they are, and scripts like to print in colour.
func sanitize(output []byte) []byte {
	valid := func(r rune) bool {
		return r == '\t' || r == '\n' || r == '\r' || r >= 0x20 && r != utf8.RuneError && r != 0xFFFE && r != 0xFFFF
	}
	if bytes.IndexFunc(output, func(r rune) bool { return !valid(r) }) < 0 {
		return output
	}
	return bytes.Map(func(r rune) rune {
		if valid(r) {
			return r
		}
		return utf8.RuneError
	}, output)
}

// find is the first element of a type in the stream, and whether there is one.
func find[T any](a *answer) (*T, bool) {
	for _, element := range a.elements {
		if found, is := element.(*T); is {
			return found, true
		}
	}
	return nil, false
}

// notUnderstood is the error of output that is not what the tool prints.
func notUnderstood(tool string, line int, text, problem string) error {
	return &packages.ParseError{Tool: tool, Line: line, Text: shorten(text, 200), Problem: problem}
}

// shorten cuts text at a number of bytes, without leaving half a letter.
func shorten(text string, longest int) string {
	if len(text) > longest {
		text = text[:longest]
	}
	return strings.ToValidUTF8(text, "\uFFFD")
}
