package buttons

import (
	"fmt"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// An assignment has a bound, and the newest clear the highest number, whatever is forgotten.
func TestClearsAreBounded(t *testing.T) {
	var clears []v1alpha1.LogClear
	at := func(i int) metav1.MicroTime { return metav1.NewMicroTime(time.Unix(int64(i), 0)) }
	for i := 1; i <= 100; i++ {
		clears = withClear(clears, v1alpha1.LogClear{Task: fmt.Sprintf("task-%d", i), Until: at(i)})
	}
	if n := len(clears); n != v1alpha1.MaxLogClears || clears[0].Task != "task-69" || clears[n-1].Number != 100 {
		t.Errorf("%d clears from %v to %v", n, clears[0], clears[n-1])
	}
	clears = withClear(clears, v1alpha1.LogClear{Task: "task-80", Until: at(101)})
	if n := len(clears); n != v1alpha1.MaxLogClears || clears[n-1].Number != 101 {
		t.Errorf("%d clears, the last is %v", n, clears[n-1])
	}
	clears = withClear(clears, v1alpha1.LogClear{Until: at(102)})
	if len(clears) != 1 || clears[0].Number != 102 {
		t.Errorf("a clear of the whole node leaves %v", clears)
	}
}
