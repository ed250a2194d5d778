//! Store adapter for paused Tokio time that fails, loses responses and ends the hub at a chosen call.

use perfwatch_model::HostId;
use perfwatch_store::{
    BlockSlice, BoxFuture, CommitError, DiskUsage, HeadSnapshot, HostRecord, LeasedTask, Query, QueryResult,
    SnapshotRow, SqlValue, Store, StoreError, TaskLease, Transaction,
};
use perfwatch_tsdb::Tier;
use std::path::Path;
use std::sync::{Arc, Mutex};
use tokio::sync::Notify;

/// What the database does with a call.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) enum DatabaseMode {
    #[default]
    Available,
    /// Refuses all writes.
    ReadOnly,
    /// Fails all calls.
    Unreachable,
}

#[derive(Default)]
struct FaultState {
    mode: DatabaseMode,
    /// Writes that are applied, but whose response is lost.
    lost_responses: u32,
    /// Calls until the hub is killed.
    calls_until_crash: Option<u32>,
    /// True if the call at which the hub is killed is applied.
    is_last_call_applied: bool,
    is_crashed: bool,
    /// No fault happens while the simulation reads the store.
    is_suspended: bool,
    /// Increases with each fault.
    epoch: u64,
}

/// Faults of the database and of the hub; outlives a restart of the hub.
#[derive(Default)]
pub(super) struct Faults {
    state: Mutex<FaultState>,
    crashed: Notify,
}

/// How a call ends.
#[derive(Clone, Copy)]
enum CallResult {
    Regular,
    Refused,
    LostResponse,
    /// The hub is killed; the call is applied or not.
    Crash {
        is_applied: bool,
    },
}

impl Faults {
    pub(super) fn set_mode(&self, mode: DatabaseMode) {
        self.state.lock().unwrap().mode = mode;
    }

    /// Loses the responses of the next writes.
    pub(super) fn lose_responses(&self, count: u32) {
        self.state.lock().unwrap().lost_responses = count;
    }

    /// Kills the hub at a later call of the store.
    pub(super) fn crash_after(&self, calls: u32, is_last_call_applied: bool) {
        let mut state = self.state.lock().unwrap();
        (state.calls_until_crash, state.is_last_call_applied) = (Some(calls), is_last_call_applied);
    }

    /// Kills the hub now: its calls do not return any more.
    pub(super) fn crash(&self) {
        let mut state = self.state.lock().unwrap();
        (state.is_crashed, state.calls_until_crash) = (true, None);
        state.epoch += 1;
        self.crashed.notify_one();
    }

    pub(super) fn is_crashed(&self) -> bool {
        self.state.lock().unwrap().is_crashed
    }

    /// Waits until the hub is killed.
    pub(super) async fn wait_for_crash(&self) {
        while !self.is_crashed() {
            self.crashed.notified().await;
        }
    }

    /// Starts the next life of the hub, with a database that is available.
    pub(super) fn reset(&self) {
        let mut state = self.state.lock().unwrap();
        *state = FaultState { epoch: state.epoch + 1, ..FaultState::default() };
    }

    /// Suspends all faults, or resumes them.
    pub(super) fn suspend(&self, is_suspended: bool) {
        self.state.lock().unwrap().is_suspended = is_suspended;
    }

    /// Number of faults so far.
    pub(super) fn epoch(&self) -> u64 {
        self.state.lock().unwrap().epoch
    }

    fn next_call(&self, is_write: bool) -> CallResult {
        let mut state = self.state.lock().unwrap();
        if state.is_crashed {
            return CallResult::Crash { is_applied: false };
        }
        if state.is_suspended {
            return CallResult::Regular;
        }
        match &mut state.calls_until_crash {
            Some(0) => return CallResult::Crash { is_applied: is_write && state.is_last_call_applied },
            Some(calls) => *calls -= 1,
            None => {}
        }
        let is_refused =
            state.mode == DatabaseMode::Unreachable || (is_write && state.mode == DatabaseMode::ReadOnly);
        if is_refused {
            state.epoch += 1;
            return CallResult::Refused;
        }
        if is_write && state.lost_responses > 0 {
            state.lost_responses -= 1;
            state.epoch += 1;
            return CallResult::LostResponse;
        }
        CallResult::Regular
    }
}

/// Runs a call together with a blocking task that lasts as long: paused time advances when all tasks are
/// idle, and a task that waits for the thread of the store counts as idle.
async fn hold_time<T>(call: BoxFuture<'_, T>) -> T {
    let (done_tx, done_rx) = std::sync::mpsc::channel::<()>();
    // The receiver returns as soon as the sender is dropped.
    let blocker = tokio::task::spawn_blocking(move || done_rx.recv().is_err());
    let result = call.await;
    drop(done_tx);
    assert!(blocker.await.unwrap());
    result
}

/// Store with faults.
pub(super) struct FaultyStore {
    pub(super) store: Arc<dyn Store>,
    pub(super) faults: Arc<Faults>,
}

impl FaultyStore {
    fn call<'a, T, E>(
        &'a self,
        is_write: bool,
        call: BoxFuture<'a, Result<T, E>>,
    ) -> BoxFuture<'a, Result<T, E>>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        Box::pin(async move {
            let unavailable = |text: &str| Err(StoreError::Unavailable(text.to_owned()).into());
            match self.faults.next_call(is_write) {
                CallResult::Regular => hold_time(call).await,
                CallResult::Refused => unavailable("simulated failure"),
                CallResult::LostResponse => {
                    hold_time(call).await?;
                    unavailable("simulated loss of the response")
                }
                CallResult::Crash { is_applied } => {
                    if is_applied {
                        let _ = hold_time(call).await;
                    }
                    self.faults.crash();
                    std::future::pending().await
                }
            }
        })
    }

    fn read<'a, T: Send + 'static>(
        &'a self,
        call: BoxFuture<'a, Result<T, StoreError>>,
    ) -> BoxFuture<'a, Result<T, StoreError>> {
        self.call(false, call)
    }

    fn write<'a, T: Send + 'static>(
        &'a self,
        call: BoxFuture<'a, Result<T, StoreError>>,
    ) -> BoxFuture<'a, Result<T, StoreError>> {
        self.call(true, call)
    }
}

impl Store for FaultyStore {
    fn backend(&self) -> &'static str {
        self.store.backend()
    }

    fn hub_id(&self) -> &str {
        self.store.hub_id()
    }

    fn append(&self, rows: Vec<SnapshotRow>) -> BoxFuture<'_, Result<i64, StoreError>> {
        self.write(self.store.append(rows))
    }

    fn read_head(&self, after: i64, limit: usize) -> BoxFuture<'_, Result<Vec<HeadSnapshot>, StoreError>> {
        self.read(self.store.read_head(after, limit))
    }

    fn is_head_over_limit(&self) -> bool {
        self.store.is_head_over_limit()
    }

    fn max_head_bytes(&self) -> u64 {
        self.store.max_head_bytes()
    }

    fn append_rejection(&self) -> Option<StoreError> {
        self.store.append_rejection()
    }

    fn min_budget_bytes(&self) -> u64 {
        self.store.min_budget_bytes()
    }

    fn set_budget(&self, bytes: u64) -> BoxFuture<'_, Result<(), StoreError>> {
        self.write(self.store.set_budget(bytes))
    }

    fn truncate_head(&self, before: i64) -> BoxFuture<'_, Result<(), StoreError>> {
        self.write(self.store.truncate_head(before))
    }

    fn upsert_host(&self, host: HostRecord) -> BoxFuture<'_, Result<(), StoreError>> {
        self.write(self.store.upsert_host(host))
    }

    fn commit(&self, tx: Transaction) -> BoxFuture<'_, Result<(), CommitError>> {
        self.call(true, self.store.commit(tx))
    }

    fn query(
        &self,
        sql: &'static str,
        values: Vec<SqlValue>,
    ) -> BoxFuture<'_, Result<Vec<Vec<SqlValue>>, StoreError>> {
        self.read(self.store.query(sql, values))
    }

    fn read_range(&self, query: Query) -> BoxFuture<'_, Result<QueryResult, StoreError>> {
        self.read(self.store.read_range(query))
    }

    fn read_blocks(
        &self,
        tier: Tier,
        host: HostId,
        from_ms: i64,
        to_ms: i64,
    ) -> BoxFuture<'_, Result<Vec<BlockSlice>, StoreError>> {
        self.read(self.store.read_blocks(tier, host, from_ms, to_ms))
    }

    fn renew_leases(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        self.write(self.store.renew_leases())
    }

    fn lease(&self, task: LeasedTask) -> Option<TaskLease> {
        self.store.lease(task)
    }

    fn release_leases(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        self.write(self.store.release_leases())
    }

    fn free_bytes(&self) -> Option<u64> {
        self.store.free_bytes()
    }

    fn disk_usage(&self, tier_bytes: Option<[u64; 3]>) -> BoxFuture<'_, Result<DiskUsage, StoreError>> {
        self.read(self.store.disk_usage(tier_bytes))
    }

    fn vacuum(&self, before_ms: i64) -> BoxFuture<'_, Result<(), StoreError>> {
        self.write(self.store.vacuum(before_ms))
    }

    fn backup(&self, to: &Path) -> BoxFuture<'_, Result<(), StoreError>> {
        self.read(self.store.backup(to))
    }
}
