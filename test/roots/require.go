package roots

import (
	"os"
	"testing"
)

// Require skips a test where lacks, the answer of [Supported] or its like, says what this machine lacks
// for it. Under CI=true the test fails instead.
func Require(tb testing.TB, lacks error) {
	tb.Helper()
	switch {
	case lacks == nil:
	case os.Getenv("CI") == "true":
		tb.Fatalf("CI has to run this: %v", lacks)
	default:
		tb.Skip(lacks)
	}
}
