//! Who asks: one file a resource.

pub(crate) mod catalog;
pub(crate) mod health;
pub(crate) mod history;
pub(crate) mod hosts;
pub(crate) mod params;
pub(crate) mod recent;
pub(crate) mod system;
