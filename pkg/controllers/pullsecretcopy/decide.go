package pullsecretcopy

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	toolscache "k8s.io/client-go/tools/cache"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/cache"
)

// claim is what one template says about one copy.
type claim struct {
	template string
	priority int32
	source   toolscache.ObjectName
}

// claimsFor returns what templates, which are sorted by precedence, say about the copy of a name in a
// namespace.
func claimsFor(namespace *corev1.Namespace, name string, templates []*cache.Template) []claim {
	var claims []claim
	for _, t := range templates {
		if !t.SelectsNamespace(namespace) {
			continue
		}
		for _, secret := range t.Spec.ImagePullSecrets {
			if from := secret.CopyFrom; from != nil && string(secret.Name) == name {
				claims = append(claims, claim{
					template: t.Name, priority: t.Spec.Priority, source: toolscache.NewObjectName(string(from.Namespace), string(from.Name)),
				})
			}
		}
	}
	return claims
}

// state is what is known about one copy.
type state struct {
	key       toolscache.ObjectName
	namespace *corev1.Namespace // nil if it does not exist
	// isServed: copies in the namespace are known, and may be written.
	isServed bool
	// claims are sorted by precedence: the first decides.
	claims []claim
	// isInvalid: it is not known what some template selects.
	isInvalid bool
	// sourceNamespaces are those that may be copied from.
	sourceNamespaces []string
	source           *cache.PullSecret // that of the first claim; nil if it does not exist, or has another type
	copied           *cache.PullSecret // nil if it does not exist
}

type action int

const (
	none action = iota
	create
	apply
	// replace deletes the copy and creates it anew.
	replace
	remove
)

// plan is what is to be done with a copy.
type plan struct {
	action action
	reason string
	// problem says why there is no copy of the source, as users should know it. Nothing can be done.
	problem string
	// conflicts are claims of the same priority as the first that want another source.
	conflicts []claim
}

func decide(s state) plan {
	switch {
	case s.namespace == nil:
		return plan{reason: "namespace does not exist"}
	case s.namespace.Status.Phase != corev1.NamespaceActive:
		return plan{reason: "namespace is not active"}
	case !s.isServed:
		return plan{reason: "namespace is not served"}
	case len(s.claims) > 0:
		p := s.compare()
		for _, c := range s.claims[1:] {
			if c.source != s.claims[0].source && c.priority == s.claims[0].priority {
				p.conflicts = append(p.conflicts, c)
			}
		}
		return p
	case s.copied == nil:
		return plan{reason: "no template names it"}
	case s.copied.DeletionTimestamp != nil:
		return plan{reason: "copy is being deleted"}
	case s.isInvalid:
		return plan{reason: "a template cannot be read"}
	}
	return plan{action: remove, reason: "no template names the copy any more"}
}

// compare decides about a copy that a template names.
func (s state) compare() plan {
	source := s.claims[0].source
	switch {
	case source == s.key:
		return plan{reason: "it is the source itself"}
	case !slices.Contains(s.sourceNamespaces, source.Namespace):
		return plan{reason: "source is not allowed", problem: fmt.Sprintf("the namespace of the source %s is not one of --pull-secret-source-namespaces", source)}
	case s.source == nil:
		return plan{reason: "source is missing", problem: fmt.Sprintf("the source %s does not exist, or its type is neither %s nor %s", source, corev1.SecretTypeDockerConfigJson, corev1.SecretTypeDockercfg)}
	case s.source.IsCopy():
		return plan{reason: "source is a copy", problem: fmt.Sprintf("the source %s is a copy itself", source)}
	case s.copied == nil:
		return plan{action: create, reason: "copy is missing"}
	case s.copied.DeletionTimestamp != nil:
		return plan{reason: "copy is being deleted", problem: "the copy is being deleted"}
	case s.copied.Type != s.source.Type:
		return plan{action: replace, reason: "copy has another type"}
	case s.copied.Annotations[api.CopiedFromAnnotation] != source.String(), s.copied.Annotations[api.CopiedVersionAnnotation] != versionOf(s.source):
		return plan{action: apply, reason: "copy is of another version"}
	case !s.copied.Owned:
		return plan{action: apply, reason: "credentials were changed"}
	}
	return plan{reason: "copy is right"}
}
