package options

import "testing"

func TestLeaseNamespace(t *testing.T) {
	if got := (&Election{Namespace: "team"}).LeaseNamespace(); got != "team" {
		t.Errorf("got %q", got)
	}
	if got := NewElection("lease").LeaseNamespace(); got == "" {
		t.Error("no namespace without the flag")
	}
}
