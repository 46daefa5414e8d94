package tokengeneration

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"

	"github.com/sakeeper/sakeeper/pkg/cache"
)

// plan is what this process is doing, or has done, for one ServiceAccount. It is kept
// until the caches show all of it.
type plan struct {
	// accountUID is empty if there is no plan.
	accountUID types.UID
	// secretName is empty if none was chosen.
	secretName string
	// createDeadline is set after a create of secretName that the API server did not
	// answer: until then it may still be carried out.
	createDeadline time.Time
	// secretUID is that of the created Secret; empty: none is known to exist.
	secretUID types.UID
	// maybeReferenced: a reference to the Secret was written, or may have been.
	maybeReferenced bool
	// accountVersion is the resourceVersion with the reference; empty: none was written.
	accountVersion string
	// conflicts counts consecutive references that the API server rejected because the
	// account had changed.
	conflicts int
	// rejected: the API server rejects references of this account, so a dry run comes
	// before the next create.
	rejected bool
}

// createUnknown returns true if the API server did not say whether the Secret was created.
func (p plan) createUnknown() bool { return p.secretUID == "" && !p.createDeadline.IsZero() }

// deletable returns true if a Secret was created to which there can be no reference.
func (p plan) deletable() bool { return p.secretUID != "" && !p.maybeReferenced }

// plans holds the plans of all accounts. It is safe for concurrent use.
type plans struct {
	mu        sync.Mutex
	byAccount map[toolscache.ObjectName]*plan
}

func newPlans() *plans { return &plans{byAccount: map[toolscache.ObjectName]*plan{}} }

func (p *plans) get(account toolscache.ObjectName) plan {
	p.mu.Lock()
	defer p.mu.Unlock()
	if found := p.byAccount[account]; found != nil {
		return *found
	}
	return plan{}
}

func (p *plans) delete(account toolscache.ObjectName) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.byAccount, account)
}

// update changes the plan of account, whose UID is uid, and returns it.
func (p *plans) update(account toolscache.ObjectName, uid types.UID, change func(*plan)) plan {
	p.mu.Lock()
	defer p.mu.Unlock()
	found := p.byAccount[account]
	if found == nil || found.accountUID != uid {
		found = &plan{accountUID: uid}
		p.byAccount[account] = found
	}
	change(found)
	return *found
}

// chooseName gives the plan of account a Secret name, unless it has one.
func (p *plans) chooseName(account toolscache.ObjectName, uid types.UID) plan {
	return p.update(account, uid, func(p *plan) {
		if p.secretName == "" {
			p.secretName = cache.GenerateName(account.Name)
		}
	})
}

// recordCreated records that the Secret exists. It returns false if the Secret was
// already seen to be deleted.
func (p *plans) recordCreated(account toolscache.ObjectName, uid types.UID, secretName string, secretUID types.UID) bool {
	return p.update(account, uid, func(p *plan) {
		p.createDeadline = time.Time{}
		if p.secretName == secretName {
			p.secretUID = secretUID
		}
	}).secretName == secretName
}

// forgetSecret removes the Secret from the plan of account: it does not exist, and its
// name will not be used again.
func (p *plans) forgetSecret(account toolscache.ObjectName, secretName string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if found := p.byAccount[account]; found != nil && found.secretName == secretName {
		*found = plan{accountUID: found.accountUID, conflicts: found.conflicts, rejected: found.rejected, accountVersion: found.accountVersion}
	}
}
