package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const checkout = "../.."

// What people read is what the code says.
func TestReferenceIsCurrent(t *testing.T) {
	want, err := reference(checkout)
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(checkout, "config", "crd", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(string(got), want) {
		t.Error("config/crd/README.md is not what the code says: run make generate")
	}
	for _, line := range []string{
		"| `Accepted` | manager | on a PatchTask: the run was allowed to begin. |",
		"| `Locked` | agent | another program holds the package manager's lock; the message names it. |",
		"| `TaskFinished` | Normal | manager | a PatchTask | all nodes were done with success. |",
		"| `PatchInstallFailed` | Warning | agent | a Node | installations of patches failed; the note has each with its count and the package manager's words. |",
		"| `LogCleared` | Normal | agent, manager | a PatchTask, a Node or a PatchPolicy | a person had its entries of the patch log deleted. |",
	} {
		if !strings.Contains(want, line+"\n") {
			t.Errorf("the reference does not have %s", line)
		}
	}
}

func TestReferenceRefuses(t *testing.T) {
	const fine = "// Reasons of entries.\nconst (\n// EventHam regards a Node: it has ham.\nEventHam = \"Ham\"\n)\n"
	const entries = "package patchlog\nfunc Ham() Entry { return entry(v1alpha1.EventHam, false) }\n"
	const user = "package task\nvar _ = patchlog.Ham()\n"
	for name, tc := range map[string]struct{ reasons, patchlog, user, want string }{
		"nothing":                    {fine, entries, user, ""},
		"a reason without a comment": {strings.Replace(fine, "// EventHam regards a Node: it has ham.\n", "", 1), entries, user, "EventHam has no comment"},
		"a comment of another shape": {strings.Replace(fine, "regards a Node", "is for a Node", 1), entries, user, "the comment of EventHam does not begin"},
		"a block without a comment":  {strings.Replace(fine, "// Reasons of entries.\n", "", 1), entries, user, "the block of EventHam"},
		"a reason that nobody uses":  {fine, entries, "package task\n", "nobody uses EventHam"},
		"a constructor with a reason of its own": {
			fine, entries + "func Egg() Entry { return entry(\"Egg\", true) }\n", user, "the entries of patchlog.Egg have none of the reasons",
		},
		"several with a reason of their own": {
			fine, entries + "func Eggs() []Entry { return entries(\"Egg\") }\n", user, "the entries of patchlog.Eggs have none of the reasons",
		},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			for path, text := range map[string]string{
				"api/v1alpha1/reasons.go": "package v1alpha1\n\n" + tc.reasons, "api/patchlog/entries.go": tc.patchlog,
				"controllers/task/log.go": tc.user, "nodeagent/main.go": "package main\n",
			} {
				path = filepath.Join(root, path)
				if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			_, err := reference(root)
			if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("the error is %v, want %q", err, tc.want)
			}
		})
	}
}
