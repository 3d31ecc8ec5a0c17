package blockers

import "testing"

func TestAlertsQuery(t *testing.T) {
	for name, test := range map[string]struct {
		matchers, want string // an empty want: refused
	}{
		"none":                        {``, `ALERTS{alertstate="firing"}`},
		"blank":                       {"  ", `ALERTS{alertstate="firing"}`},
		"empty braces":                {`{}`, `ALERTS{alertstate="firing"}`},
		"all operators":               {`{a="1",b!="2",c=~"3|4",d!~"5.*"}`, `ALERTS{alertstate="firing",a="1",b!="2",c=~"3|4",d!~"5.*"}`},
		"without braces":              {`severity="critical", alertname!="Watchdog"`, `ALERTS{alertstate="firing",severity="critical",alertname!="Watchdog"}`},
		"without quotes":              {`severity=critical`, `ALERTS{alertstate="firing",severity="critical"}`},
		"quotes in a value":           {`path="C:\\a \"b\""`, `ALERTS{alertstate="firing",path="C:\\a \"b\""}`},
		"a value that would leave":    {`a="\"} or vector(1) #"`, `ALERTS{alertstate="firing",a="\"} or vector(1) #"}`},
		"a name outside of ASCII":     {`ä="1"`, `ALERTS{alertstate="firing","ä"="1"}`},
		"an empty value":              {`team=""`, `ALERTS{alertstate="firing",team=""}`},
		"the selector left":           {`{a="1"} or vector(1)`, ``},
		"a regular expression broken": {`a=~"("`, ``},
		"no operator":                 {`severity`, ``},
		"a state of its own":          {`alertstate="pending"`, ``},
		"another series":              {`__name__="up"`, ``},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := alertsQuery(test.matchers)
			if (err == nil) != (test.want != "") || got != test.want {
				t.Errorf("The query is %s, with the error %v, want %s", got, err, test.want)
			}
		})
	}
}
