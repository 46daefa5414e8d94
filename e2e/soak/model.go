package main

import (
	"encoding/json"
	"maps"
	"slices"
)

// model is what users have made, by namespace and name. What is not certain, because a request had
// no clear answer, is not in it.
type model struct {
	Secrets  map[string]thing `json:"secrets"`
	Accounts map[string]thing `json:"accounts"`
	// Tokens are those that users have requested.
	Tokens []bound `json:"tokens"`
}

// thing is a Secret or an account that must exist as long as its account does.
type thing struct {
	UID        string `json:"uid"`
	Account    string `json:"account"`
	AccountUID string `json:"accountUID"`
	// Content is that of a Secret that sakeeper must not change.
	Content map[string]string `json:"content"`
	Type    string            `json:"type"`
	// Refers are Secrets that a user has listed in an account.
	Refers []string `json:"refers"`
}

// bound is a token of an account.
type bound struct {
	Account string `json:"account"`
	UID     string `json:"uid"`
	Token   string `json:"token"`
}

func (m *model) clone() *model {
	data, err := json.Marshal(m)
	copied := &model{}
	if err == nil {
		err = json.Unmarshal(data, copied)
	}
	if err != nil {
		panic("soak: internal error: " + err.Error())
	}
	return copied
}

func (m *model) setSecret(key string, t thing) {
	if m.Secrets == nil {
		m.Secrets = map[string]thing{}
	}
	m.Secrets[key] = t
}

func (m *model) setAccount(key string, t thing) {
	if m.Accounts == nil {
		m.Accounts = map[string]thing{}
	}
	m.Accounts[key] = t
}

// forgetSecret forgets a Secret, and the references to it: they may go, also if another one gets its
// name.
func (m *model) forgetSecret(name string) {
	delete(m.Secrets, name)
	for account, t := range m.Accounts {
		if namespaceOf(account) == namespaceOf(name) {
			t.Refers = slices.DeleteFunc(t.Refers, func(secret string) bool { return key(namespaceOf(account), secret) == name })
			m.Accounts[account] = t
		}
	}
}

// forgetAccount forgets an account, with all that depends on it.
func (m *model) forgetAccount(name string) {
	delete(m.Accounts, name)
	for secret, t := range m.Secrets {
		if t.Account == name {
			m.forgetSecret(secret)
		}
	}
	m.Tokens = slices.DeleteFunc(m.Tokens, func(b bound) bool { return b.Account == name })
}

// forgetNamespace forgets all that is in a namespace.
func (m *model) forgetNamespace(name string) {
	inside := func(key string, _ thing) bool { return namespaceOf(key) == name }
	maps.DeleteFunc(m.Secrets, inside)
	maps.DeleteFunc(m.Accounts, inside)
	m.Tokens = slices.DeleteFunc(m.Tokens, func(b bound) bool { return namespaceOf(b.Account) == name })
}
