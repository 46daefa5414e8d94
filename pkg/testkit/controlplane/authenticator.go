package controlplane

import "context"

// AuthenticatorAccount is the ServiceAccount of sakeeper authenticator in manifests/.
const AuthenticatorAccount = "sakeeper-authenticator"

// InstallAuthenticator applies the manifests of sakeeper authenticator, and the right to
// note which legacy tokens are used. The namespace must be there.
func (cp *ControlPlane) InstallAuthenticator(ctx context.Context) error {
	return cp.apply(ctx, nil, "base/authenticator", "components/track-legacy-tokens")
}
