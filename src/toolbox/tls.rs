//! HTTP clients of tools, with one TLS for all of them.

use std::sync::Once;

use reqwest::{Client, ClientBuilder};

/// A builder of clients that follow no redirect by themselves and say who they are.
///
/// Certificates are checked against the system's. Where there are none (a bare container), every HTTPS request fails
/// and plain HTTP goes on.
pub(super) fn client(with: impl Fn(ClientBuilder) -> ClientBuilder) -> Result<Client, reqwest::Error> {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| {
        // Somebody else's provider is as good as ours.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
    let builder = || {
        let agent = concat!("caxton/", env!("CARGO_PKG_VERSION"));
        with(Client::builder().user_agent(agent).redirect(reqwest::redirect::Policy::none()))
    };
    builder().build().or_else(|error| {
        tracing::warn!(error = %crate::failure::chain(&error), "tools cannot ask HTTPS servers");
        builder().tls_certs_only([]).build()
    })
}
