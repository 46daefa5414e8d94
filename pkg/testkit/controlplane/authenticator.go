package controlplane

import "context"

// AuthenticatorAccount is the ServiceAccount of sakeeper authenticator in manifests/.
const AuthenticatorAccount = "sakeeper-authenticator"

// InstallAuthenticator applies the manifests of sakeeper authenticator, with the role for
// --track-legacy-tokens. The namespace must exist.
func (cp *ControlPlane) InstallAuthenticator(ctx context.Context) error {
	return cp.apply(ctx, nil, "base/authenticator", "components/track-legacy-tokens")
}
