package blockers

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/prometheus/alertmanager/matcher/parse"
	"github.com/prometheus/common/model"
)

// alertsQuery is the query for the firing alerts that match: a selector of the
// series ALERTS, which Prometheus writes for every alert. The matchers are those
// of PromQL, with or without braces; as in amtool, values without special
// characters need no quotes. Each is parsed and written again, so that whatever
// was given remains within the selector.
func alertsQuery(matchers string) (string, error) {
	terms := []string{`alertstate="firing"`}
	if strings.TrimSpace(matchers) != "" {
		parsed, err := parse.Matchers(matchers)
		if err != nil {
			return "", err
		}
		for _, matcher := range parsed {
			switch matcher.Name {
			case "alertstate", model.MetricNameLabel:
				// Together with ours it would select nothing, which is taken for no alert.
				return "", fmt.Errorf("%s is not a label of alerts", matcher.Name)
			}
			name := matcher.Name
			if !model.LegacyValidation.IsValidLabelName(name) {
				name = strconv.Quote(name)
			}
			terms = append(terms, name+matcher.Type.String()+strconv.Quote(matcher.Value))
		}
	}
	return "ALERTS{" + strings.Join(terms, ",") + "}", nil
}
