package controllers

import (
	"errors"
	"fmt"
	"strings"

	"github.com/sakeeper/sakeeper/pkg/controllers/accounttemplate"
	"github.com/sakeeper/sakeeper/pkg/controllers/pullsecretcopy"
	"github.com/sakeeper/sakeeper/pkg/controllers/rootca"
	"github.com/sakeeper/sakeeper/pkg/controllers/serviceaccount"
	"github.com/sakeeper/sakeeper/pkg/controllers/tokencleaner"
	"github.com/sakeeper/sakeeper/pkg/controllers/tokengeneration"
	"github.com/sakeeper/sakeeper/pkg/controllers/tokeninventory"
	"github.com/sakeeper/sakeeper/pkg/controllers/tokenrequest"
	"github.com/sakeeper/sakeeper/pkg/controllers/tokensecret"
)

// descriptor is one controller: its name, the name that kube-controller-manager gave it before
// Kubernetes 1.27, and how it is made.
type descriptor struct {
	name, alias string
	make        func(*parts) (runnable, error)
	// disabledByDefault: "*" does not turn it on, because it needs rights that the others do
	// not.
	disabledByDefault bool
}

func descriptors() []descriptor {
	return []descriptor{
		{name: serviceaccount.Name, alias: "serviceaccount", make: (*parts).serviceAccount},
		{name: tokensecret.Name, alias: "serviceaccount-token", make: (*parts).tokenSecret},
		{name: rootca.Name, alias: "root-ca-cert-publisher", make: (*parts).rootCA},
		{name: tokencleaner.Name, alias: "legacy-service-account-token-cleaner", make: (*parts).tokenCleaner},
		{name: tokengeneration.Name, alias: "token-generation", make: (*parts).tokenGeneration},
		{name: tokenrequest.Name, alias: "token-request", make: (*parts).tokenRequest, disabledByDefault: true},
		{name: tokeninventory.Name, alias: "token-inventory", make: (*parts).tokenInventory},
		{name: accounttemplate.Name, alias: "service-account-template", make: (*parts).accountTemplate, disabledByDefault: true},
		{name: pullsecretcopy.Name, alias: "pull-secret-copy", make: (*parts).pullSecretCopy, disabledByDefault: true},
	}
}

// Names are the controllers that there are, by the names that kube-controller-manager has for
// them.
func Names() []string {
	var names []string
	for _, d := range descriptors() {
		names = append(names, d.name)
	}
	return names
}

// OffByDefault are the controllers that "*" does not turn on.
func OffByDefault() []string {
	var names []string
	for _, d := range descriptors() {
		if d.disabledByDefault {
			names = append(names, d.name)
		}
	}
	return names
}

// selectControllers reads a selection as kube-controller-manager does: the first entry that names
// a controller decides, and "*" stands for the rest.
func selectControllers(selection []string) (map[string]bool, error) {
	canonical := map[string]string{"*": "*"}
	for _, d := range descriptors() {
		canonical[d.name], canonical[d.alias] = d.name, d.name
	}
	var errs []error
	choice := map[string]bool{}
	for _, entry := range selection {
		name, off := strings.CutPrefix(entry, "-")
		known, ok := canonical[name]
		if !ok || (known == "*" && off) {
			errs = append(errs, fmt.Errorf("%q is not a controller; there are %s", entry, strings.Join(Names(), ", ")))
			continue
		}
		if _, decided := choice[known]; !decided {
			choice[known] = !off
		}
	}
	enabled := map[string]bool{}
	for _, d := range descriptors() {
		if on, explicit := choice[d.name]; on || (!explicit && choice["*"] && !d.disabledByDefault) {
			enabled[d.name] = true
		}
	}
	return enabled, errors.Join(errs...)
}
