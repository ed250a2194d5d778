//! HTTP building blocks shared by the handlers: bodies, queries, cookies and extractors.

pub(crate) mod body;
pub(crate) mod cookies;
pub(crate) mod extract;
pub(crate) mod query;
