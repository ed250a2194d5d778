//! Name resolution of outgoing requests: refused addresses are removed, and the connection is made to the
//! remaining addresses only. A name is not resolved again, so that it cannot change in between.

use perfwatch_model::OutboundPolicy;
use perfwatch_model::outbound::RefusedAddress;
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

/// Address that the policy refused, if it is the reason of an error.
pub(crate) fn refused_address(error: &ureq::Error) -> Option<&RefusedAddress> {
    match error {
        ureq::Error::Io(error) => error.get_ref()?.downcast_ref(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ureq::Proxy;

    #[test]
    fn configured_proxy_is_no_refused_target() {
        let proxy = Proxy::new("http://127.0.0.1:3128").unwrap();
        let config = ureq::Agent::config_builder().proxy(Some(proxy)).build();
        let resolver = PolicyResolver(OutboundPolicy::default());
        let resolve = |uri: &str| {
            let timeout = NextTimeout {
                after: ureq::unversioned::transport::time::Duration::NotHappening,
                reason: ureq::Timeout::Resolve,
                per_read: None,
                per_write: None,
            };
            resolver.resolve(&uri.parse().unwrap(), &config, timeout)
        };
        assert_eq!(resolve("http://127.0.0.1:3128").unwrap().len(), 1);
        for target in ["http://127.0.0.1:3129", "http://localhost:3128/x"] {
            let error = resolve(target).unwrap_err();
            let refused = refused_address(&error).unwrap().to_string();
            assert!(refused.ends_with("hub.allowed_targets"), "{refused}");
        }
    }
}
