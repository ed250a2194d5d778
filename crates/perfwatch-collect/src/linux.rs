//! Registry of the Linux collectors. Each has a file: metric table, read function, pure parser, tests.

pub(crate) mod cpu;
pub(crate) mod cpu_model;
pub(crate) mod disk;
pub(crate) mod disk_topology;
pub(crate) mod facts;
pub(crate) mod filesystem;
pub(crate) mod frequency;
pub(crate) mod interface_topology;
pub(crate) mod load;
pub(crate) mod memory;
pub(crate) mod mounts;
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

pub use cpu_model::CPUINFO_KEYS;

use crate::Collector;

/// All collectors, in the order of the catalog.
pub const COLLECTORS: &[Collector] = &[
    cpu::COLLECTOR,
    frequency::COLLECTOR,
    load::COLLECTOR,
    pressure::COLLECTOR,
    memory::COLLECTOR,
    vmstat::COLLECTOR,
    network::COLLECTOR,
    sockets::COLLECTOR,
    tcp_states::COLLECTOR,
    disk::COLLECTOR,
    filesystem::COLLECTOR,
    processes::COLLECTOR,
    temperature::COLLECTOR,
    system::COLLECTOR,
    facts::COLLECTOR,
];
