//! Terminal view of a host (`perfwatch top`): live snapshots, earlier snapshots, and the process table of
//! each.
//!
//! [`HostSource`] is the port to the data: this machine or a host of a hub. A worker thread calls the source;
//! [`View`] is the pure state, changed by keys, snapshots and time; `draw` renders it on a screen, `plain` as
//! lines of text.

mod draw;
mod frame;
#[cfg(test)]
mod golden_tests;
pub mod hub_json;
mod plain;
mod process_table;
mod recent_past;
mod run;
mod screen;
mod session;
mod source;
#[cfg(test)]
mod test_data;
mod theme;
pub mod time_input;
mod view;
#[cfg(test)]
mod view_tests;

pub use frame::{HostFrame, Ribbon};
pub use process_table::ProcessOrder;
pub use recent_past::RecentPast;
pub use run::{Options, print_once, run_plain, run_screen};
pub use source::{HostSource, SeekTarget};
pub use theme::Theme;
pub use view::View;
