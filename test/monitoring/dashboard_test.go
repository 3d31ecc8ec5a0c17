package monitoring

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"
)

// dashboard is what is read here of the dashboard.
type dashboard struct {
	UID        string `json:"uid"`
	Templating struct {
		List []struct {
			Name string `json:"name"`
		} `json:"list"`
	} `json:"templating"`
	Panels []panel `json:"panels"`
}

type panel struct {
	ID          int    `json:"id"`
	Title       string `json:"title"`
	Description string `json:"description"`
	Datasource  struct {
		UID string `json:"uid"`
	} `json:"datasource"`
	GridPos struct{ X, Y, W, H int } `json:"gridPos"`
	Targets []struct {
		Expr string `json:"expr"`
	} `json:"targets"`
	FieldConfig struct {
		Defaults struct {
			Unit string `json:"unit"`
		} `json:"defaults"`
	} `json:"fieldConfig"`
}

func readDashboard(t *testing.T) dashboard {
	t.Helper()
	text, err := os.ReadFile(shipped("grafana", "nodepatch.json"))
	if err != nil {
		t.Fatal(err)
	}
	var read dashboard
	if err := json.NewDecoder(bytes.NewReader(text)).Decode(&read); err != nil {
		t.Fatal(err)
	}
	return read
}

func TestTheDashboardIsInOrder(t *testing.T) {
	board := readDashboard(t)
	used, ids := map[string]bool{}, map[int]bool{}
	cells := map[[2]int]string{}
	for _, p := range board.Panels {
		switch {
		case ids[p.ID]:
			t.Errorf("%s: another panel has its id %d", p.Title, p.ID)
		case p.Title == "" || p.Description == "" || p.FieldConfig.Defaults.Unit == "":
			t.Errorf("Panel %d %q has no title, description or unit", p.ID, p.Title)
		case p.Datasource.UID != "${datasource}":
			t.Errorf("%s: it does not ask the Prometheus that is chosen", p.Title)
		case len(p.Targets) == 0:
			t.Errorf("%s: it asks nothing", p.Title)
		case p.GridPos.W < 1 || p.GridPos.H < 1 || p.GridPos.X+p.GridPos.W > 24:
			t.Errorf("%s: it does not fit into 24 columns", p.Title)
		}
		ids[p.ID] = true
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other := cells[[2]int{x, y}]; other != "" {
					t.Fatalf("%s lies over %s", p.Title, other)
				}
				cells[[2]int{x, y}] = p.Title
			}
		}
		for _, target := range p.Targets {
			for _, v := range board.Templating.List {
				used[v.Name] = used[v.Name] || strings.Contains(target.Expr, "$"+v.Name)
			}
		}
	}
	for _, name := range []string{"policy", "node"} {
		if !used[name] {
			t.Errorf("No query uses the variable %s", name)
		}
	}
}
