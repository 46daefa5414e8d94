package tokengeneration

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/cache"
	"github.com/sakeeper/sakeeper/pkg/testkit"
	"github.com/sakeeper/sakeeper/pkg/token"
)

// TestRandomFaults does random things in random order (syncs; caches that lag by any
// amount, each on its own, also at the start; requests that fail, that are carried out
// without an answer, or that are carried out late; crashes at any request; users who
// delete, mark, label and refer) and checks the final state.
func TestRandomFaults(t *testing.T) {
	for seed := range uint64(1000) {
		if !t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			s := newSimulation(t, seed)
			for range 80 {
				s.step()
			}
			s.quiesce()
			s.check()
			if t.Failed() {
				t.Log(strings.Join(s.log, "\n"))
			}
		}) {
			return
		}
	}
}

// step does one random thing.
func (s *simulation) step() {
	if s.crashed && s.random.IntN(3) == 0 {
		s.restart()
	}
	switch n := s.random.IntN(20); {
	case n < 8:
		s.sync()
	case n < 11:
		s.watch(&s.seenAccounts, false)
	case n < 14:
		s.watch(&s.seenSecrets, true)
	case n < 16:
		s.pass(time.Duration(s.random.IntN(9000)) * time.Millisecond)
	default:
		s.randomChange()
	}
}

func (s *simulation) restart() {
	s.logf("restart")
	s.start(s.clock.Now())
	s.logf("caches at %d and %d of %d", s.seenAccounts, s.seenSecrets, len(s.server.history))
}

func (s *simulation) sync() {
	if s.crashed {
		return
	}
	again, err := s.Controller.sync(s.t.Context(), robotKey())
	s.logf("synced: again %v, %v", again, err)
}

// watch delivers some events of the history to a cache, in order.
func (s *simulation) watch(seen *int, secrets bool) {
	for range s.random.IntN(4) {
		if *seen < len(s.server.history) && !s.crashed {
			s.show(s.server.history[*seen], secrets)
			*seen++
		}
	}
}

// pass advances the clock, and carries out delayed creates.
func (s *simulation) pass(d time.Duration) {
	now := s.clock.Now().Add(d)
	s.delayed = slices.DeleteFunc(s.delayed, func(l delayedCreate) bool {
		if now.Before(l.deadline) && s.random.IntN(4) > 0 {
			return false
		}
		_, err := s.server.create(l.secret.DeepCopy())
		s.logf("delayed create of %s: %v", l.secret.Name, err)
		if err == nil {
			s.noteCreated(l.secret.Name)
		}
		return true
	})
	s.clock.SetTime(now)
}

// createAccount creates team/robot with a new UID.
func (s *simulation) createAccount() {
	s.accountsCreated++
	s.server.setAccount(robot(testkit.WithUID(types.UID(fmt.Sprint("account-", s.accountsCreated))), func(o metav1.Object) {
		o.SetCreationTimestamp(metav1.NewTime(s.clock.Now().Truncate(time.Second)))
	}))
}

// randomChange makes a change that a user or another controller may make.
func (s *simulation) randomChange() {
	account := s.server.accounts["team/robot"]
	if account == nil {
		s.logf("a user creates the account")
		s.createAccount()
		return
	}
	changed := account.DeepCopy()
	switch s.random.IntN(10) {
	case 0:
		s.logf("a user deletes the account")
		s.server.removeAccount("team/robot")
		return
	case 1, 2, 3:
		s.deleteRandomSecret()
		return
	case 4:
		s.logf("the token controller removes references")
		for key := range s.deletedSecrets() {
			s.server.dropReferences(key)
		}
		return
	case 5:
		s.logf("a user removes all references")
		changed.Secrets = nil
	case 6:
		value := []string{"true", "false", ""}[s.random.IntN(3)]
		s.logf("a user sets the label to %q", value)
		changed.Labels = map[string]string{api.AutoTokenLabel: value}
	case 7:
		s.markRandomSecret()
		return
	case 8:
		s.logf("a user adds a reference to another token")
		if s.server.secrets["team/mine"] == nil {
			s.server.setSecret("team/mine", tokenSecret("mine", testkit.WithAccountUID(account.UID), testkit.WithResourceVersion(s.server.next())))
		}
		changed.Secrets = append(changed.Secrets, corev1.ObjectReference{Name: "mine"})
	default:
		s.logf("a user changes the account")
		changed.Annotations = map[string]string{"note": fmt.Sprint(len(s.log))}
	}
	s.server.setAccount(changed)
	s.noteReferred(changed)
}

// sortedSecrets returns all Secrets, sorted by name.
func (s *simulation) sortedSecrets() []*corev1.Secret {
	var secrets []*corev1.Secret
	for _, secret := range s.server.secrets {
		secrets = append(secrets, secret)
	}
	slices.SortFunc(secrets, func(a, b *corev1.Secret) int { return strings.Compare(a.Name, b.Name) })
	return secrets
}

func (s *simulation) deleteRandomSecret() {
	if secrets := s.sortedSecrets(); len(secrets) > 0 {
		secret := secrets[s.random.IntN(len(secrets))]
		s.logf("a user deletes secret %s", secret.Name)
		s.server.setSecret("team/"+secret.Name, nil)
	}
}

func (s *simulation) markRandomSecret() {
	if secrets := s.sortedSecrets(); len(secrets) > 0 {
		secret := secrets[s.random.IntN(len(secrets))].DeepCopy()
		s.logf("the cleaner marks secret %s", secret.Name)
		testkit.WithLabel(token.InvalidSinceLabel, "2026-01-01")(secret)
		secret.ResourceVersion = s.server.next()
		s.server.setSecret("team/"+secret.Name, secret)
	}
}

func (s *simulation) deletedSecrets() map[string]bool {
	keys := map[string]bool{}
	for _, c := range s.server.history {
		if c.formerSecret != nil && s.server.secrets["team/"+c.formerSecret.Name] == nil {
			keys["team/"+c.formerSecret.Name] = true
		}
	}
	return keys
}

// quiesce stops all faults, and syncs until nothing more is to do.
func (s *simulation) quiesce() {
	s.logf("no more faults")
	s.noFaults = true
	if s.crashed {
		s.restart()
	}
	for range 20 {
		for key := range s.deletedSecrets() {
			s.server.dropReferences(key)
		}
		for s.seenAccounts < len(s.server.history) {
			s.watch(&s.seenAccounts, false)
		}
		for s.seenSecrets < len(s.server.history) {
			s.watch(&s.seenSecrets, true)
		}
		s.sync()
		s.pass(15 * time.Minute) // past the write backoff
	}
}

// check fails the test if the account lacks a token or has Secrets that it should not have.
func (s *simulation) check() {
	account := s.server.accounts["team/robot"]
	if account == nil {
		return
	}
	var generated []string
	for _, secret := range s.sortedSecrets() {
		if cache.IsGeneratedName("robot", secret.Name) && secret.Annotations[corev1.ServiceAccountUIDKey] == string(account.UID) && secret.Labels[token.InvalidSinceLabel] == "" {
			generated = append(generated, secret.Name)
			if !s.referred[secret.Name] && s.crashes == 0 {
				s.t.Errorf("%s is not needed and was not deleted", secret.Name)
			}
		}
	}
	if len(generated) > 1 {
		s.t.Errorf("there are several generated secrets: %v", generated)
	}
	hasToken := slices.ContainsFunc(account.Secrets, func(ref corev1.ObjectReference) bool {
		secret := s.server.secrets["team/"+ref.Name]
		return secret != nil && secret.Annotations[corev1.ServiceAccountUIDKey] == string(account.UID)
	})
	if enabled := account.Labels[api.AutoTokenLabel] != "false"; enabled && !hasToken {
		s.t.Errorf("the account refers to %v, none of which is its token", account.Secrets)
	}
}
