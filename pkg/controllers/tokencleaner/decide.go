package tokencleaner

import (
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/cache"
	"github.com/sakeeper/sakeeper/pkg/token"
)

// dateFormat is that of all dates here, which are days in UTC. Dates of this form
// are ordered as strings.
const dateFormat = time.DateOnly

// state is what is known of one token Secret.
type state struct {
	secret *cache.TokenSecret
	// namespace and account are those that the Secret names, nil where there is none
	// of that name and UID.
	namespace *corev1.Namespace
	account   *corev1.ServiceAccount
	mounts    mounts
	// tracked is from when on every use is on record. Zero: nobody can tell.
	tracked time.Time
	// period is for how long a token must be unused, unless a setting says otherwise.
	period time.Duration
	now    time.Time
}

// mounts is what is known of the pods that name a Secret.
type mounts int

const (
	mountsUnknown mounts = iota // the pods were not asked for yet
	mountsNone
	mountsSome
)

type action int

const (
	none   action = iota
	look          // find out which Secrets the pods of the namespace name
	mark          // label the Secret, after which the API server refuses its token
	remove        // delete the Secret
)

// verdict is why something is done with a Secret, or nothing. It is a label of the
// metrics.
type verdict string

const (
	going          verdict = "going"           // it is being deleted, or its namespace is gone
	kept           verdict = "kept"            // people said so
	invalidSetting verdict = "invalid_setting" // people said something that cannot be understood
	untracked      verdict = "untracked"       // uses are not on record for long enough
	young          verdict = "young"
	unreadable     verdict = "unreadable_last_used"
	used           verdict = "used"
	unreferenced   verdict = "unreferenced" // its account does not exist, or does not refer to it
	waiting        verdict = "waiting"      // marked, and not for long enough
	undecided      verdict = "undecided"    // it depends on the pods
	mounted        verdict = "mounted"
	unused         verdict = "unused"  // to be marked
	expired        verdict = "expired" // to be deleted
)

// verdicts are all of them.
func verdicts() []verdict {
	return []verdict{
		going, kept, invalidSetting, untracked, young, unreadable, used, unreferenced, waiting, undecided, mounted, unused, expired,
	}
}

// decision is what comes of a state.
type decision struct {
	action  action
	verdict verdict
	// period is the one that holds for this Secret; meaningless where the verdict did
	// not depend on it.
	period time.Duration
	// complaint is about a mistake that only people can mend. Zero: there is none.
	complaint complaint
}

// complaint is a Warning event, less its object.
type complaint struct {
	// onNamespace: it is about the namespace of the Secret.
	onNamespace  bool
	reason, text string
}

// decide has the rules of in-tree, and before them what people said of this Secret
// or its namespace.
func decide(s state) decision {
	if s.namespace == nil || s.secret.DeletionTimestamp != nil {
		return decision{verdict: going}
	}
	if keep, wrong := s.keep(); keep {
		return decision{verdict: kept, complaint: wrong}
	}
	period, optedIn, wrong := s.cleanUpAfter()
	if wrong.text != "" {
		return decision{verdict: invalidSetting, complaint: wrong}
	}
	d := decision{period: period}
	d.verdict, d.complaint = s.protection(period, optedIn)
	switch {
	case d.verdict != "":
	case s.mounts == mountsUnknown:
		d.action, d.verdict = look, undecided
	case s.mounts == mountsSome:
		d.verdict = mounted
	case !isDate(s.invalidSince()):
		d.action, d.verdict = mark, unused
	default:
		d.action, d.verdict = remove, expired
	}
	return d
}

// protection is what keeps a Secret whatever pods do, empty where nothing does.
// What happened on the day on which the period begins counts as within it, since
// nobody knows at what time of that day.
func (s state) protection(period time.Duration, optedIn bool) (verdict, complaint) {
	begin := s.now.Add(-period)
	beginDate := begin.Format(dateFormat)
	lastUsed, hasUse := s.secret.Labels[token.LastUsedLabel]
	switch {
	case s.tracked.IsZero(), s.now.Before(s.tracked.Add(period)):
		return untracked, complaint{}
	case !s.secret.CreationTimestamp.Time.Before(begin):
		return young, complaint{}
	case hasUse && !isDate(lastUsed):
		return unreadable, complaint{
			reason: api.ReasonUnreadableLastUsed,
			text:   "The label " + token.LastUsedLabel + " is not a date such as 2006-01-02, so nobody can tell whether this token is in use, and it is not cleaned up",
		}
	case hasUse && lastUsed >= beginDate:
		return used, complaint{}
	case s.account == nil, !optedIn && !refersTo(s.account, s.secret.Name):
		return unreferenced, complaint{}
	case isDate(s.invalidSince()) && s.invalidSince() >= beginDate:
		return waiting, complaint{}
	default:
		return "", complaint{}
	}
}

// keep tells whether people want the Secret kept. Who wrote something else than yes
// or no more likely wanted it.
func (s state) keep() (bool, complaint) {
	value, which := cache.Setting(api.KeepAnnotation, s.secret.Annotations, s.namespace.Annotations)
	if which < 0 {
		return false, complaint{}
	}
	keep, err := strconv.ParseBool(value)
	if err != nil {
		return true, s.misset(which, api.KeepAnnotation, "neither true nor false")
	}
	return keep, complaint{}
}

// cleanUpAfter is for how long the token must be unused, and whether people asked
// for that, also if no account refers to it.
func (s state) cleanUpAfter() (period time.Duration, optedIn bool, wrong complaint) {
	value, which := cache.Setting(api.CleanUpUnusedAnnotation, s.secret.Annotations, s.namespace.Annotations)
	if which < 0 {
		return s.period, false, complaint{}
	}
	period, err := time.ParseDuration(value)
	if err != nil || period <= 0 {
		return 0, false, s.misset(which, api.CleanUpUnusedAnnotation, "not a positive duration such as 720h")
	}
	return period, true, complaint{}
}

// misset does not quote the value, which may be anything.
func (s state) misset(which int, annotation, how string) complaint {
	c := complaint{onNamespace: which > 0, reason: api.ReasonInvalidCleanUpSetting, text: "The annotation " + annotation + " is " + how + ". "}
	if c.onNamespace {
		c.text += "Token secrets in this namespace that have no such annotation of their own are not cleaned up"
	} else {
		c.text += "This token secret is not cleaned up"
	}
	return c
}

// invalidSince is empty where the Secret is not marked.
func (s state) invalidSince() string { return s.secret.Labels[token.InvalidSinceLabel] }

func isDate(s string) bool {
	_, err := time.Parse(dateFormat, s)
	return err == nil
}

func refersTo(account *corev1.ServiceAccount, secret string) bool {
	for _, ref := range account.Secrets {
		if ref.Name == secret {
			return true
		}
	}
	return false
}

const (
	// trackingNamespace, trackingName and sinceKey are where the API server says since
	// when it notes uses.
	trackingNamespace = "kube-system"
	trackingName      = "kube-apiserver-legacy-service-account-token-tracking"
	sinceKey          = "since"
)

// readTracking returns from when on every use is on record: the day after the one
// on which that began. Where that cannot be told, it says why.
func readTracking(found *corev1.ConfigMap, now time.Time) (tracked time.Time, trouble string) {
	value, ok := found.Data[sinceKey]
	if !ok {
		return time.Time{}, "the key since is missing"
	}
	since, err := time.Parse(dateFormat, value)
	switch {
	case err != nil:
		return time.Time{}, "the key since is not a date such as 2006-01-02"
	case since.After(now):
		return time.Time{}, "the date in the key since lies in the future"
	default:
		return since.AddDate(0, 0, 1), ""
	}
}
