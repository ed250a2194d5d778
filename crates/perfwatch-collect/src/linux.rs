//! Linux collectors, a file each: metric table, read function, pure parser, tests.

pub(crate) mod command_line;
pub(crate) mod cpu;
pub(crate) mod disk;
pub(crate) mod facts;
pub(crate) mod filesystem;
pub(crate) mod frequency;
pub(crate) mod load;
pub(crate) mod memory;
pub(crate) mod network;
pub(crate) mod pressure;
pub(crate) mod processes;
pub(crate) mod sockets;
pub(crate) mod system;
pub(crate) mod tcp_states;
pub(crate) mod temperature;
#[cfg(test)]
pub(crate) mod test_util;
pub(crate) mod vmstat;
