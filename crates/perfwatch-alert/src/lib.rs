//! Alerts, pure: no clock but the one handed in, no I/O. A rule looks at one series of one host
//! ([`window`]), comes to a verdict ([`rule`]), and steps its state ([`step`]).

pub mod forecast;
pub mod rule;
pub mod step;
pub mod window;
