//! Error of the URL of a Redis.

/// Redis URL that is invalid, with the reason. It does not contain the URL, whose password must not be logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid Redis URL: {0}; expected redis://:password@host:6379/0, or \
     redis+sentinel://:password@host:26379,host:26379/SERVICE/0 for servers that Redis Sentinel watches; \
     rediss://… and rediss+sentinel://… for TLS"
)]
pub struct RedisUrlError(pub(crate) &'static str);
