package readme

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestCommands(t *testing.T) {
	for name, test := range map[string]struct {
		markdown string
		want     []Command
		wantErr  bool
	}{
		"a transcript": {
			markdown: "## Try\n\n```console\n$ kubectl get prep\nNAME   MISSING\n\na      1\n$ make \\\n  demo\n```\n",
			want: []Command{
				{Line: 4, Section: "Try", Text: "kubectl get prep", Output: []string{"NAME   MISSING", "a      1"}},
				{Line: 8, Section: "Try", Text: "make \\\n  demo"},
			},
		},
		"a script with a here-document": {
			markdown: "```sh\n# why\nexport A=b    # a\n\nkubectl create -f - <<EOT\nkind: A\n# kept\nEOT\nls\n```\n",
			want: []Command{
				{Line: 3, Text: "export A=b"},
				{Line: 5, Text: "kubectl create -f - <<EOT\nkind: A\n# kept\nEOT"},
				{Line: 9, Text: "ls"},
			},
		},
		"in text and tables, but no names": {
			markdown: "Run `make demo`, with `make`, `exec` or\n`kubectl get\npods`.\n\n## When `kubectl` fails\n\n| a | b |\n|---|---|\n| `kubectl get pt` | `Failed` |\n",
			want: []Command{
				{Line: 1, Text: "make demo"},
				{Line: 2, Text: "kubectl get pods"},
				{Line: 9, Section: "When kubectl fails", Text: "kubectl get pt"},
			},
		},
		"a file": {
			markdown: "```yaml\nkind: A\n```\n",
			want:     []Command{{Line: 2, Text: "kubectl apply --dry-run=server --validate=strict -f - <<'EOT'\nkind: A\nEOT"}},
		},
		"a picture": {markdown: "```mermaid\nflowchart LR\n```\n"},
		"a block that nobody would run": {
			markdown: "```bash\nmake demo\n```\n",
			wantErr:  true,
		},
		"an indented block that nobody would run": {
			markdown: "Run:\n\n    make demo\n",
			wantErr:  true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Commands([]byte(test.markdown))
			if diff := cmp.Diff(test.want, got); diff != "" || (err != nil) != test.wantErr {
				t.Errorf("error %v, and (-want +got):\n%s", err, diff)
			}
		})
	}
}

func TestShows(t *testing.T) {
	const output = `NAME        MISSING   REBOOT        WHY
machine-2   5         NotRequired   3 not installed yet, 1 on hold
machine-1   13        NotRequired   13 not installed yet
  Normal  PatchesInstalled  5s  nodepatch.io/agent  1 patch installed: apt 2.6.1 -> 2.6.1+deb12u1
`
	for name, test := range map[string]struct {
		shown []string
		lacks string
	}{
		"nothing":                   {},
		"other numbers":             {shown: []string{"machine-7   2   NotRequired   1 not installed yet, 3 on hold"}},
		"other gaps":                {shown: []string{"NAME MISSING REBOOT WHY"}},
		"other versions":            {shown: []string{"Normal PatchesInstalled 3m nodepatch.io/agent 2 patch installed: apt 1.0 -> 2:1.1~rc1"}},
		"anything":                  {shown: []string{"Normal  PatchesInstalled … 1 patch inst… apt …"}},
		"any lines":                 {shown: []string{"NAME MISSING REBOOT WHY", "…", "Normal PatchesInstalled …"}},
		"another word":              {shown: []string{"NAME MISSING REBOOT", "Normal …"}, lacks: "NAME MISSING REBOOT"},
		"a word where a number was": {shown: []string{"machine-2 many NotRequired …"}, lacks: "machine-2 many NotRequired …"},
		"another order":             {shown: []string{"Normal …", "NAME …"}},
		"a line twice":              {shown: []string{"NAME …", "NAME …"}, lacks: "NAME …"},
	} {
		t.Run(name, func(t *testing.T) {
			lacks, ok := Shows(output, test.shown)
			if lacks != test.lacks || ok != (test.lacks == "") {
				t.Errorf("lacks %q, %v; want %q", lacks, ok, test.lacks)
			}
		})
	}
}
