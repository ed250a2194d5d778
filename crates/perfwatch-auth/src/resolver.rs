//! Name resolution of outgoing requests: refused addresses are removed, and the connection is made to the
//! remaining addresses only. A name is not resolved again, so that it cannot change in between.

use perfwatch_model::OutboundPolicy;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

/// Resolver that applies the policy for outgoing requests.
#[derive(Debug)]
pub(crate) struct PolicyResolver(pub(crate) OutboundPolicy);

impl Resolver for PolicyResolver {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let resolved = DefaultResolver::default().resolve(uri, config, timeout)?;
        // The proxy is configured in the environment of the hub, and resolves the names of targets.
        if config.proxy().is_some_and(|proxy| proxy.uri() == uri) {
            return Ok(resolved);
        }
        let permitted = self.0.filter(resolved.to_vec()).map_err(|error| {
            ureq::Error::Io(std::io::Error::new(std::io::ErrorKind::PermissionDenied, error))
        })?;
        let mut addresses = self.empty();
        permitted.into_iter().for_each(|address| addresses.push(address));
        Ok(addresses)
    }
}
