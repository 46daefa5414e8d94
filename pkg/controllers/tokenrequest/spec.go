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
	// minLifetime and maxLifetime are the limits of the TokenRequest API. An API server that
	// allows less than maxLifetime grants less.
	minLifetime = 10 * time.Minute
	maxLifetime = (1 << 32) * time.Second
	// maxQuote is how many bytes of an annotation an event quotes.
	maxQuote = 64
)

// tokenSpec is the token that a Secret asks for.
type tokenSpec struct {
	account   string
	audiences []string
	lifetime  time.Duration
	format    format
	// server is the URL of the API server, in formats that have one.
	server string
	// tokenKey is the key of the token, in formats where it has one of its own.
	tokenKey string
}

// parse reads the annotations of a Secret. Each problem names its annotation and what is
// allowed; there is at most one per annotation.
func parse(annotations map[string]string, publicServer string) (spec tokenSpec, problems []string) {
	report := func(annotation, format string, args ...any) {
		problems = append(problems, annotation+": "+fmt.Sprintf(format, args...))
	}
	spec.account = annotations[api.ServiceAccountAnnotation]
	if len(validation.IsDNS1123Subdomain(spec.account)) > 0 {
		report(api.ServiceAccountAnnotation, "%s is not the name of a ServiceAccount; set it to one in this namespace", quote(spec.account))
	}
	if text, ok := annotations[api.AudiencesAnnotation]; ok {
		spec.audiences = strings.Split(text, ",")
		if slices.ContainsFunc(spec.audiences, blank) {
			report(api.AudiencesAnnotation, "%s has an empty audience or a blank; separate audiences by commas alone, or remove the annotation for the API server's own", quote(text))
		}
	}
	var err error
	if spec.lifetime, err = parseLifetime(annotations); err != nil {
		report(api.LifetimeAnnotation, "%v", err)
	}
	spec.format = format(annotations[api.FormatAnnotation])
	if _, ok := annotations[api.FormatAnnotation]; !ok {
		spec.format = formatToken
	}
	if !slices.Contains(formats(), spec.format) {
		report(api.FormatAnnotation, "%s is not one of %s", quote(string(spec.format)), formatNames())
		return spec, problems // the other annotations depend on the format
	}
	if spec.tokenKey, err = parseTokenKey(annotations, spec.format); err != nil {
		report(api.TokenKeyAnnotation, "%v", err)
	}
	if spec.server, err = parseServer(annotations, spec.format, publicServer); err != nil {
		report(api.ServerAnnotation, "%v", err)
	}
	return spec, problems
}

// minHint is how many first letters an annotation shares with the one that is meant.
const minHint = 3

// unknownAnnotations returns a problem for each of the names, which are annotations below
// sakeeper.io that do not exist.
func unknownAnnotations(names []string) []string {
	var problems []string
	for _, name := range names {
		problem := quote(name) + ": there is no such annotation"
		if meant := closest(name); meant != "" {
			problem += "; did you mean " + meant + "?"
		}
		problems = append(problems, problem)
	}
	return problems
}

// closest returns the settings that share the most first letters with name, with "or" between
// them; empty: none does.
func closest(name string) string {
	var best []string
	length := len(api.AnnotationPrefix) + minHint
	for _, setting := range []string{
		api.ServiceAccountAnnotation, api.AudiencesAnnotation, api.LifetimeAnnotation, api.FormatAnnotation,
		api.ServerAnnotation, api.TokenKeyAnnotation, api.RotateAnnotation,
	} {
		shared := 0
		for shared < min(len(name), len(setting)) && name[shared] == setting[shared] {
			shared++
		}
		switch {
		case shared > length:
			best, length = []string{setting}, shared
		case shared == length:
			best = append(best, setting)
		}
	}
	return strings.Join(best, " or ")
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
		return "", fmt.Errorf("set it to the URL of the API server (https://HOST:PORT): %s needs one, and there is no --public-server", f)
	}
	if !ok {
		return public, nil
	}
	if err := CheckServer(text); err != nil {
		return "", fmt.Errorf("%s %w", quote(text), err)
	}
	return text, nil
}

// errNotServerURL says what the URL of an API server looks like. Without TLS, clients
// would send the token in clear text.
var errNotServerURL = errors.New("is not the URL of an API server, such as https://api.example.com:6443")

// CheckServer returns an error if text is not the URL of an API server: https with a host,
// without user, query and fragment. The error does not quote text.
func CheckServer(text string) error {
	server, err := url.Parse(text)
	if err != nil || server.Scheme != "https" || server.Hostname() == "" || server.User != nil || server.RawQuery != "" || server.Fragment != "" {
		return errNotServerURL
	}
	return nil
}

// quote quotes text for an event, unless text may hold a token.
func quote(text string) string {
	if token.ContainsToken(text) {
		return "the value (withheld: it looks like a token)"
	}
	if len(text) > maxQuote {
		text = text[:maxQuote] + "..."
	}
	return fmt.Sprintf("%q", text)
}
