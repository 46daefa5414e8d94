package tokengeneration

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"

	"github.com/sakeeper/sakeeper/pkg/cache"
)

// plan is what this process has under way for one ServiceAccount. It is kept until the
// caches show all of it.
type plan struct {
	// account is the UID of the account; empty: there is no plan.
	account types.UID
	// name is that of the Secret; empty: none was chosen.
	name string
	// doubt, where not zero, is until when a create of that name may still be carried
	// out that the API server did not answer.
	doubt time.Time
	// secret is the UID of the Secret that was made; empty: none that is known of.
	secret types.UID
	// exposed: a reference to it was written, or may have been.
	exposed bool
	// version is that of the account with the reference; empty: none was written.
	version string
	// conflicts counts references in a row that the API server refused because the
	// account had changed.
	conflicts int
	// refused: the API server refuses references to this account, so it is asked
	// before another Secret is made.
	refused bool
}

func (p plan) inDoubt() bool { return p.secret == "" && !p.doubt.IsZero() }

// withdrawable tells whether a Secret was made that nobody can know of.
func (p plan) withdrawable() bool { return p.secret != "" && !p.exposed }

// plans are the plans of all accounts. A plan goes with the last thing that it says.
type plans struct {
	mu        sync.Mutex
	byAccount map[toolscache.ObjectName]*plan
}

func newPlans() *plans { return &plans{byAccount: map[toolscache.ObjectName]*plan{}} }

func (p *plans) of(account toolscache.ObjectName) plan {
	p.mu.Lock()
	defer p.mu.Unlock()
	if found := p.byAccount[account]; found != nil {
		return *found
	}
	return plan{}
}

func (p *plans) drop(account toolscache.ObjectName) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.byAccount, account)
}

// update changes the plan of account, whose UID is uid, and returns it.
func (p *plans) update(account toolscache.ObjectName, uid types.UID, change func(*plan)) plan {
	p.mu.Lock()
	defer p.mu.Unlock()
	found := p.byAccount[account]
	if found == nil || found.account != uid {
		found = &plan{account: uid}
		p.byAccount[account] = found
	}
	change(found)
	return *found
}

// choose gives the plan of account a name, unless it has one.
func (p *plans) choose(account toolscache.ObjectName, uid types.UID) plan {
	return p.update(account, uid, func(p *plan) {
		if p.name == "" {
			p.name = cache.GenerateName(account.Name)
		}
	})
}

// made notes that the Secret of that name exists, unless it was seen going, and tells
// which.
func (p *plans) made(account toolscache.ObjectName, uid types.UID, name string, secret types.UID) bool {
	return p.update(account, uid, func(p *plan) {
		p.doubt = time.Time{}
		if p.name == name {
			p.secret = secret
		}
	}).name == name
}

// forget drops the Secret of that name from the plan of account: it is not there, and
// never will be again.
func (p *plans) forget(account toolscache.ObjectName, name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if found := p.byAccount[account]; found != nil && found.name == name {
		*found = plan{account: found.account, conflicts: found.conflicts, refused: found.refused, version: found.version}
	}
}

// gone notes that secret went.
func (p *plans) gone(secret *cache.TokenSecret) { p.forget(secret.AccountName(), secret.Name) }
