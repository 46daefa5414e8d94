package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sakeeper/sakeeper/pkg/keys"
	keyrotation "github.com/sakeeper/sakeeper/pkg/keys/rotation"
	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
)

// signedPlane is a control plane whose API server uses sakeeper signer.
type signedPlane struct {
	controlPlane

	dir, admin  string
	signerArgs  []string
	signer      *controlplane.Sakeeper
	controllers *controlplane.Sakeeper
}

func newSignedPlane(t *testing.T) *signedPlane {
	t.Helper()
	dir, err := os.MkdirTemp("", "keys-") // the paths of sockets must be short
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	p := &signedPlane{dir: filepath.Join(dir, "keys")}
	socket, legacy := filepath.Join(dir, "s"), filepath.Join(dir, "l")
	must(t, p.tryKeys("rotate", "made the first key"))
	p.signerArgs = []string{"signer", "--key-dir", p.dir, "--socket", socket, "--legacy-socket", legacy, "--refresh-hint=1s", "--max-token-expiration=1h", "-v=10"}
	p.signer = startReadySakeeper(t, p.signerArgs)
	p.controlPlane = newControlPlaneWith(t, controlplane.Options{SigningEndpoint: socket})
	p.admin, err = p.Kubeconfig("for-keys.kubeconfig", p.Admin)
	must(t, err)
	args := slices.DeleteFunc(p.sakeeperArgs(t, "--resign-tokens=all", "--service-account-signing-endpoint", legacy), func(arg string) bool {
		return arg == "--service-account-private-key-file" || arg == p.SigningKeyFile
	})
	p.controllers = startReadySakeeper(t, args)
	return p
}

// restartSigner kills the signer, as a crash would, and starts it again.
func (p *signedPlane) restartSigner(t *testing.T) {
	t.Helper()
	must(t, p.signer.Signal(syscall.SIGKILL))
	_ = p.signer.Wait()
	p.signer = startReadySakeeper(t, p.signerArgs)
}

// keys runs a command of sakeeper keys, whose output must have this.
func (p *signedPlane) keys(t *testing.T, command, want string) {
	t.Helper()
	must(t, p.tryKeys(command, want))
}

func (p *signedPlane) tryKeys(command, want string) error {
	return runKeys(append([]string{command, "--key-dir", p.dir}, keyWaits()...), want)
}

func (p *signedPlane) keysWith(t *testing.T, args []string, want string) {
	t.Helper()
	must(t, runKeys(append(args, "--key-dir", p.dir, "--max-token-expiration=1h"), want))
}

func runKeys(args []string, want string) error {
	out, err := exec.Command(shared.binary, append([]string{"keys"}, args...)...).CombinedOutput()
	if err == nil {
		err = checkLogs(string(out))
	}
	for part := range strings.SplitSeq(want, "<id>") {
		if err == nil && !strings.Contains(string(out), part) {
			err = fmt.Errorf("it does not say %q", part)
		}
	}
	if err != nil {
		return fmt.Errorf("sakeeper keys %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

func (p *signedPlane) ring(t *testing.T) *keys.Keyring {
	t.Helper()
	ring, err := keys.Directory(p.dir).Keyring()
	must(t, err)
	return ring
}

// signing is the signing key, as a list of one.
func (p *signedPlane) signing(t *testing.T) []keys.PublicKey {
	t.Helper()
	m, ok := p.ring(t).Signing()
	if !ok {
		t.Fatal("no key signs")
	}
	return []keys.PublicKey{m.Public()}
}

func (p *signedPlane) published(t *testing.T) []keys.PublicKey {
	t.Helper()
	var found []keys.PublicKey
	for _, m := range p.ring(t).InState(keys.StatePublished) {
		found = append(found, m.Public())
	}
	return found
}

// pruneLater removes keys as sakeeper keys prune does, at a time that is later by this, because a
// test cannot wait for the lifetime of tokens.
func (p *signedPlane) pruneLater(t *testing.T, later time.Duration) {
	t.Helper()
	store := keyrotation.OpenDirectory(p.dir)
	must(t, store.Begin(t.Context()))
	defer func() { must(t, store.Close()) }()
	ring, err := store.Load(t.Context())
	must(t, err)
	carriers, err := keyrotation.CountTokenSecrets(t.Context(), p.client.CoreV1(), ring)
	must(t, err)
	removed := 0
	for _, step := range keyrotation.PlanRemovals(ring, time.Now().Add(later), carriers, keyrotation.Settings{}) {
		if step.Action != keyrotation.ActionRemove {
			t.Fatalf("key %s: %s, because %s", step.Key.ID(), step.Action, step.Reason)
		}
		_, err := keyrotation.ApplyStep(t.Context(), store, step, "", keyrotation.Settings{})
		must(t, err)
		removed++
	}
	if removed != 1 {
		t.Fatalf("%d keys were removed", removed)
	}
}

// expectJWKS waits until the JWKS of the API server has these keys.
func expectJWKS(t *testing.T, p *signedPlane, want []keys.PublicKey) {
	t.Helper()
	var ids []string
	for _, key := range want {
		ids = append(ids, key.ID())
	}
	slices.Sort(ids)
	eventually(t, "discovery shows the keys", func(ctx context.Context) error {
		body, err := p.client.Discovery().RESTClient().Get().AbsPath("/openid/v1/jwks").DoRaw(ctx)
		if err != nil {
			return err
		}
		var shown struct {
			Keys []struct {
				ID string `json:"kid"`
			} `json:"keys"`
		}
		if err := json.Unmarshal(body, &shown); err != nil {
			return err
		}
		var got []string
		for _, key := range shown.Keys {
			got = append(got, key.ID)
		}
		slices.Sort(got)
		if !slices.Equal(got, ids) {
			return fmt.Errorf("it shows %v, want %v", got, ids)
		}
		return nil
	})
}
