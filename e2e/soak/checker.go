package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/testkit/controlplane"
)

// violation is a contradiction to what sakeeper promises.
type violation struct {
	// kind is the same for all violations of a promise.
	kind, text string
}

func (v violation) String() string { return v.kind + ": " + v.text }

// sharesKind returns true if both have violations of the same promise.
func sharesKind(a, b findings) bool {
	return slices.ContainsFunc(a, func(v violation) bool {
		return slices.ContainsFunc(b, func(other violation) bool { return v.kind == other.kind })
	})
}

// view is what the API server has at a moment in namespaces that stay.
type view struct {
	namespaces []corev1.Namespace
	accounts   map[string]corev1.ServiceAccount
	secrets    map[string]corev1.Secret
	configMaps map[string]corev1.ConfigMap
	keys       keySet
	now        time.Time
}

func (w *world) look(ctx context.Context) (v view, err error) {
	v = view{accounts: map[string]corev1.ServiceAccount{}, secrets: map[string]corev1.Secret{}, configMaps: map[string]corev1.ConfigMap{}, now: time.Now()}
	core := w.client.CoreV1()
	namespaces, err1 := core.Namespaces().List(ctx, metav1.ListOptions{})
	accounts, err2 := core.ServiceAccounts("").List(ctx, metav1.ListOptions{})
	secrets, err3 := core.Secrets("").List(ctx, metav1.ListOptions{})
	configMaps, err4 := core.ConfigMaps("").List(ctx, metav1.ListOptions{})
	var err5 error
	v.keys, err5 = w.readKeys(ctx)
	if err := errors.Join(err1, err2, err3, err4, err5); err != nil {
		return v, err
	}
	active := map[string]bool{}
	for _, n := range namespaces.Items {
		if n.DeletionTimestamp == nil {
			v.namespaces, active[n.Name] = append(v.namespaces, n), true
		}
	}
	for _, a := range accounts.Items {
		if active[a.Namespace] {
			v.accounts[key(a.Namespace, a.Name)] = a
		}
	}
	for _, s := range secrets.Items {
		if active[s.Namespace] {
			v.secrets[key(s.Namespace, s.Name)] = s
		}
	}
	for _, c := range configMaps.Items {
		v.configMaps[key(c.Namespace, c.Name)] = c
	}
	return v, nil
}

// findings gathers violations.
type findings []violation

func (f *findings) add(kind, format string, args ...any) {
	*f = append(*f, violation{kind, fmt.Sprintf(format, args...)})
}

// compare compares what there is with what users have made and sakeeper promises.
func (v view) compare(m *model, ca string) findings {
	var f findings
	for _, n := range v.namespaces {
		if _, ok := v.accounts[key(n.Name, "default")]; !ok {
			f.add("account", "namespace %s has no default account", n.Name)
		}
		if got := v.configMaps[key(n.Name, api.RootCAConfigMap)].Data; len(got) != 1 || got[corev1.ServiceAccountRootCAKey] != ca {
			f.add("root-ca", "ConfigMap of %s has not the CA (keys %v)", n.Name, slices.Sorted(maps.Keys(got)))
		}
	}
	for name, s := range v.secrets {
		switch {
		case s.Type == corev1.SecretTypeServiceAccountToken:
			v.compareToken(&f, s, ca)
		case isManaged(s):
			v.compareManaged(&f, s, ca)
		}
		if known, ok := m.Secrets[name]; ok && known.Content != nil {
			compareForeign(&f, name, s, known)
		}
	}
	v.compareModel(&f, m)
	return f
}

func isManaged(s corev1.Secret) bool {
	return s.Labels[api.TokenLabel] == api.TokenManaged && s.Type == corev1.SecretTypeOpaque
}

func compareForeign(f *findings, name string, s corev1.Secret, known thing) {
	content := map[string]string{}
	for k, value := range s.Data {
		content[k] = string(value)
	}
	if !maps.Equal(content, known.Content) || string(s.Type) != known.Type || s.Annotations[api.ProblemAnnotation]+s.Annotations[api.ExpiresAtAnnotation] != "" {
		f.add("foreign", "Secret %s of type %s was changed", name, s.Type)
	}
}

// compareModel finds what users have made, and what is not there.
func (v view) compareModel(f *findings, m *model) {
	for name, known := range m.Accounts {
		account := v.accounts[name]
		if string(account.UID) != known.UID {
			f.add("lost-account", "account %s has UID %q, want %q", name, account.UID, known.UID)
			continue
		}
		for _, refers := range known.Refers {
			if !slices.ContainsFunc(account.Secrets, func(r corev1.ObjectReference) bool { return r.Name == refers }) {
				f.add("reference", "account %s does not list Secret %s, which exists", name, refers)
			}
		}
	}
	for name, account := range v.accounts {
		for _, r := range account.Secrets {
			if _, exists := v.secrets[key(account.Namespace, r.Name)]; !exists && strings.HasPrefix(r.Name, account.Name+"-token-") {
				f.add("stale-reference", "account %s lists Secret %s, which is gone", name, r.Name)
			}
		}
	}
	for name, known := range m.Secrets {
		if string(v.secrets[name].UID) != known.UID {
			f.add("lost-secret", "Secret %s has UID %q, want %q", name, v.secrets[name].UID, known.UID)
		}
	}
}

// compareToken checks a token Secret: it is right, or gone.
func (v view) compareToken(f *findings, s corev1.Secret, ca string) {
	name := key(s.Namespace, s.Name)
	account, ok := v.accounts[key(s.Namespace, s.Annotations[corev1.ServiceAccountNameKey])]
	if !ok {
		f.add("orphan", "Secret %s of account %s, which is gone", name, s.Annotations[corev1.ServiceAccountNameKey])
		return
	}
	if got := s.Annotations[corev1.ServiceAccountUIDKey]; got != string(account.UID) {
		f.add("owner", "Secret %s names UID %q, and the account has %q", name, got, account.UID)
	}
	if string(s.Data[corev1.ServiceAccountRootCAKey]) != ca || string(s.Data[corev1.ServiceAccountNamespaceKey]) != s.Namespace {
		f.add("content", "Secret %s has not the CA or the namespace", name)
	}
	got, err := v.keys.verify(string(s.Data[corev1.ServiceAccountTokenKey]))
	switch {
	case err != nil:
		f.add("token", "Secret %s: %v", name, err)
	case got.Subject != subject(account) || got.LegacyUID != string(account.UID) || got.LegacySecret != s.Name || got.LegacyNamespace != s.Namespace:
		f.add("token", "token in Secret %s is of %s (UID %s) for Secret %s", name, got.Subject, got.LegacyUID, got.LegacySecret)
	case got.keyID != v.keys.signing:
		f.add("key", "token in Secret %s is signed by %s, and %s signs now", name, got.keyID, v.keys.signing)
	}
}

// compareManaged checks a managed Secret.
func (v view) compareManaged(f *findings, s corev1.Secret, ca string) {
	name := key(s.Namespace, s.Name)
	token := string(s.Data[corev1.ServiceAccountTokenKey])
	account, ok := v.accounts[key(s.Namespace, s.Annotations[api.ServiceAccountAnnotation])]
	if !ok {
		if token != "" {
			f.add("managed-orphan", "managed Secret %s has a token of an account that is gone", name)
		}
		return
	}
	got, err := v.keys.verify(token)
	if err != nil {
		f.add("managed", "managed Secret %s: %v", name, err)
		return
	}
	if got.Subject != subject(account) || got.Bound.Account.UID != string(account.UID) || got.Bound.Secret.UID != string(s.UID) {
		f.add("managed", "token in managed Secret %s is of %s (UID %s), bound to %+v", name, got.Subject, got.Bound.Account.UID, got.Bound.Secret)
	}
	if expires := got.Expiry.Time().UTC(); s.Annotations[api.ExpiresAtAnnotation] != expires.Format(time.RFC3339) {
		f.add("managed-expiry", "managed Secret %s says that its token expires at %s, which does at %v", name, s.Annotations[api.ExpiresAtAnnotation], expires)
	} else if expires.Before(v.now.Add(time.Minute)) { // of ten
		f.add("managed-expiry", "token in managed Secret %s expires at %v", name, expires)
	}
	if string(s.Data[corev1.ServiceAccountRootCAKey]) != ca {
		f.add("managed", "managed Secret %s has not the CA", name)
	}
	if rotate := s.Annotations[api.RotateAnnotation]; rotate != s.Annotations[api.RotatedAnnotation] {
		f.add("managed", "managed Secret %s is not rotated", name)
	}
}

func subject(a corev1.ServiceAccount) string {
	return "system:serviceaccount:" + a.Namespace + ":" + a.Name
}

// check waits until everything is right, and returns what is not.
func (c *checker) check(ctx context.Context, w *world) (findings, error) {
	if f, err := w.mend(ctx); err != nil || len(f) > 0 {
		return f, err
	}
	for deadline := time.Now().Add(c.guard); ; {
		v, err := w.look(ctx)
		if err != nil {
			return nil, err
		}
		last := append(v.compare(w.model, string(w.ca.good())), v.adopted(w.filled)...)
		if len(last) == 0 {
			last, err = w.review(ctx, v)
			if err != nil {
				return nil, err
			}
		}
		if found := append(w.secrets.violations(), c.lies(ctx, w)...); len(found) > 0 {
			return found, nil // no matter what else is not right yet
		}
		if len(last) == 0 {
			return c.rest(ctx, w)
		}
		if time.Now().After(deadline) {
			return last, nil
		}
		time.Sleep(time.Second)
	}
}

// adopted notes for which account each token Secret was filled, and finds those that were filled for
// another one before: such a Secret must go with its account.
func (v view) adopted(filled map[string]string) (f findings) {
	for name, s := range v.secrets {
		uid, account := string(s.UID), s.Annotations[corev1.ServiceAccountUIDKey]
		if s.Type != corev1.SecretTypeServiceAccountToken || account == "" {
			continue
		}
		if former, ok := filled[uid]; ok && former != account {
			f.add("adopted", "Secret %s was of the account with UID %s, and is of %s now", name, former, account)
		} else if owner, ok := v.accounts[key(s.Namespace, s.Annotations[corev1.ServiceAccountNameKey])]; ok && string(owner.UID) == account {
			filled[uid] = account
		}
	}
	return f
}

// checker checks a world. Its guard is the longest time that anything may take after the last
// disturbance.
type checker struct {
	guard time.Duration
	// mark is up to where the audit log was checked.
	mark controlplane.Mark
	lead lead
}
