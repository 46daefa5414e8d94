// Package options has what the subcommands of the plugin share: the flags by which kubectl chooses a
// cluster and a namespace, clients, the reading of the objects, and exit codes.
package options

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"

	"github.com/sakeeper/sakeeper/pkg/inventory/collect"
	"github.com/sakeeper/sakeeper/pkg/kube"
)

// Streams are the streams of the process, with what is known about the terminal.
type Streams struct {
	genericiooptions.IOStreams

	// Progress is true if the errors go to a terminal, which shows how far the reading is.
	Progress bool
	// Width is the number of columns of the terminal that the output goes to; 0 if it is none.
	Width int
	// Now is the time for ages; nil: the clock of this machine.
	Now func() time.Time
}

// StandardStreams returns those of the process.
func StandardStreams() Streams {
	streams := Streams{IOStreams: genericiooptions.IOStreams{In: os.Stdin, Out: os.Stdout, ErrOut: os.Stderr}}
	streams.Progress = term.IsTerminal(int(os.Stderr.Fd()))
	if width, _, err := term.GetSize(int(os.Stdout.Fd())); err == nil {
		streams.Width = width
	}
	return streams
}

// Options are the flags that all subcommands have.
type Options struct {
	Streams

	Version string
	flags   *genericclioptions.ConfigFlags
}

// New returns options with the defaults of kubectl.
func New(version string, streams Streams) *Options {
	return &Options{Streams: streams, Version: version, flags: genericclioptions.NewConfigFlags(true)}
}

// AddFlags adds the flags to the root command, with the completion of their values.
func (o *Options) AddFlags(root *cobra.Command) {
	o.flags.AddFlags(root.PersistentFlags())
	complete(root, "namespace", func(ctx context.Context) []string {
		clients, err := o.Clients()
		if err != nil {
			return nil
		}
		list, err := clients.Metadata.Resource(coreResource("namespaces")).List(ctx, metav1.ListOptions{Limit: 500})
		if err != nil {
			return nil
		}
		var names []string
		for i := range list.Items {
			names = append(names, list.Items[i].Name)
		}
		return names
	})
	complete(root, "context", func(context.Context) []string {
		config, err := o.flags.ToRawKubeConfigLoader().RawConfig()
		if err != nil {
			return nil
		}
		var names []string
		for name := range config.Contexts {
			names = append(names, name)
		}
		return names
	})
}

// complete registers the values of a flag for the completion of shells.
func complete(cmd *cobra.Command, flag string, values func(context.Context) []string) {
	_ = cmd.RegisterFlagCompletionFunc(flag, func(cmd *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
		all := slices.DeleteFunc(values(cmd.Context()), func(value string) bool { return !strings.HasPrefix(value, prefix) })
		slices.Sort(all)
		return all, cobra.ShellCompDirectiveNoFileComp
	}) // the flag exists: an error would be one of this program, and costs only the completion
}

// Clients are for one API server.
type Clients struct {
	kubernetes.Interface

	Metadata metadata.Interface
	Config   *rest.Config
}

// Clients returns clients with the rights of the user.
func (o *Options) Clients() (*Clients, error) {
	config, err := o.flags.ToRESTConfig()
	if err != nil {
		return nil, err
	}
	config.QPS = -1 // the API server decides how fast is too fast
	config.UserAgent = "kubectl-sakeeper/" + o.Version
	config.WarningHandler = rest.NoWarnings{}
	kube.PreferProtobuf(config)
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	meta, err := metadata.NewForConfig(config)
	return &Clients{client, meta, config}, err
}

// Namespace returns the one of the flag or of the context.
func (o *Options) Namespace() (string, error) {
	namespace, _, err := o.flags.ToRawKubeConfigLoader().Namespace()
	return namespace, err
}

// Collect reads the objects that cfg asks for, and shows how far it is on a terminal.
func (o *Options) Collect(ctx context.Context, cfg collect.Config, all bool) (*collect.Result, error) {
	clients, err := o.Clients()
	if err != nil {
		return nil, err
	}
	if !all {
		if cfg.Namespace, err = o.Namespace(); err != nil {
			return nil, err
		}
	}
	cfg.Now = o.Now
	cfg.Client, cfg.Metadata = clients, clients.Metadata
	progress := newProgress(o.Streams)
	cfg.Progress = progress.show
	result, err := collect.Collect(ctx, cfg)
	progress.clear()
	return result, err
}

// PrintMissing says what is unknown, one line for each missing right or resource, and returns an error if the
// reading was interrupted.
func (o *Options) PrintMissing(result *collect.Result) error {
	for _, m := range result.Missing {
		switch {
		case m.Forbidden:
			fmt.Fprintf(o.ErrOut, "%s: you may not %s %s\n", m.Affects, m.Right, where(m.Namespace))
		case m.Absent():
			fmt.Fprintf(o.ErrOut, "%s: the API server does not know '%s'\n", m.Affects, m.Right)
		}
	}
	if err := result.Interrupted(); err != nil {
		if errors.Is(err, context.Canceled) {
			err = context.Canceled
		}
		return fmt.Errorf("interrupted: this is what the first %d objects say: %w", result.Read, err)
	}
	return nil
}

func where(namespace string) string {
	if namespace == "" {
		return "in the cluster"
	}
	return "in namespace " + namespace
}

// Clock returns the time for ages.
func (o *Options) Clock() time.Time {
	if o.Now == nil {
		return time.Now()
	}
	return o.Now()
}
