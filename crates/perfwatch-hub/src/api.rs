//! Who asks: one file a resource.

pub(crate) mod catalog;
pub(crate) mod health;
pub(crate) mod hosts;
pub(crate) mod recent;
pub(crate) mod system;
