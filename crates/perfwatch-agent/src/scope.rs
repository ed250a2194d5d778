//! Scope of the agent: the machine, or only the container that the agent runs in.

use std::path::Path;

/// Identifier of the initial PID namespace, constant since Linux 3.8 (`PROC_PID_INIT_INO` of the kernel's
/// `include/linux/proc_ns.h`).
const INITIAL_PID_NAMESPACE: &str = "pid:[4026531836]";

/// Returns whether the procfs at this path has the processes of a container only. False if that is unknown.
///
/// A procfs of the host lists this process with one process id per nested namespace (`NSpid` of
/// proc_pid_status(5)); that of the container lists it with its innermost id alone.
pub(crate) fn is_container_only(procfs: &Path) -> bool {
    let namespace = std::fs::read_link(procfs.join("self/ns/pid"));
    let status = std::fs::read_to_string(procfs.join("self/status"));
    match (namespace, status) {
        (Ok(namespace), Ok(status)) => classify(&namespace.to_string_lossy(), &status),
        _ => false,
    }
}

fn classify(namespace: &str, status: &str) -> bool {
    let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    let depth = ids.map(|ids| ids.split_ascii_whitespace().count());
    namespace.starts_with("pid:[") && namespace != INITIAL_PID_NAMESPACE && depth == Some(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scope_follows_from_nested_process_ids() {
        for (namespace, status, expected) in [
            ("pid:[4026531836]", "Pid:\t7\nNSpid:\t7\n", false),
            ("pid:[4026532281]", "Pid:\t1\nNSpid:\t1\n", true),
            ("pid:[4026532281]", "Pid:\t4242\nNSpid:\t4242\t1\n", false),
            ("pid:[4026532281]", "Pid:\t1\n", false),
            ("", "NSpid:\t1\n", false),
        ] {
            assert_eq!(classify(namespace, status), expected, "{namespace} {status:?}");
        }
    }

    #[test]
    fn scope_is_unknown_without_procfs() {
        assert!(!is_container_only(Path::new("/nonexistent")));
    }
}
