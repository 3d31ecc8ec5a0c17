package patchlog

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
)

// line is an entry as it stands in the host's file and on a pod's stdout: one JSON object per line.
type line struct {
	// Sequence numbers the entries of a host, from 1 and without a gap but for those that people had deleted; an echo of the
	// manager has none.
	Sequence uint64 `json:"sequence,omitempty"`
	Entry
}

func (l line) encode() ([]byte, error) {
	l.Time = l.Time.UTC()
	var data bytes.Buffer
	encoder := json.NewEncoder(&data)
	// People read the file: "1 -> 2" and not "1 -\u003e 2".
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(l); err != nil {
		return nil, fmt.Errorf("encoding the entry %s: %w", l.Reason, err)
	}
	return data.Bytes(), nil
}

func printLine(w io.Writer, l line) error {
	data, err := l.encode()
	if err != nil {
		return err
	}
	if _, err := w.Write(data); err != nil {
		return fmt.Errorf("printing the entry %s: %w", l.Reason, err)
	}
	return nil
}
