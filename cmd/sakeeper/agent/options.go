package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
	authenticationv1 "k8s.io/api/authentication/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/rest"
	cliflag "k8s.io/component-base/cli/flag"

	"github.com/sakeeper/sakeeper/cmd/sakeeper/options"
	"github.com/sakeeper/sakeeper/pkg/agent"
	"github.com/sakeeper/sakeeper/pkg/token"
)

// Options are the flags of sakeeper agent.
type Options struct {
	api     *options.API
	servers *options.Servers
	logs    *options.Logs
	// changed returns true if the command line has the flag.
	changed func(flag string) bool

	serviceAccount, namespace string
	audiences                 []string
	lifetime                  time.Duration
	boundPod, boundSecret     string

	tokenFiles []string
	mode       string
	owner      string
	swap       bool
	once       bool

	command        string
	commandTimeout time.Duration
	signals        []string

	shutdownDelay time.Duration
}

func newOptions() *Options {
	return &Options{
		api: options.NewAPI(),
		// The containers of a pod share their ports.
		servers: &options.Servers{Metrics: "0", Probes: "0"},
		logs:    options.NewLogs(), changed: func(string) bool { return false },
		lifetime: time.Hour, mode: "0600", commandTimeout: 30 * time.Second,
	}
}

func (o *Options) sections() *cliflag.NamedFlagSets {
	sections := &cliflag.NamedFlagSets{}
	o.addTokenFlags(sections.FlagSet("tokens"))
	o.addFileFlags(sections.FlagSet("files"))
	o.addHookFlags(sections.FlagSet("hooks"))
	o.api.AddFlags(sections.FlagSet("API server"))
	o.servers.AddFlags(sections.FlagSet("metrics and probes"))
	o.logs.AddFlags(sections.FlagSet("logs"))
	return sections
}

func (o *Options) addTokenFlags(fs *pflag.FlagSet) {
	fs.StringVar(&o.serviceAccount, "service-account", o.serviceAccount,
		"ServiceAccount of the tokens. Empty: that of the pod, or of the token in the kubeconfig.")
	fs.StringVar(&o.namespace, "namespace", o.namespace,
		"Its namespace. Empty: that of the pod, or of the token in the kubeconfig.")
	fs.StringSliceVar(&o.audiences, "audience", o.audiences,
		"Audiences of the tokens whose --token-file names none. Empty: the API server's own.")
	fs.DurationVar(&o.lifetime, "lifetime", o.lifetime,
		"How long tokens should be good for, at least 10m. The API server may grant less, or more. They are renewed after 70 to 80 % of what was granted.")
	fs.StringVar(&o.boundPod, "bound-pod", o.boundPod,
		"Pod with which the tokens end; it must be of the ServiceAccount. Not given: the own pod, where the ServiceAccount is its own; empty: none.")
	fs.StringVar(&o.boundSecret, "bound-secret", o.boundSecret,
		"Secret with which the tokens end: to delete it revokes them within about 10 seconds. Instead of --bound-pod.")
	fs.BoolVar(&o.once, "once", o.once,
		"Write every file once, run the hooks, and end. Waits for an API server that cannot be reached, and fails at one that refuses.")
	fs.DurationVar(&o.shutdownDelay, "shutdown-delay-duration", o.shutdownDelay,
		"How long to go on after SIGTERM, for containers of a terminating pod that still need tokens. A second signal ends it.")
}

func (o *Options) addFileFlags(fs *pflag.FlagSet) {
	fs.StringArrayVar(&o.tokenFiles, "token-file", o.tokenFiles,
		"File for a token, as FILE or FILE=AUDIENCE[,AUDIENCE...]. Its directory must exist. May be repeated. Required.")
	fs.StringVar(&o.mode, "mode", o.mode, "Permissions of the files, octal.")
	fs.StringVar(&o.owner, "owner", o.owner,
		"Owner of the files, as USER, USER:GROUP or :GROUP, by name or number. Empty: that of this process.")
	fs.BoolVar(&o.swap, "symlink-swap", o.swap,
		"Replace all files of a directory by the swap of a symlink, as kubelet does, for readers that watch for that. The directory must be this agent's alone. False: rename each file.")
}

func (o *Options) addHookFlags(fs *pflag.FlagSet) {
	fs.StringVar(&o.command, "exec", o.command,
		"Command to run after tokens changed, with arguments between spaces; there is no shell. Retried until it succeeds.")
	fs.DurationVar(&o.commandTimeout, "exec-timeout", o.commandTimeout, "How long the command may run.")
	fs.StringArrayVar(&o.signals, "signal", o.signals,
		"Signal to send after tokens changed, as SIGNAL:PROCESS, where the process is an id, a file that holds one (with a /), or a name. May be repeated.")
}

// Config is made from the flags and the credentials.
type Config struct {
	version string
	options *Options
	rest    *rest.Config

	namespace, account string
	bound              *authenticationv1.BoundObjectReference
	tokens             []agent.Token
	writer             agent.Writer
	hooks              []agent.Hook
	seed               string
	// ownCredential is the file of tokens whose token is also the credential of the agent, or empty.
	ownCredential string
}

// boundTo names the bound object, for the log.
func (c *Config) boundTo() string {
	if c.bound == nil {
		return "nothing"
	}
	return strings.ToLower(c.bound.Kind) + " " + c.bound.Name
}

func (o *Options) complete(version string) (*Config, error) {
	cfg := &Config{version: version, options: o}
	errs := o.validate()
	var errWriter, errHooks, errRest error
	cfg.tokens = o.tokens()
	cfg.writer, errWriter = o.writer()
	cfg.hooks, errHooks = o.hooks()
	cfg.rest, errRest = o.api.RESTConfig(component, version)
	errs = append(errs, errWriter, errHooks, errRest)
	if errRest == nil {
		errs = append(errs, cfg.identify(ownClaims(cfg.rest)))
		cfg.ownCredential = ownCredential(cfg.rest.BearerTokenFile, cfg.tokens)
	}
	return cfg, errors.Join(errs...)
}

// maxLifetime is the longest lifetime that the API server's validation of a TokenRequest accepts.
const maxLifetime = (1 << 32) * time.Second

func (o *Options) validate() []error {
	errs := append(o.api.Validate(), o.servers.Validate()...)
	errs = append(errs, o.logs.Validate()...)
	if o.lifetime < 10*time.Minute {
		errs = append(errs, fmt.Errorf("--lifetime: %v is less than the 10m that API servers grant", o.lifetime))
	}
	if o.lifetime > maxLifetime {
		errs = append(errs, fmt.Errorf("--lifetime: %v is more than the %v that API servers accept", o.lifetime, maxLifetime))
	}
	if o.once && o.shutdownDelay > 0 {
		errs = append(errs, errors.New("--once and --shutdown-delay-duration exclude each other"))
	}
	if o.shutdownDelay < 0 {
		errs = append(errs, fmt.Errorf("--shutdown-delay-duration: %v is negative", o.shutdownDelay))
	}
	if o.boundPod != "" && o.boundSecret != "" {
		errs = append(errs, errors.New("--bound-pod and --bound-secret exclude each other"))
	}
	if o.commandTimeout <= 0 {
		errs = append(errs, fmt.Errorf("--exec-timeout: %v is not positive", o.commandTimeout))
	}
	for _, named := range []struct{ flag, name string }{
		{"--service-account", o.serviceAccount}, {"--namespace", o.namespace}, {"--bound-pod", o.boundPod}, {"--bound-secret", o.boundSecret},
	} {
		if named.name == "" {
			continue
		}
		for _, problem := range validation.IsDNS1123Subdomain(named.name) {
			errs = append(errs, fmt.Errorf("%s: %q: %s", named.flag, named.name, problem))
		}
	}
	return append(errs, o.validateFiles()...)
}

func (o *Options) validateFiles() []error {
	var errs []error
	if len(o.tokenFiles) == 0 {
		errs = append(errs, errors.New("--token-file is required"))
	}
	seen := map[string]bool{}
	for i, t := range o.tokens() {
		if info, err := os.Stat(filepath.Dir(t.File)); err != nil || !info.IsDir() {
			errs = append(errs, fmt.Errorf("--token-file: %s: there is no directory %s", o.tokenFiles[i], filepath.Dir(t.File)))
		}
		if info, err := os.Stat(t.File); err == nil && info.IsDir() {
			errs = append(errs, fmt.Errorf("--token-file: %s is a directory", t.File))
		}
		if seen[t.File] {
			errs = append(errs, fmt.Errorf("--token-file: %s is named twice", t.File))
		}
		seen[t.File] = true
		for _, audience := range t.Audiences {
			if strings.TrimSpace(audience) != audience || audience == "" {
				errs = append(errs, fmt.Errorf("--token-file: %s: %q is no audience", o.tokenFiles[i], audience))
			}
		}
	}
	return errs
}

// tokens parses --token-file.
func (o *Options) tokens() []agent.Token {
	var tokens []agent.Token
	for _, text := range o.tokenFiles {
		file, audiences, named := strings.Cut(text, "=")
		t := agent.Token{File: canonical(file), Audiences: o.audiences}
		if named {
			t.Audiences = strings.Split(audiences, ",")
		}
		tokens = append(tokens, t)
	}
	return tokens
}

// canonical returns the absolute path of file without symlinks in its directory, so that two paths of
// one file are equal.
func canonical(file string) string {
	file = filepath.Clean(file)
	if absolute, err := filepath.Abs(file); err == nil {
		file = absolute
	}
	if dir, err := filepath.EvalSymlinks(filepath.Dir(file)); err == nil {
		file = filepath.Join(dir, filepath.Base(file))
	}
	return file
}

// ownCredential returns the file of tokens that is the same as tokenFile, directly or by symlinks, or
// nothing.
func ownCredential(tokenFile string, tokens []agent.Token) string {
	if tokenFile == "" {
		return ""
	}
	for _, t := range tokens {
		if target(t.File) == target(tokenFile) {
			return t.File
		}
	}
	return ""
}

// target returns the canonical path of what file links to, which need not exist yet.
func target(file string) string {
	for range 40 { // as many links as Linux follows
		link, err := os.Readlink(file)
		if err != nil {
			break
		}
		if !filepath.IsAbs(link) {
			link = filepath.Join(filepath.Dir(canonical(file)), link)
		}
		file = link
	}
	return canonical(file)
}

func (o *Options) writer() (agent.Writer, error) {
	access, err := o.access()
	if o.swap {
		swap := &agent.SymlinkWriter{FileAccess: access}
		for _, t := range o.tokens() {
			swap.Files = append(swap.Files, t.File)
		}
		return swap, err
	}
	return agent.RenameWriter{FileAccess: access}, err
}

func (o *Options) access() (agent.FileAccess, error) {
	access := agent.FileAccess{UID: -1, GID: -1}
	mode, err := strconv.ParseUint(o.mode, 8, 32)
	if err != nil || mode > 0o777 || mode == 0 {
		return access, fmt.Errorf("--mode: %q is not octal permissions, such as 0640", o.mode)
	}
	access.Mode = fs.FileMode(mode)
	owner, group, _ := strings.Cut(o.owner, ":")
	var errOwner, errGroup error
	if owner != "" {
		access.UID, errOwner = identity(owner, func(name string) (string, error) {
			found, err := user.Lookup(name)
			if err != nil {
				return "", err
			}
			return found.Uid, nil
		})
	}
	if group != "" {
		access.GID, errGroup = identity(group, func(name string) (string, error) {
			found, err := user.LookupGroup(name)
			if err != nil {
				return "", err
			}
			return found.Gid, nil
		})
	}
	return access, errors.Join(errOwner, errGroup)
}

// identity returns the id of a user or group that is given by name or id.
func identity(name string, lookup func(name string) (string, error)) (int, error) {
	if number, err := strconv.Atoi(name); err == nil && number >= 0 {
		return number, nil
	}
	found, err := lookup(name)
	if err != nil {
		return -1, fmt.Errorf("--owner: %w", err)
	}
	return strconv.Atoi(found)
}

func (o *Options) hooks() ([]agent.Hook, error) {
	var hooks []agent.Hook
	var errs []error
	if args := strings.Fields(o.command); len(args) > 0 {
		hooks = append(hooks, agent.Command{Args: args, Timeout: o.commandTimeout})
	}
	for _, text := range o.signals {
		signal, err := agent.ParseSignal(text)
		if err != nil {
			errs = append(errs, fmt.Errorf("--signal: %w", err))
			continue
		}
		hooks = append(hooks, signal)
	}
	return hooks, errors.Join(errs...)
}

// ownClaims returns the claims of the token among the credentials, or the zero value if there is no
// token.
func ownClaims(config *rest.Config) token.BoundClaims {
	compact := config.BearerToken
	if config.BearerTokenFile != "" {
		if content, err := os.ReadFile(config.BearerTokenFile); err == nil {
			compact = strings.TrimSpace(string(content))
		}
	}
	claims, err := token.UnverifiedBoundClaims(compact)
	if err != nil {
		return token.BoundClaims{} // a certificate, for example
	}
	return claims
}

// identify decides of which ServiceAccount the tokens are, and what they are bound to. own are the
// claims of the token among the credentials.
func (c *Config) identify(own token.BoundClaims) error {
	c.namespace, c.account = c.options.namespace, c.options.serviceAccount
	if c.namespace == "" {
		c.namespace = own.Namespace
	}
	if c.account == "" {
		c.account = own.ServiceAccount.Name
	}
	var errs []error
	if c.namespace == "" {
		errs = append(errs, errors.New("--namespace is required: the credentials are no token that names one"))
	}
	if c.account == "" {
		errs = append(errs, errors.New("--service-account is required: the credentials are no token of one"))
	}
	host, _ := os.Hostname()
	c.seed = host + own.Pod.UID
	return errors.Join(append(errs, c.bind(own))...)
}

// bind decides which object the tokens are bound to.
func (c *Config) bind(own token.BoundClaims) error {
	pod := token.Ref{Name: c.options.boundPod}
	itself := c.account == own.ServiceAccount.Name && c.namespace == own.Namespace
	if !c.options.changed("bound-pod") && itself {
		pod = own.Pod
	}
	if pod.Name == own.Pod.Name && c.namespace == own.Namespace {
		pod = own.Pod
	}
	switch {
	case c.options.boundSecret != "":
		c.bound = &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Secret", Name: c.options.boundSecret}
	case pod.Name == "":
	case pod == own.Pod && !itself:
		return fmt.Errorf("--bound-pod: %s is of service account %s, not %s; use --bound-secret, or neither", pod.Name, own.ServiceAccount.Name, c.account)
	default:
		c.bound = &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: types.UID(pod.UID)}
	}
	return nil
}
