package process

import (
	"net/http"
	"strings"
	"testing"

	"github.com/sakeeper/sakeeper/cmd/sakeeper/internal/cmdtest"
)

func TestMetricsHandler(t *testing.T) {
	code, body := cmdtest.Get(MetricsHandler(NewRegistry("v1.2.3")), "/metrics")
	if code != http.StatusOK {
		t.Errorf("code %d", code)
	}
	for _, want := range []string{"\nsakeeper_build_info{", `version="v1.2.3"`, "\ngo_goroutines ", "\nprocess_cpu_seconds_total "} {
		if n := strings.Count(body, want); n != 1 {
			t.Errorf("%d times in the metrics, want once: %s", n, want)
		}
	}
}
