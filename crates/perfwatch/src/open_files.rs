//! Connections of a hub below its limit of open files (getrlimit(2)).

/// Open files beside connections: database, log, outgoing connections.
const MIN_SPARE_FILES: usize = 200;

/// Number of connections that fit beside the other open files of a hub with its agent.
pub(crate) fn max_connections(limit: usize) -> usize {
    limit.saturating_sub(MIN_SPARE_FILES + perfwatch_collect::max_open_files(limit))
}

#[cfg(test)]
mod tests {
    use super::max_connections;

    #[test]
    fn connections_leave_files_for_the_collectors() {
        assert_eq!([100, 1_024, 65_536].map(max_connections), [0, 504, 64_272]);
    }
}
