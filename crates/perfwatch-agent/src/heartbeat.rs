//! Heartbeat file of the agent: the time of its last tick, for a health check by another process. The agent
//! listens on no port, so that a file in the state directory is the only way to observe it.

use perfwatch_files::Directory;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// File in the state directory.
const HEARTBEAT_FILE: &str = "heartbeat";
/// Minimum age at which a heartbeat is too old, also at short intervals: a loaded machine is slow, not failed.
const MIN_HEARTBEAT_TTL: Duration = Duration::from_secs(30);
/// Number of intervals after which a heartbeat is too old.
const MAX_MISSED_INTERVALS: u32 = 3;

/// Failed health check of an agent.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeartbeatError {
    /// No readable heartbeat: the agent never ran with this directory, or cannot write to it.
    #[error("no agent runs with the state directory {0}")]
    Missing(String),
    /// Heartbeat older than the agent's interval allows.
    #[error("the last tick of the agent was {age_s} s ago; expected at most {max_age_s} s")]
    Stale {
        /// Age of the heartbeat in seconds.
        age_s: u64,
        /// Maximum age of the heartbeat of a running agent in seconds.
        max_age_s: u64,
    },
}

/// Writer of the heartbeat file.
pub(crate) struct Heartbeat {
    state: PathBuf,
    file: Option<File>,
}

impl Heartbeat {
    /// Writer for a state directory; the file is created by the first heartbeat.
    pub(crate) fn new(state: &Path) -> Self {
        Self { state: state.to_owned(), file: None }
    }

    /// Overwrites the heartbeat. Fails silently: the spool reports a directory that is not writable.
    pub(crate) fn record(&mut self, now_ms: i64, interval: Duration) {
        if self.file.is_none() {
            let directory = Directory::create_private(&self.state);
            self.file = directory.and_then(|directory| directory.open_or_create(HEARTBEAT_FILE)).ok();
        }
        if let Some(file) = &self.file {
            // Equal lengths, so that no byte of the previous heartbeat remains.
            let text = format!("{now_ms:020} {:010}\n", interval.as_millis());
            let _ = file.write_all_at(text.as_bytes(), 0);
        }
    }
}

/// Checks whether an agent with this state directory ticks; returns the age of its last tick.
///
/// # Errors
/// Fails if there is no heartbeat, or if the last heartbeat is too old.
pub fn check_heartbeat(state: &Path, now_ms: i64) -> Result<Duration, HeartbeatError> {
    let missing = || HeartbeatError::Missing(state.display().to_string());
    let text = Directory::open(state).and_then(|directory| directory.read_to_string(HEARTBEAT_FILE));
    let text = text.map_err(|_| missing())?;
    let (at_ms, interval_ms) = text.trim_end().split_once(' ').ok_or_else(missing)?;
    let at_ms: i64 = at_ms.parse().map_err(|_| missing())?;
    let interval = Duration::from_millis(interval_ms.parse().map_err(|_| missing())?);
    // After a clock step backward the running agent writes an earlier time at its next tick.
    let age = Duration::from_millis(now_ms.abs_diff(at_ms));
    let max_age = (interval * MAX_MISSED_INTERVALS).max(MIN_HEARTBEAT_TTL);
    if age > max_age {
        return Err(HeartbeatError::Stale { age_s: age.as_secs(), max_age_s: max_age.as_secs() });
    }
    Ok(age)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heartbeat_is_fresh_for_three_intervals() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("agent");
        assert!(matches!(check_heartbeat(&state, 0), Err(HeartbeatError::Missing(_))));
        let mut heartbeat = Heartbeat::new(&state);
        heartbeat.record(1_900_000_000_000, Duration::from_secs(3600));
        heartbeat.record(1_700_000_000_000, Duration::from_secs(2));
        let check = |after_ms: i64| check_heartbeat(&state, 1_700_000_000_000 + after_ms);
        assert_eq!(check(1500), Ok(Duration::from_millis(1500)));
        assert_eq!(check(30_000), Ok(Duration::from_secs(30)));
        assert_eq!(check(31_000), Err(HeartbeatError::Stale { age_s: 31, max_age_s: 30 }));
        assert_eq!(check(-31_000), Err(HeartbeatError::Stale { age_s: 31, max_age_s: 30 }));
        heartbeat.record(1_700_000_000_000, Duration::from_secs(60));
        assert_eq!(check(180_000), Ok(Duration::from_secs(180)));
        assert_eq!(check(181_000), Err(HeartbeatError::Stale { age_s: 181, max_age_s: 180 }));
    }

    #[test]
    fn heartbeat_of_foreign_content_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        for text in ["", "1", "x y", "1 -1"] {
            std::fs::write(folder.path().join(HEARTBEAT_FILE), text).unwrap();
            assert!(matches!(check_heartbeat(folder.path(), 1), Err(HeartbeatError::Missing(_))), "{text}");
        }
    }
}
