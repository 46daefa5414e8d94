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
		s.watch(&s.seenAccounts, false, s.random.IntN(4))
	case n < 14:
		s.watch(&s.seenSecrets, true, s.random.IntN(4))
	case n < 16:
		s.pass(time.Duration(s.random.IntN(9000)) * time.Millisecond)
	default:
		s.randomChange()
	}
}

func (s *simulation) restart() {
	s.start(s.server, s.clock.Now())
	s.logf("restarted with caches at %d and %d of %d", s.seenAccounts, s.seenSecrets, len(s.history))
}

func (s *simulation) sync() {
	if s.crashed {
		return
	}
	s.syncing = true
	again, err := s.Controller.sync(s.t.Context(), robotKey())
	s.syncing = false
	s.logf("synced: again %v, %v", again, err)
}

// pass advances the clock, and carries out delayed creates.
func (s *simulation) pass(d time.Duration) {
	now := s.clock.Now().Add(d)
	s.delayed = slices.DeleteFunc(s.delayed, func(l delayedCreate) bool {
		if now.Before(l.deadline) && s.random.IntN(4) > 0 {
			return false
		}
		if s.secret(l.secret.Name) == nil {
			l.secret.UID = types.UID("late-" + l.secret.Name)
			s.server.Set(l.secret)
		}
		return true
	})
	s.clock.SetTime(now)
}

// createAccount creates team/robot with a new UID.
func (s *simulation) createAccount() {
	s.accountsCreated++
	s.server.Set(robot(testkit.WithUID(types.UID(fmt.Sprint("account-", s.accountsCreated))), func(o metav1.Object) {
		o.SetCreationTimestamp(metav1.NewTime(s.clock.Now().Truncate(time.Second)))
	}))
}

// randomChange makes a change that a user or another controller may make.
func (s *simulation) randomChange() {
	account := s.account()
	if account == nil {
		s.createAccount()
		return
	}
	switch s.random.IntN(10) {
	case 0:
		s.server.Remove(account)
		return
	case 1, 2, 3:
		if secret := s.randomSecret(); secret != nil {
			s.server.Remove(secret)
		}
		return
	case 4:
		s.dropReferences()
		return
	case 5:
		account.Secrets = nil
	case 6:
		account.Labels = map[string]string{api.AutoTokenLabel: []string{"true", "false", ""}[s.random.IntN(3)]}
	case 7:
		if secret := s.randomSecret(); secret != nil {
			testkit.WithLabel(token.InvalidSinceLabel, "2026-01-01")(secret)
			s.server.Set(secret)
		}
		return
	case 8:
		if s.secret("mine") == nil {
			s.server.Set(tokenSecret("mine", testkit.WithAccountUID(account.UID)))
		}
		account.Secrets = append(account.Secrets, corev1.ObjectReference{Name: "mine"})
	default:
		account.Annotations = map[string]string{"note": fmt.Sprint(len(s.log))}
	}
	s.server.Set(account)
}

// randomSecret returns one of the Secrets, or nil if there is none.
func (s *simulation) randomSecret() *corev1.Secret {
	all := s.secrets()
	if len(all) == 0 {
		return nil
	}
	return all[s.random.IntN(len(all))]
}

// dropReferences removes references to deleted Secrets, as the controller of references does.
func (s *simulation) dropReferences() {
	account := s.account()
	if account == nil {
		return
	}
	existed := map[string]bool{}
	for _, c := range s.history {
		if secret, ok := c.before.(*corev1.Secret); ok {
			existed[secret.Name] = true
		}
	}
	before := len(account.Secrets)
	account.Secrets = slices.DeleteFunc(account.Secrets, func(ref corev1.ObjectReference) bool { return existed[ref.Name] && s.secret(ref.Name) == nil })
	if len(account.Secrets) != before {
		s.server.Set(account)
	}
}

// quiesce stops all faults, and syncs until nothing more is to do.
func (s *simulation) quiesce() {
	s.logf("no more faults")
	s.noFaults = true
	if s.crashed {
		s.restart()
	}
	for range 20 {
		s.dropReferences()
		s.watch(&s.seenAccounts, false, len(s.history))
		s.watch(&s.seenSecrets, true, len(s.history))
		s.sync()
		s.pass(15 * time.Minute) // past the write backoff
	}
}

// check fails the test if the account lacks a token or has Secrets that it should not have.
func (s *simulation) check() {
	account := s.account()
	if account == nil {
		return
	}
	var generated []string
	for _, secret := range s.secrets() {
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
		secret := s.secret(ref.Name)
		return secret != nil && secret.Annotations[corev1.ServiceAccountUIDKey] == string(account.UID)
	})
	if enabled := account.Labels[api.AutoTokenLabel] != "false"; enabled && !hasToken {
		s.t.Errorf("the account refers to %v, none of which is its token", account.Secrets)
	}
}
