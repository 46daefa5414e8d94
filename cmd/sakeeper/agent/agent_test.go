package agent

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
	authenticationv1 "k8s.io/api/authentication/v1"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/ktesting"

	"github.com/sakeeper/sakeeper/cmd/sakeeper/internal/cmdtest"
	"github.com/sakeeper/sakeeper/pkg/agent"
	"github.com/sakeeper/sakeeper/pkg/token"
)

// configOf is the config of sakeeper agent.
func configOf(t *testing.T, f cmdtest.Files, args ...string) (*Config, error) {
	t.Helper()
	return cmdtest.ConfigOf(t, f, NewCommand, f.WithKubeconfig(t, args)...)
}

func TestAgentOptions(t *testing.T) {
	f := cmdtest.NewFiles(t)
	right := []string{"--namespace=team", "--service-account=robot", "--token-file=%/token"}
	cases := map[string]struct {
		in   []string
		want []string // the lines of the error
	}{
		"what is required":           {in: right},
		"all of it":                  {in: append(right, "--token-file=%/vault=a,b", "--mode=0444", "--owner=0:0", "--symlink-swap", "--exec=true x", "--signal=HUP:1", "--bound-secret=s")},
		"an owner by name":           {in: append(right, "--owner=root:root")},
		"nothing":                    {want: []string{"--token-file is required", "--namespace is required: the credentials are no token that names one", "--service-account is required: the credentials are no token of one"}},
		"a lifetime beyond all":      {in: append(right, "--lifetime=1200000h"), want: []string{"--lifetime: 1200000h0m0s is more than the 1193046h28m16s that API servers accept"}},
		"a pod and a Secret":         {in: append(right, "--bound-pod=p", "--bound-secret=s"), want: []string{"--bound-pod and --bound-secret exclude each other"}},
		"a directory that is absent": {in: append(right, "--token-file=%/none/token"), want: []string{"--token-file: %/none/token: there is no directory %/none"}},
		"a directory":                {in: append(right, "--token-file=%"), want: []string{"--token-file: % is a directory"}},
		"once, with a delay":         {in: append(right, "--once", "--shutdown-delay-duration=1m"), want: []string{"--once and --shutdown-delay-duration exclude each other"}},
		"a file twice":               {in: append(right, "--token-file=%/./token=a"), want: []string{"--token-file: %/token is named twice"}},
		"no audience": {
			in:   []string{"--namespace=team", "--service-account=robot", "--token-file=%/token=a, b,"},
			want: []string{`--token-file: %/token=a, b,: " b" is no audience`, `--token-file: %/token=a, b,: "" is no audience`},
		},
		"everything else that can be wrong, at once": {
			in: []string{
				"--namespace=UPPER", "--service-account=a/b", "--token-file=%/token", "--lifetime=5m", "--mode=999", "--owner=no-such-user:no-such-group",
				"--exec-timeout=0s", "--shutdown-delay-duration=-1s", "--signal=HIP:1", "--metrics-bind-address=x",
			},
			want: []string{
				`--metrics-bind-address: "x" is not [host]:port, nor 0 for off`,
				"--lifetime: 5m0s is less than the 10m that API servers grant",
				"--shutdown-delay-duration: -1s is negative",
				"--exec-timeout: 0s is not positive",
				`--service-account: "a/b": ` + cmdtest.NotADomain,
				`--namespace: "UPPER": ` + cmdtest.NotADomain,
				`--mode: "999" is not octal permissions, such as 0640`,
				`--signal: "HIP" is no signal`,
			},
		},
		"no such owner": {in: append(right, "--owner=no-such-user:no-such-group"), want: []string{"--owner: user: unknown user no-such-user", "--owner: group: unknown group no-such-group"}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			cfg, err := configOf(t, f, tc.in...)
			var got, want []string
			if err != nil {
				got = strings.Split(err.Error(), "\n")
			}
			for _, line := range tc.want {
				want = append(want, strings.ReplaceAll(line, "%", string(f)))
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if (cfg == nil) != (len(tc.want) > 0) {
				t.Errorf("started with %v", cfg)
			}
		})
	}
}

func TestTheAgentDelaysItsShutdown(t *testing.T) {
	cases := map[string]struct {
		delay, signal, want time.Duration
	}{
		"no delay":             {},
		"for an hour":          {delay: time.Hour, want: time.Hour},
		"until another signal": {delay: time.Hour, signal: time.Minute, want: time.Minute},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				signaled, signal := context.WithCancel(t.Context())
				ctx, stop := delayShutdown(signaled, tc.delay, func(signals chan<- os.Signal) {
					if tc.signal > 0 {
						time.AfterFunc(tc.signal, func() { signals <- os.Interrupt })
					}
				})
				defer stop()
				time.Sleep(time.Hour) // virtual, as all of the bubble
				if ctx.Err() != nil {
					t.Fatal("it ended before the signal")
				}
				began := time.Now()
				signal()
				<-ctx.Done()
				if took := time.Since(began); took != tc.want {
					t.Errorf("it went on for %v, want %v", took, tc.want)
				}
			})
		})
	}
}

func TestAgentTokens(t *testing.T) {
	f := cmdtest.NewFiles(t)
	cfg, err := configOf(t, f, "--namespace=team", "--service-account=robot", "--audience=x", "--token-file=%/token", "--token-file=%/vault=https://vault?a=b,c")
	cmdtest.MustNil(t, err)
	want := []agent.Token{
		{File: filepath.Join(string(f), "token"), Audiences: []string{"x"}},
		{File: filepath.Join(string(f), "vault"), Audiences: []string{"https://vault?a=b", "c"}},
	}
	if diff := cmp.Diff(want, cfg.tokens); diff != "" {
		t.Errorf("tokens (-want +got):\n%s", diff)
	}
}

// TestACredentialThatRenewsItself: the token file of the kubeconfig is one of --token-file, also by
// symlinks and before it exists, and a warning names both.
func TestACredentialThatRenewsItself(t *testing.T) {
	f := cmdtest.NewFiles(t)
	cmdtest.MustNil(t, os.Mkdir(f.Path("d"), 0o700))
	cmdtest.MustNil(t, os.Symlink("d", f.Path("linked")))
	cmdtest.MustNil(t, os.Symlink("d/token", f.Path("link")))
	cmdtest.MustNil(t, os.Symlink(f.Path("link"), f.Path("twice")))
	cmdtest.MustNil(t, os.Symlink("loop", f.Path("loop")))
	cases := map[string]struct {
		in   string // the credential
		want bool
	}{
		"the file":               {in: "%/d/token", want: true},
		"not clean":              {in: "%/./d/../d/token", want: true},
		"by a linked directory":  {in: "%/linked/token", want: true},
		"by a link":              {in: "%/link", want: true},
		"by two links":           {in: "%/twice", want: true},
		"another":                {in: "%/d/other"},
		"another that does loop": {in: "%/loop"},
		"none":                   {},
	}
	for _, exists := range []bool{false, true} {
		for name, tc := range cases {
			t.Run(fmt.Sprint(name, ", it exists: ", exists), func(t *testing.T) {
				file := f.Path("d/token")
				if exists {
					cmdtest.MustNil(t, os.WriteFile(file, []byte("t"), 0o600))
				}
				cfg := &Config{tokens: []agent.Token{{File: f.Path("d/vault")}, {File: file}}, rest: &rest.Config{BearerTokenFile: f.Expand(tc.in)}}
				cfg.ownCredential = ownCredential(cfg.rest.BearerTokenFile, cfg.tokens)
				logger := ktesting.NewLogger(t, ktesting.NewConfig(ktesting.BufferLogs(true)))
				cfg.warn(klog.NewContext(t.Context(), logger))
				logs := logger.GetSink().(ktesting.Underlier).GetBuffer().String()
				if warned := strings.Contains(logs, file) && strings.Contains(logs, cfg.rest.BearerTokenFile); (cfg.ownCredential == file) != tc.want || warned != tc.want {
					t.Errorf("own credential %q, log %q", cfg.ownCredential, logs)
				}
			})
		}
	}
}

// TestTheKubeconfigMayNameAFileOfTheAgent reads the name from the kubeconfig.
func TestTheKubeconfigMayNameAFileOfTheAgent(t *testing.T) {
	f := cmdtest.NewFiles(t)
	kubeconfig := f.Path("self.kubeconfig")
	cmdtest.MustNil(t, os.WriteFile(f.Path("token"), []byte("t"), 0o600))
	cmdtest.MustNil(t, os.WriteFile(kubeconfig, []byte(`{"apiVersion":"v1","kind":"Config","current-context":"c","contexts":[{"name":"c","context":{"cluster":"c","user":"u"}}],
"clusters":[{"name":"c","cluster":{"server":"https://127.0.0.1:1"}}],"users":[{"name":"u","user":{"tokenFile":"token"}}]}`), 0o600))
	cfg, err := cmdtest.ConfigOf(t, f, NewCommand, "--kubeconfig="+kubeconfig, "--namespace=team", "--service-account=robot", "--token-file=%/token")
	cmdtest.MustNil(t, err)
	if cfg.ownCredential != f.Path("token") {
		t.Errorf("own credential %q", cfg.ownCredential)
	}
}

// TestBoundObject is about the claims of the agent's own token, which decide what its tokens are
// bound to.
func TestBoundObject(t *testing.T) {
	inPod := token.BoundClaims{
		Namespace: "team", ServiceAccount: token.Ref{Name: "robot", UID: "r"}, Pod: token.Ref{Name: "pod", UID: "p"},
	}
	noPod := inPod
	noPod.Pod = token.Ref{}
	own := &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: "pod", UID: "p"}
	cases := map[string]struct {
		in      token.BoundClaims
		inFlags []string
		want    *authenticationv1.BoundObjectReference
		wantOf  string
		wantErr string
	}{
		"in a pod, its own":                    {in: inPod, want: own, wantOf: "team/robot"},
		"by name too":                          {in: inPod, inFlags: []string{"--service-account=robot", "--namespace=team", "--bound-pod=pod"}, want: own, wantOf: "team/robot"},
		"not with an empty flag":               {in: inPod, inFlags: []string{"--bound-pod="}, wantOf: "team/robot"},
		"nor for another account":              {in: inPod, inFlags: []string{"--service-account=other"}, wantOf: "team/other"},
		"nor in another namespace":             {in: inPod, inFlags: []string{"--namespace=away"}, wantOf: "away/robot"},
		"which the API server would refuse":    {in: inPod, inFlags: []string{"--service-account=other", "--bound-pod=pod"}, wantOf: "team/other", wantErr: "--bound-pod: pod is of service account robot, not other; use --bound-secret, or neither"},
		"another pod":                          {in: inPod, inFlags: []string{"--service-account=other", "--bound-pod=theirs"}, want: &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: "theirs"}, wantOf: "team/other"},
		"a Secret":                             {in: inPod, inFlags: []string{"--bound-secret=s"}, want: &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Secret", Name: "s"}, wantOf: "team/robot"},
		"a token of a ServiceAccount, outside": {in: noPod, wantOf: "team/robot"},
		"a certificate":                        {inFlags: []string{"--service-account=robot", "--namespace=team"}, wantOf: "team/robot"},
		"a certificate alone":                  {wantOf: "/", wantErr: "--namespace is required: the credentials are no token that names one\n--service-account is required: the credentials are no token of one"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			opts := newOptions()
			flags := pflag.NewFlagSet("agent", pflag.ContinueOnError)
			opts.addTokenFlags(flags)
			cmdtest.MustNil(t, flags.Parse(tc.inFlags))
			opts.changed = flags.Changed
			cfg := &Config{options: opts}
			err := cfg.identify(tc.in)
			if got := cfg.namespace + "/" + cfg.account; got != tc.wantOf {
				t.Errorf("tokens of %s, want %s", got, tc.wantOf)
			}
			if tc.wantErr == "" != (err == nil) || err != nil && err.Error() != tc.wantErr {
				t.Errorf("error %v, want %q", err, tc.wantErr)
			}
			if diff := cmp.Diff(tc.want, cfg.bound); diff != "" {
				t.Errorf("bound to (-want +got):\n%s", diff)
			}
		})
	}
}
