package task

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// waves divide a run's nodes. After those of the task come two more: of the nodes
// that none of them takes, and of the control plane.
type waves struct {
	list []wave
	// of is the wave of each of the plan's nodes.
	of []int
}

// wave is one of them.
type wave struct {
	// title is what messages call it.
	title string
	soak  time.Duration
	// open says that nodes of it have not ended.
	open bool
	// last is when the last one ended that was disrupted.
	last time.Time
	// limit is the wave's own maxFailures, if it has one.
	limit *int32
}

// divide puts each node into the first wave that takes it, by name.
func (r *run) divide(nodes []Node) waves {
	options := r.template.Rollout.Waves
	rest, last := len(options), len(options)+1
	w := waves{list: make([]wave, last+1), of: make([]int, len(nodes))}
	for i := range nodes {
		w.of[i] = rest
		if !nodes[i].Gone && isControlPlane(nodes[i].object) {
			w.of[i] = last
		}
	}
	for number := range options {
		option := &options[number]
		w.list[number] = wave{title: "The wave " + option.Name, limit: option.MaxFailures}
		if option.Soak != nil {
			w.list[number].soak = option.Soak.Duration
		}
		w.take(nodes, option, number, rest)
	}
	w.list[rest].title, w.list[last].title = "The wave of all other nodes", "The control plane"
	for i := range nodes {
		wave := &w.list[w.of[i]]
		// One that is given up now may yet turn out to have answered.
		wave.open = wave.open || !nodes[i].Place.Ended() || nodes[i].Withdraw
		if nodes[i].Disrupted {
			wave.last = latest(wave.last, nodes[i].Since)
		}
	}
	return w
}

// take moves the nodes that a wave takes to it, out of the rest.
func (w *waves) take(nodes []Node, option *v1alpha1.Wave, number, rest int) {
	most, selector := len(nodes), labels.Everything()
	if option.NodeSelector != nil {
		parsed, err := metav1.LabelSelectorAsSelector(option.NodeSelector)
		if err != nil {
			return // The task was refused, if it ever was this way.
		}
		selector = parsed
	} else {
		most = share(option.Size, len(nodes))
	}
	// A node that is gone stays in the wave that it failed in, and none takes its place.
	for i := range nodes {
		if nodes[i].Gone && nodes[i].wave == option.Name {
			w.of[i] = number
			most--
		}
	}
	for i := range nodes {
		if most > 0 && w.of[i] == rest && !nodes[i].Gone && selector.Matches(labels.Set(nodes[i].object.Labels)) {
			w.of[i], nodes[i].wave = number, option.Name
			most--
		}
	}
}

// begun is the first wave before the one given that has not ended, nil if it may begin.
func (w *waves) begun(before int) *wave {
	for i := range w.list[:before] {
		if w.list[i].open {
			return &w.list[i]
		}
	}
	return nil
}

// soaks is until when the waves before the one given soak, and which of them does the longest.
func (w *waves) soaks(before int) (until time.Time, which *wave) {
	for i := range w.list[:before] {
		wave := &w.list[i]
		if end := wave.last.Add(wave.soak); !wave.last.IsZero() && end.After(until) {
			until, which = end, wave
		}
	}
	return until, which
}

// checkWave wants all waves before the node's own over, and soaked.
func (g *gate) checkWave(w *waiter) *refusal {
	if wave := g.waves.begun(w.wave); wave != nil {
		if w.controlPlane {
			return nil // It is told why by a check of its own.
		}
		return no(v1alpha1.ReasonWave, "%s is not done", wave.title)
	}
	if until, wave := g.waves.soaks(w.wave); until.After(g.in.Now) {
		g.wake(until)
		return no(v1alpha1.ReasonWave, "%s soaks until %s", wave.title, until.UTC().Format(time.RFC3339))
	}
	return nil
}
