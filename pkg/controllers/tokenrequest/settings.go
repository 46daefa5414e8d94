package tokenrequest

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/sakeeper/sakeeper/pkg/api"
	"github.com/sakeeper/sakeeper/pkg/token"
)

const (
	defaultLifetime = 24 * time.Hour
	// minLifetime and maxLifetime are what API servers accept; one that allows less than
	// maxLifetime shortens by itself.
	minLifetime = 10 * time.Minute
	maxLifetime = (1 << 32) * time.Second
	// longestQuote bounds what an event quotes of an annotation.
	longestQuote = 64
)

// asked is what a Secret asks for.
type asked struct {
	account   string
	audiences []string
	lifetime  time.Duration
	format    format
	// server is the URL of the API server, in formats that have one.
	server string
	// tokenKey is the key of the token, in formats where it has one of its own.
	tokenKey string
}

// parse reads annotations. A problem says which annotation, and what is allowed;
// there are no more than one of each.
func parse(annotations map[string]string, publicServer string) (a asked, problems []string) {
	report := func(annotation, format string, args ...any) {
		problems = append(problems, annotation+": "+fmt.Sprintf(format, args...))
	}
	a.account = annotations[api.ServiceAccountAnnotation]
	if len(validation.IsDNS1123Subdomain(a.account)) > 0 {
		report(api.ServiceAccountAnnotation, "%s is not the name of a ServiceAccount; set it to one in this namespace", quote(a.account))
	}
	if text, ok := annotations[api.AudiencesAnnotation]; ok {
		a.audiences = strings.Split(text, ",")
		if slices.ContainsFunc(a.audiences, blank) {
			report(api.AudiencesAnnotation, "%s has an empty audience or a blank; separate audiences by commas alone, or remove the annotation for the API server's own", quote(text))
		}
	}
	var err error
	if a.lifetime, err = parseLifetime(annotations); err != nil {
		report(api.LifetimeAnnotation, "%v", err)
	}
	a.format = format(annotations[api.FormatAnnotation])
	if _, ok := annotations[api.FormatAnnotation]; !ok {
		a.format = formatToken
	}
	if !slices.Contains(formats(), a.format) {
		report(api.FormatAnnotation, "%s is not one of %s", quote(string(a.format)), formatNames())
		return a, problems // what depends on the format is not known
	}
	if a.tokenKey, err = parseTokenKey(annotations, a.format); err != nil {
		report(api.TokenKeyAnnotation, "%v", err)
	}
	if a.server, err = parseServer(annotations, a.format, publicServer); err != nil {
		report(api.ServerAnnotation, "%v", err)
	}
	return a, problems
}

func blank(audience string) bool { return audience == "" || strings.ContainsAny(audience, " \t\r\n") }

func parseLifetime(annotations map[string]string) (time.Duration, error) {
	text, ok := annotations[api.LifetimeAnnotation]
	if !ok {
		return defaultLifetime, nil
	}
	lifetime, err := time.ParseDuration(text)
	if err != nil || lifetime < minLifetime || lifetime > maxLifetime {
		return 0, fmt.Errorf("%s is not a duration from 10m to 1193046h, such as 24h", quote(text))
	}
	return lifetime.Truncate(time.Second), nil
}

func parseTokenKey(annotations map[string]string, f format) (string, error) {
	text, ok := annotations[api.TokenKeyAnnotation]
	switch {
	case f != formatCustom && ok:
		return "", fmt.Errorf("is for %s=%s alone; set that, or remove the annotation", api.FormatAnnotation, formatCustom)
	case f == formatToken:
		return keyToken, nil
	case f != formatCustom:
		return "", nil
	case len(validation.IsConfigMapKey(text)) > 0 || text == keyCA || text == keyNamespace:
		return "", fmt.Errorf("%s is not a key for the token; set it to one of letters, digits, '-', '_' and '.', other than %s and %s", quote(text), keyCA, keyNamespace)
	}
	return text, nil
}

func parseServer(annotations map[string]string, f format, public string) (string, error) {
	if f != formatKubeconfig && f != formatArgoCD {
		return "", nil
	}
	text, ok := annotations[api.ServerAnnotation]
	if !ok && public == "" {
		return "", fmt.Errorf("is required by %s=%s while the controller has no --public-server; set it to the URL of the API server, such as https://api.example.com:6443", api.FormatAnnotation, f)
	}
	if !ok {
		return public, nil
	}
	if err := CheckServer(text); err != nil {
		return "", fmt.Errorf("%s %w", quote(text), err)
	}
	return text, nil
}

// errNoServer says what the URL of an API server looks like. Without TLS everybody on
// the way could read the token.
var errNoServer = errors.New("is not the URL of an API server, such as https://api.example.com:6443")

// CheckServer tells what is wrong with the URL of an API server.
func CheckServer(text string) error {
	server, err := url.Parse(text)
	if err != nil || server.Scheme != "https" || server.Hostname() == "" || server.User != nil || server.RawQuery != "" || server.Fragment != "" {
		return errNoServer
	}
	return nil
}

// quote is text for an event, unless it may hold a token.
func quote(text string) string {
	if token.ContainsToken(text) {
		return "the value (withheld: it looks like a token)"
	}
	if len(text) > longestQuote {
		text = text[:longestQuote] + "..."
	}
	return fmt.Sprintf("%q", text)
}
