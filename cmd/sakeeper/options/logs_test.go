package options

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
	logsapi "k8s.io/component-base/logs/api/v1"
	"k8s.io/klog/v2"

	"github.com/sakeeper/sakeeper/cmd/sakeeper/internal/cmdtest"
)

func TestVerbosityIsCapped(t *testing.T) {
	cases := map[string]struct {
		in          []string
		want        logsapi.VerbosityLevel
		wantVModule logsapi.VModuleConfiguration
		wantCapped  bool
	}{
		"the default":            {},
		"the last allowed level": {in: []string{"-v=7"}, want: 7},
		"one above it":           {in: []string{"-v=8"}, want: 7, wantCapped: true},
		"far above it":           {in: []string{"-v=99"}, want: 7, wantCapped: true},
		"a file's":               {in: []string{"--vmodule=round_trippers=9,loop=4"}, wantVModule: logsapi.VModuleConfiguration{{FilePattern: "round_trippers", Verbosity: 7}, {FilePattern: "loop", Verbosity: 4}}, wantCapped: true},
		"a file's, within it":    {in: []string{"--vmodule=loop=7"}, wantVModule: logsapi.VModuleConfiguration{{FilePattern: "loop", Verbosity: 7}}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			resetLogs(t)
			t.Cleanup(func() { resetLogs(t) })
			logs := NewLogs()
			flags := pflag.NewFlagSet("logs", pflag.ContinueOnError)
			logs.AddFlags(flags)
			cmdtest.MustNil(t, flags.Parse(tc.in))
			capped, err := logs.Apply()
			if err != nil || capped != tc.wantCapped {
				t.Errorf("capped %t, error %v", capped, err)
			}
			if logs.Verbosity != tc.want {
				t.Errorf("verbosity %d, want %d", logs.Verbosity, tc.want)
			}
			if diff := cmp.Diff(tc.wantVModule, logs.VModule); diff != "" {
				t.Errorf("vmodule (-want +got):\n%s", diff)
			}
			if logger := klog.Background(); logger.V(8).Enabled() || !logger.V(int(tc.want)).Enabled() {
				t.Errorf("klog does not log at %d", tc.want)
			}
		})
	}
}

// resetLogs undoes what was applied to the process. No other goroutine may run.
func resetLogs(t *testing.T) {
	t.Helper()
	cmdtest.MustNil(t, logsapi.ResetForTest(nil))
	klog.StopFlushDaemon()
}
