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

// TestWhateverHappens lets anything happen in any order (syncs, caches that lag by any
// amount, each on its own, also at the start; requests that fail, that are carried out
// without an answer, or that are carried out late; crashes at any request; people who
// delete, mark, label and refer) and looks at what there is when all is quiet again.
func TestWhateverHappens(t *testing.T) {
	for seed := range uint64(1000) {
		if !t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			u := newUniverse(t, seed)
			for range 80 {
				u.step()
			}
			u.calm()
			u.check()
			if t.Failed() {
				t.Log(strings.Join(u.story, "\n"))
			}
		}) {
			return
		}
	}
}

// step lets one thing happen.
func (u *universe) step() {
	if u.crashed && u.random.IntN(3) == 0 {
		u.restart()
	}
	switch n := u.random.IntN(20); {
	case n < 8:
		u.sync()
	case n < 11:
		u.watch(&u.seenAccounts, false)
	case n < 14:
		u.watch(&u.seenSecrets, true)
	case n < 16:
		u.pass(time.Duration(u.random.IntN(9000)) * time.Millisecond)
	default:
		u.people()
	}
}

func (u *universe) restart() {
	u.tell("restart")
	u.start(u.clock.Now())
	u.tell("caches at %d and %d of %d", u.seenAccounts, u.seenSecrets, len(u.model.history))
}

func (u *universe) sync() {
	if u.crashed {
		return
	}
	again, err := u.Controller.sync(u.t.Context(), robotKey())
	u.tell("synced: again %v, %v", again, err)
}

// watch lets a cache see some of what happened, in its order.
func (u *universe) watch(seen *int, secrets bool) {
	for range u.random.IntN(4) {
		if *seen < len(u.model.history) && !u.crashed {
			u.show(u.model.history[*seen], secrets)
			*seen++
		}
	}
}

// pass sets the clock forward, past what comes late.
func (u *universe) pass(d time.Duration) {
	now := u.clock.Now().Add(d)
	u.late = slices.DeleteFunc(u.late, func(l lateCreate) bool {
		if now.Before(l.deadline) && u.random.IntN(4) > 0 {
			return false
		}
		_, err := u.model.create(l.secret.DeepCopy())
		u.tell("late create of %s: %v", l.secret.Name, err)
		if err == nil {
			u.noteCreated(l.secret.Name)
		}
		return true
	})
	u.clock.SetTime(now)
}

// birth creates team/robot, once more.
func (u *universe) birth() {
	u.births++
	u.model.setAccount(robot(testkit.WithUID(types.UID(fmt.Sprint("life-", u.births))), func(o metav1.Object) {
		o.SetCreationTimestamp(metav1.NewTime(u.clock.Now().Truncate(time.Second)))
	}))
}

// people do one of the things that they do.
func (u *universe) people() {
	account := u.model.accounts["team/robot"]
	if account == nil {
		u.tell("people create the account")
		u.birth()
		return
	}
	changed := account.DeepCopy()
	switch u.random.IntN(10) {
	case 0:
		u.tell("people delete the account")
		u.model.removeAccount("team/robot")
		return
	case 1, 2, 3:
		u.deleteSecret()
		return
	case 4:
		u.tell("the token controller drops references")
		for key := range u.formerSecrets() {
			u.model.dropReferences(key)
		}
		return
	case 5:
		u.tell("people drop all references")
		changed.Secrets = nil
	case 6:
		value := []string{"true", "false", ""}[u.random.IntN(3)]
		u.tell("people label %q", value)
		changed.Labels = map[string]string{api.AutoTokenLabel: value}
	case 7:
		u.mark()
		return
	case 8:
		u.tell("people refer to a token of their own")
		if u.model.secrets["team/mine"] == nil {
			u.model.setSecret("team/mine", tokenSecret("mine", testkit.WithAccountUID(account.UID), testkit.WithResourceVersion(u.model.next())))
		}
		changed.Secrets = append(changed.Secrets, corev1.ObjectReference{Name: "mine"})
	default:
		u.tell("people change the account")
		changed.Annotations = map[string]string{"note": fmt.Sprint(len(u.story))}
	}
	u.model.setAccount(changed)
	u.noteReferred(changed)
}

// sortedSecrets are in an order that depends on nothing but their names.
func (u *universe) sortedSecrets() []*corev1.Secret {
	var secrets []*corev1.Secret
	for _, secret := range u.model.secrets {
		secrets = append(secrets, secret)
	}
	slices.SortFunc(secrets, func(a, b *corev1.Secret) int { return strings.Compare(a.Name, b.Name) })
	return secrets
}

func (u *universe) deleteSecret() {
	if secrets := u.sortedSecrets(); len(secrets) > 0 {
		secret := secrets[u.random.IntN(len(secrets))]
		u.tell("people delete secret %s", secret.Name)
		u.model.setSecret("team/"+secret.Name, nil)
	}
}

func (u *universe) mark() {
	if secrets := u.sortedSecrets(); len(secrets) > 0 {
		secret := secrets[u.random.IntN(len(secrets))].DeepCopy()
		u.tell("the cleaner marks secret %s", secret.Name)
		testkit.WithLabel(token.InvalidSinceLabel, "2026-01-01")(secret)
		secret.ResourceVersion = u.model.next()
		u.model.setSecret("team/"+secret.Name, secret)
	}
}

func (u *universe) formerSecrets() map[string]bool {
	keys := map[string]bool{}
	for _, c := range u.model.history {
		if c.formerSecret != nil && u.model.secrets["team/"+c.formerSecret.Name] == nil {
			keys["team/"+c.formerSecret.Name] = true
		}
	}
	return keys
}

// calm ends all faults and lets everything come to rest.
func (u *universe) calm() {
	u.tell("calm")
	u.calmed = true
	if u.crashed {
		u.restart()
	}
	for range 20 {
		for key := range u.formerSecrets() {
			u.model.dropReferences(key)
		}
		for u.seenAccounts < len(u.model.history) {
			u.watch(&u.seenAccounts, false)
		}
		for u.seenSecrets < len(u.model.history) {
			u.watch(&u.seenSecrets, true)
		}
		u.sync()
		u.pass(15 * time.Minute) // past what was undone too often
	}
}

// check tells whether there is what should be.
func (u *universe) check() {
	account := u.model.accounts["team/robot"]
	if account == nil {
		return
	}
	var generated []string
	for _, secret := range u.sortedSecrets() {
		if cache.IsGeneratedName("robot", secret.Name) && secret.Annotations[corev1.ServiceAccountUIDKey] == string(account.UID) && secret.Labels[token.InvalidSinceLabel] == "" {
			generated = append(generated, secret.Name)
			if !u.referred[secret.Name] && u.crashes == 0 {
				u.t.Errorf("%s was made for nothing and stays", secret.Name)
			}
		}
	}
	if len(generated) > 1 {
		u.t.Errorf("there are %v", generated)
	}
	live := slices.ContainsFunc(account.Secrets, func(ref corev1.ObjectReference) bool {
		secret := u.model.secrets["team/"+ref.Name]
		return secret != nil && secret.Annotations[corev1.ServiceAccountUIDKey] == string(account.UID)
	})
	if wanted := account.Labels[api.AutoTokenLabel] != "false"; wanted && !live {
		u.t.Errorf("the account refers to %v, of which none is its token", account.Secrets)
	}
}
