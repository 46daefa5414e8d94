package keys

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/spf13/cobra"
	"k8s.io/client-go/kubernetes"
	cliflag "k8s.io/component-base/cli/flag"

	"k8s.io/utils/clock"

	"github.com/sakeeper/sakeeper/cmd/sakeeper/options"
	"github.com/sakeeper/sakeeper/pkg/keys"
	"github.com/sakeeper/sakeeper/pkg/keys/rotation"
)

func newImportCommand(version string, clock clock.Clock) *cobra.Command {
	o := newOptions(version, clock)
	var file, state string
	cmd := &cobra.Command{
		Use:   "import",
		Short: "Bring a key that exists, such as kubeadm's sa.key, into the directory or Secret",
		Long: `Brings a key that exists, such as kubeadm's sa.key, into the directory or Secret. The
file stays as it is. Again, it does nothing. How long tokens of the key live, only
you know: --max-token-expiration is required for the states signing and retired. They
count as 8760h at least, which tokens of pods live, unless you say
--service-account-extend-token-expiration=false.`,
		Example:     `  sakeeper keys import --key-dir=/etc/kubernetes/pki/sakeeper --file=/etc/kubernetes/pki/sa.key --max-token-expiration=8760h`,
		Annotations: map[string]string{options.Chapter: chapter},
		Args:        cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			m, err := readMember(file, keys.State(state))
			if err != nil {
				return err
			}
			if m.State != keys.StateLegacy && m.State != keys.StatePublished && !cmd.Flags().Changed("max-token-expiration") {
				return errors.New("--max-token-expiration is required with a key that has signed: give what the API server had in --service-account-max-token-expiration; where it had none, the longest duration that a client has requested. Its tokens are valid for so long, and those of pods for 8760h")
			}
			o.extended = o.extended && m.State != keys.StatePublished // it has not signed
			return o.change(cmd.Context(), func(s rotation.Store, _ *kubernetes.Clientset) error {
				m.Metadata.MaxExpiration = o.settings.MaxExpiration
				m := m.WithState(m.State, clock.Now())
				added, err := rotation.Import(cmd.Context(), s, m)
				switch {
				case err != nil:
					return err
				case added:
					fmt.Fprintf(cmd.OutOrStdout(), "key %s: imported as %s\n", m.ID(), m.State)
				default:
					fmt.Fprintf(cmd.OutOrStdout(), "key %s: is %s already\n", m.ID(), m.State)
				}
				return nil
			})
		},
	}
	sections := &cliflag.NamedFlagSets{}
	fs := sections.FlagSet("keys")
	o.addFlags(fs)
	o.addExtension(fs)
	fs.StringVar(&file, "file", file, "PEM file with the key. A private key is needed for the states published and signing.")
	fs.StringVar(&state, "state", string(keys.StateSigning), "State that the key is to have: signing, published, retired or legacy.")
	options.AddSections(cmd, sections)
	return cmd
}

func readMember(file string, state keys.State) (keys.Entry, error) {
	if !slices.Contains(keys.States(), state) {
		return keys.Entry{}, fmt.Errorf("--state: %q is not one of %v", state, keys.States())
	}
	if file == "" {
		return keys.Entry{}, errors.New("--file is required")
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return keys.Entry{}, fmt.Errorf("--file: %w", err)
	}
	m := keys.Entry{State: state}
	if state == keys.StatePublished || state == keys.StateSigning {
		m.Private, err = keys.ParsePrivate(data)
	} else {
		var found []keys.PublicKey
		if found, err = keys.ParsePublic(data); err == nil {
			m.Private = keys.PublicOnly(found[0])
			if len(found) > 1 {
				err = fmt.Errorf("holds %d keys; import each of a file of its own", len(found))
			}
		}
	}
	if err != nil {
		return keys.Entry{}, fmt.Errorf("--file: %s: %w", file, err)
	}
	return m, nil
}
