//! Threads that hash passwords, and the share of each client in them.
//!
//! A hash takes 19 MiB and about 40 ms of a processor. On the threads of other blocking calls, each thread would
//! keep that memory, and the logins of all users would wait for those of a single client.

use crate::error::AuthError;
use crate::login_throttle::address_groups;
use perfwatch_model::{limit_table, limits};
use std::collections::HashMap;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;

/// Number of threads.
const MAX_THREADS: usize = 2;
/// Time after which a refused client tries again.
const RETRY_DELAY: Duration = Duration::from_secs(1);

type Job = Box<dyn FnOnce() + Send>;

static JOBS: LazyLock<Mutex<Sender<Job>>> = LazyLock::new(|| {
    let (sender, receiver) = channel::<Job>();
    let receiver = Arc::new(Mutex::new(receiver));
    for _ in 0..MAX_THREADS {
        let receiver = receiver.clone();
        let thread = std::thread::Builder::new().name("password-hash".to_owned());
        // Without any thread the receiver is dropped, and jobs are refused.
        if let Err(error) = thread.spawn(move || run_jobs(&receiver)) {
            tracing::error!(error = %error, "failed to start a thread for password hashes");
        }
    }
    Mutex::new(sender)
});

fn run_jobs(receiver: &Mutex<Receiver<Job>>) {
    loop {
        let job = receiver.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        // The panic is in the log; the caller of the job gets no result.
        let _ = catch_unwind(AssertUnwindSafe(job));
    }
}

/// Runs a hash; `None` if it panicked. Hashes of callers that are gone are skipped.
pub(crate) async fn run<T: Send + 'static>(hash: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (result_tx, result_rx) = oneshot::channel();
    let job = move || {
        if !result_tx.is_closed() {
            let _ = result_tx.send(hash());
        }
    };
    JOBS.lock().unwrap_or_else(PoisonError::into_inner).send(Box::new(job)).ok()?;
    result_rx.await.ok()
}

/// Hashes that wait or run, in total and by address.
#[derive(Debug, Default)]
struct Waiting {
    total: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// Shares of the addresses of clients in the threads.
#[derive(Debug, Clone, Default)]
pub(crate) struct HashShares(Arc<Mutex<Waiting>>);

/// Place of a client, which is free again when it is dropped.
#[derive(Debug)]
pub(crate) struct HashTurn {
    shares: HashShares,
    address: IpAddr,
}

impl HashShares {
    /// Takes a place for the hashes of a request.
    ///
    /// # Errors
    /// Returns [`AuthError::Throttled`] if the address has as many requests as its share allows.
    pub(crate) fn enter(&self, address: IpAddr) -> Result<HashTurn, AuthError> {
        // Addresses of a home network share.
        let groups = address_groups(address);
        let address = groups[1].or(groups[0]).map_or(address, |group| group.network);
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_address = waiting.by_address.get(&address).copied().unwrap_or_default();
        let exceeded = [
            (waiting.total >= limits::MAX_PASSWORD_HASHES, &limit_table::PASSWORD_HASHES),
            (
                of_address >= limits::MAX_PASSWORD_HASHES_PER_ADDRESS,
                &limit_table::PASSWORD_HASHES_PER_ADDRESS,
            ),
        ];
        if let Some((_, limit)) = exceeded.into_iter().find(|(is_exceeded, _)| *is_exceeded) {
            limit.refuse();
            return Err(AuthError::Throttled(RETRY_DELAY));
        }
        waiting.total += 1;
        waiting.by_address.insert(address, of_address + 1);
        Ok(HashTurn { shares: self.clone(), address })
    }
}

impl Drop for HashTurn {
    fn drop(&mut self) {
        let mut waiting = self.shares.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.total = waiting.total.saturating_sub(1);
        if let Some(count) = waiting.by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                waiting.by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Second review: logins of all users waited for the parallel attempts of a single address.
    #[test]
    fn password_hashes_are_bounded_per_address() {
        let shares = HashShares::default();
        let enter = |address: &str| shares.enter(address.parse().unwrap());
        let held: Vec<HashTurn> =
            (0..limits::MAX_PASSWORD_HASHES_PER_ADDRESS).map(|_| enter("192.0.2.1").unwrap()).collect();
        assert!(matches!(enter("192.0.2.1"), Err(AuthError::Throttled(_))));
        assert!(enter("192.0.2.2").is_ok());
        let v6: Vec<HashTurn> = (0..limits::MAX_PASSWORD_HASHES_PER_ADDRESS)
            .map(|n| enter(&format!("2001:db8::{n}:0:0:1")).unwrap())
            .collect();
        assert!(enter("2001:db8:0:0:ff::1").is_err() && enter("2001:db8:0:100::1").is_ok());
        drop((held, v6));
        assert!(enter("192.0.2.1").is_ok());
        assert_eq!(shares.0.lock().unwrap().by_address.len(), 0);
    }

    #[tokio::test]
    async fn panic_of_a_hash_ends_no_thread() {
        for _ in 0..2 * MAX_THREADS {
            assert_eq!(run(|| std::panic::panic_any(())).await, None::<()>);
        }
        assert_eq!(
            run(|| std::thread::current().name().map(str::to_owned)).await.flatten().as_deref(),
            Some("password-hash")
        );
    }
}
