//! Alerts, pure: no clock but the one handed in, no I/O.
//!
//! The walk: a snapshot comes to a host's [`watch`]; each [`track`] of it looks at one series
//! ([`window`], [`forecast`]), holds the figure against its [`rule`] and steps its state ([`step`]).
//! What fires or ends joins an [`incident`], with what [`explain`] saw; [`silence`] and [`channel`]
//! say who is told, [`words`] how, and [`deliver`] is the port through which it goes out.
//! [`backtest`] runs the same tracks over the past.

pub mod backtest;
pub mod calendar;
pub mod channel;
pub mod condition;
pub mod defaults;
pub mod deliver;
pub mod explain;
pub mod forecast;
pub mod incident;
pub mod rule;
pub mod silence;
pub mod step;
pub mod thresholds;
pub mod track;
pub mod watch;
pub mod window;
pub mod words;

pub use condition::Condition;
pub use rule::{Rule, Severity};
