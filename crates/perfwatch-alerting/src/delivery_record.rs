//! Recording of deliveries. A notification is pending until its result is recorded: a hub that gave up would send it
//! again.

use perfwatch_store::{BoxFuture, CommitError, StoreError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Pause before a result is recorded again.
const RETRY_DELAY: Duration = Duration::from_millis(500);

/// Records that a notification was sent, repeatedly while the store is unavailable. After `stop`, there is one more
/// attempt.
///
/// # Errors
/// Returns the error of the last attempt.
pub(crate) async fn record_delivery<'a>(
    record: impl Fn() -> BoxFuture<'a, Result<(), CommitError>>,
    stop: &CancellationToken,
) -> Result<(), CommitError> {
    let mut is_repeated = false;
    loop {
        match record().await {
            Err(CommitError::Store(StoreError::Unavailable(_))) if !stop.is_cancelled() => {}
            // The response to an earlier attempt was lost.
            Err(CommitError::Conflict) if is_repeated => return Ok(()),
            result => return result,
        }
        is_repeated = true;
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(RETRY_DELAY) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;
    use std::sync::Mutex;

    fn unavailable() -> Result<(), CommitError> {
        Err(StoreError::Unavailable("no connection".to_owned()).into())
    }

    /// Result with a store that returns these results, and the number of those that were not requested.
    async fn record<const N: usize>(
        results: [Result<(), CommitError>; N],
        is_stopped: bool,
    ) -> (Result<(), CommitError>, usize) {
        let (results, stop) = (Mutex::new(VecDeque::from(results)), CancellationToken::new());
        if is_stopped {
            stop.cancel();
        }
        let next = || -> BoxFuture<'_, _> {
            let result = results.lock().unwrap().pop_front().unwrap();
            Box::pin(async { result })
        };
        let result = record_delivery(next, &stop).await;
        let left = results.lock().unwrap().len();
        (result, left)
    }

    #[tokio::test(start_paused = true)]
    async fn result_is_recorded_when_the_store_is_available_again() {
        assert_eq!(record([unavailable(), unavailable(), Ok(())], false).await, (Ok(()), 0));
        // The second attempt finds what the first has recorded.
        assert_eq!(record([unavailable(), Err(CommitError::Conflict)], false).await, (Ok(()), 0));
        assert_eq!(record([Err(CommitError::Conflict)], false).await, (Err(CommitError::Conflict), 0));
        let rejected = || Err(StoreError::Rejected("read-only".to_owned()).into());
        assert_eq!(record([rejected(), Ok(())], false).await, (rejected(), 1));
        assert_eq!(record([unavailable(), Ok(())], true).await, (unavailable(), 1));
    }
}
