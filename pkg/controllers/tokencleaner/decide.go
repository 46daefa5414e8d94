package tokencleaner

import (
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/cache"
	"github.com/sakeeper/sakeeper/pkg/token"
)

// dateFormat is the format of all dates, which are days in UTC. Dates in this format compare
// as strings do.
const dateFormat = time.DateOnly

// state has what the decision on one token Secret depends on.
type state struct {
	secret *cache.TokenSecret
	// namespace and account are those of the Secret, nil if they do not exist. An account
	// with another UID than the Secret names does not count.
	namespace *corev1.Namespace
	account   *corev1.ServiceAccount
	mounts    mounts
	// tracked is the time since which every use is recorded. Zero: unknown.
	tracked time.Time
	// period is how long a token must be unused, unless an annotation says otherwise.
	period time.Duration
	now    time.Time
}

// mounts says whether any pod refers to a Secret.
type mounts int

const (
	mountsUnknown mounts = iota // the pods were not listed yet
	mountsNone
	mountsSome
)

type action int

const (
	none      action = iota
	checkPods        // list the pods of the namespace, and decide again
	mark             // label the Secret, after which the API server refuses its token
	remove           // delete the Secret
)

// verdict is the reason for the action. It is a label value of the metrics.
type verdict string

const (
	going          verdict = "going"           // it is being deleted, or its namespace does not exist
	kept           verdict = "kept"            // an annotation says so
	invalidSetting verdict = "invalid_setting" // an annotation has no valid value
	untracked      verdict = "untracked"       // uses are not recorded for long enough
	young          verdict = "young"
	unreadable     verdict = "unreadable_last_used"
	used           verdict = "used"
	unreferenced   verdict = "unreferenced" // its account does not exist, or does not refer to it
	waiting        verdict = "waiting"      // marked, but not for long enough
	undecided      verdict = "undecided"    // it depends on the pods
	mounted        verdict = "mounted"
	unused         verdict = "unused"  // to be marked
	expired        verdict = "expired" // to be deleted
)

// verdicts returns all verdicts.
func verdicts() []verdict {
	return []verdict{
		going, kept, invalidSetting, untracked, young, unreadable, used, unreferenced, waiting, undecided, mounted, unused, expired,
	}
}

// decision is the result of decide.
type decision struct {
	action  action
	verdict verdict
	// period is the one that applies to this Secret; zero if the verdict does not depend on
	// it.
	period time.Duration
	// warning is about a mistake that only a user can fix. Zero: there is none.
	warning warning
}

// warning is a Warning event on the Secret or its namespace.
type warning struct {
	// onNamespace is true if the event is on the namespace of the Secret.
	onNamespace  bool
	reason, text string
}

// decide applies the annotations of the Secret and its namespace, and then the rules of
// legacy-serviceaccount-token-cleaner-controller.
func decide(s state) decision {
	if s.namespace == nil || s.secret.DeletionTimestamp != nil {
		return decision{verdict: going}
	}
	if keep, w := s.keep(); keep {
		return decision{verdict: kept, warning: w}
	}
	period, optedIn, w := s.cleanUpAfter()
	if w.text != "" {
		return decision{verdict: invalidSetting, warning: w}
	}
	d := decision{period: period}
	d.verdict, d.warning = s.protection(period, optedIn)
	switch {
	case d.verdict != "":
	case s.mounts == mountsUnknown:
		d.action, d.verdict = checkPods, undecided
	case s.mounts == mountsSome:
		d.verdict = mounted
	case !isDate(s.invalidSince()):
		d.action, d.verdict = mark, unused
	default:
		d.action, d.verdict = remove, expired
	}
	return d
}

// protection returns the reason to keep a Secret whether or not pods refer to it, empty if
// there is none. A use or mark on the day on which the period begins counts as within the
// period, because its time of day is not recorded.
func (s state) protection(period time.Duration, optedIn bool) (verdict, warning) {
	begin := s.now.Add(-period)
	beginDate := begin.Format(dateFormat)
	lastUsed, hasUse := s.secret.Labels[token.LastUsedLabel]
	switch {
	case s.tracked.IsZero(), s.now.Before(s.tracked.Add(period)):
		return untracked, warning{}
	case !s.secret.CreationTimestamp.Time.Before(begin):
		return young, warning{}
	case hasUse && !isDate(lastUsed):
		return unreadable, warning{
			reason: api.ReasonUnreadableLastUsed,
			text:   "The label " + token.LastUsedLabel + " is not a date such as 2006-01-02, so it is unknown whether this token is in use, and it is not cleaned up",
		}
	case hasUse && lastUsed >= beginDate:
		return used, warning{}
	case s.account == nil, !optedIn && !refersTo(s.account, s.secret.Name):
		return unreferenced, warning{}
	case isDate(s.invalidSince()) && s.invalidSince() >= beginDate:
		return waiting, warning{}
	default:
		return "", warning{}
	}
}

// keep returns true if an annotation says that the Secret must be kept. An invalid value
// counts as true: the user who set it more likely meant that, and a deletion is final.
func (s state) keep() (bool, warning) {
	value, which := cache.Setting(api.KeepAnnotation, s.secret.Annotations, s.namespace.Annotations)
	if which < 0 {
		return false, warning{}
	}
	keep, err := strconv.ParseBool(value)
	if err != nil {
		return true, settingWarning(which, api.KeepAnnotation, "neither true nor false")
	}
	return keep, warning{}
}

// cleanUpAfter returns how long the token must be unused. optedIn is true if an annotation
// says so, which also holds if no ServiceAccount refers to the Secret.
func (s state) cleanUpAfter() (period time.Duration, optedIn bool, _ warning) {
	value, which := cache.Setting(api.CleanUpUnusedAnnotation, s.secret.Annotations, s.namespace.Annotations)
	if which < 0 {
		return s.period, false, warning{}
	}
	period, err := time.ParseDuration(value)
	if err != nil || period <= 0 {
		return 0, false, settingWarning(which, api.CleanUpUnusedAnnotation, "not a positive duration such as 720h")
	}
	return period, true, warning{}
}

// settingWarning reports an annotation whose value has the given problem; which is the result
// of [cache.Setting]. The text does not quote the value, which may be anything.
func settingWarning(which int, annotation, problem string) warning {
	w := warning{onNamespace: which > 0, reason: api.ReasonInvalidCleanUpSetting, text: "The annotation " + annotation + " is " + problem + ". "}
	if w.onNamespace {
		w.text += "Token secrets in this namespace that have no such annotation of their own are not cleaned up"
	} else {
		w.text += "This token secret is not cleaned up"
	}
	return w
}

// invalidSince returns the date of the mark, empty if the Secret is not marked.
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
	// trackingNamespace, trackingName and sinceKey are the ConfigMap and the key in which the
	// API server publishes since when it records uses.
	trackingNamespace = "kube-system"
	trackingName      = "kube-apiserver-legacy-service-account-token-tracking"
	sinceKey          = "since"
)

// readTracking returns the time since which every use is recorded: the beginning of the day
// after the one on which the API server began. If that is unknown, problem says why.
func readTracking(found *corev1.ConfigMap, now time.Time) (tracked time.Time, problem string) {
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
