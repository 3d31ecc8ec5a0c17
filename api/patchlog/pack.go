package patchlog

import (
	"strings"
	"unicode/utf8"
)

// Change names a patch with both its versions, as entries show it.
func Change(name, installed, available string) string {
	if installed == "" {
		return name + " " + available
	}
	return name + " " + installed + " -> " + available
}

// Pack puts items, in their order, into as few notes as possible, each of at most MaxNote bytes and
// each beginning with prefix. Nothing is lost: an item that is longer than a note is continued in the
// next one. A prefix longer than half a note is cut. Without items there is one note, the prefix.
func Pack(prefix string, items []string) []string {
	const separator = ", "
	prefix = cut(strings.ToValidUTF8(prefix, "\uFFFD"), MaxNote/2)
	var notes []string
	current := prefix
	empty := true
	for _, item := range items {
		item = strings.ToValidUTF8(item, "\uFFFD")
		if !empty {
			if len(current)+len(separator)+len(item) <= MaxNote {
				current += separator + item
				continue
			}
			notes = append(notes, current)
			current = prefix
		}
		for len(current)+len(item) > MaxNote {
			end := MaxNote - len(current)
			for !utf8.RuneStart(item[end]) {
				end--
			}
			notes = append(notes, current+item[:end])
			item = item[end:]
			current = prefix
		}
		current += item
		empty = false
	}
	return append(notes, current)
}
