package e2e

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
)

// TestLongIdle measures the controllers in an idle cluster of 1,000 namespaces. The binary is
// built without the race detector, which multiplies memory.
func TestLongIdle(t *testing.T) {
	t.Parallel() // it mostly waits
	const n, minutes = 1000, 4
	const maxRSS = 60_000_000 // 44 MB were measured with the default GOGC
	binary := filepath.Join(t.TempDir(), "sakeeper")
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-tags", "grpcnotrace", "-o", binary, "./cmd/sakeeper")
	build.Dir, build.Env = "..", append(build.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v: %s", err, out)
	}
	p := newControlPlane(t)
	start := func() *controlplane.Sakeeper {
		s, err := controlplane.StartSakeeper(binary, p.sakeeperArgs(t), nil)
		must(t, err)
		t.Cleanup(func() { _ = s.Stop() })
		must(t, s.WaitReady(t.Context()))
		return s
	}
	first := start()
	forEach(t, n, func(ctx context.Context, i int) error {
		_, err := p.client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("n%04d", i)}}, metav1.CreateOptions{})
		return err
	})
	eventually(t, "every CA", func(ctx context.Context) error {
		found, err := p.client.CoreV1().ConfigMaps("").List(ctx, metav1.ListOptions{FieldSelector: "metadata.name=kube-root-ca.crt"})
		if err == nil && len(found.Items) < n {
			err = fmt.Errorf("%d of %d", len(found.Items), n)
		}
		return err
	})
	t.Logf("resident memory of who made everything: %d MiB", resident(t, first)>>20)
	must(t, first.Stop())

	second := start()
	mark := mustMark(t, p.ControlPlane)
	time.Sleep(minutes * time.Minute) // the idle time is what is measured
	idle := requests(t, p.ControlPlane, mark, "")
	rss := resident(t, second)
	t.Logf("%d namespaces: %d MiB resident, %d requests in %d minutes but for the lease, events and watches: %v", n, rss>>20, len(idle), minutes, controlplane.Count(idle))
	if len(idle) >= minutes {
		t.Errorf("%d requests in %d minutes", len(idle), minutes)
	}
	if rss >= maxRSS {
		t.Errorf("%d bytes are resident, %d are allowed", rss, int64(maxRSS))
	}
}

var residentMetric = regexp.MustCompile(`(?m)^process_resident_memory_bytes (\S+)$`)

func resident(t *testing.T, s *controlplane.Sakeeper) int64 {
	t.Helper()
	_, metrics, err := s.Get(t.Context(), "/metrics")
	must(t, err)
	found := residentMetric.FindStringSubmatch(metrics)
	if found == nil {
		t.Fatal("/metrics has no resident memory")
	}
	bytes, err := strconv.ParseFloat(found[1], 64)
	must(t, err)
	return int64(bytes)
}
