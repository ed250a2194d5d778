//! Alert rules and their evaluation. Pure: times are parameters, no I/O.
//!
//! Data flow: a snapshot goes to the [`host_evaluator`] of its host. Each [`alert_instance`] aggregates
//! its series ([`window`], [`forecast`]), compares the value with its [`rule`] and advances its state
//! ([`state_machine`]). Transitions join an [`incident`], with the top consumers and movers of
//! [`explain`]. [`silence`] and [`channel`] select the recipients, [`render`] writes the text, and
//! [`notification`] contains the port for delivery. [`backtest`] runs alert instances over stored
//! history.

pub mod alert_instance;
pub mod backtest;
pub mod builtin_rules;
pub mod channel;
pub mod condition;
pub mod explain;
pub mod forecast;
pub mod host_evaluator;
pub mod hostile;
pub mod hub_metric;
pub mod incident;
pub mod managed_rule;
pub mod notification;
pub mod render;
pub mod rule;
pub mod rule_warnings;
pub mod silence;
pub mod state_machine;
pub mod weekly_window;
pub mod window;

pub use condition::Condition;
pub use rule::{Rule, Severity};
