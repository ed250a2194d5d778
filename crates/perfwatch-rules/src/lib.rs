//! Alerts, pure: no clock but the one handed in, no I/O.
//!
//! The walk: a snapshot comes to a host's [`watch`]; each [`track`] of it looks at one series
//! ([`window`], [`forecast`]), holds the figure against its [`rule`] and steps its state ([`step`]).
//! What fires or ends joins an [`incident`], with what [`explain`] saw; [`silence`] and [`channel`]
//! say who is told, [`words`] how, and [`deliver`] is the port through which it goes out.
//! [`backtest`] runs the same tracks over the past.

pub mod alert_instance;
pub mod backtest;
pub mod builtin_rules;
pub mod channel;
pub mod condition;
pub mod explain;
pub mod forecast;
pub mod host_evaluator;
pub mod incident;
pub mod notification;
pub mod render;
pub mod rule;
pub mod silence;
pub mod state_machine;
pub mod threshold_rules;
pub mod weekly_window;
pub mod window;

pub use condition::Condition;
pub use rule::{Rule, Severity};
