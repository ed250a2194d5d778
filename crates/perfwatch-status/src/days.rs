//! Background task that follows the availability of the hosts of all pages. Days that are over are stored, so that a
//! request never reads them from history; the current day is continued from the last row that was read.

use crate::availability::{self, Availability, DAY_MS, Observation, Span, Trailing, day_of};
use crate::content::{self, PageState, StatusContent};
use crate::host_days::{HostDays, LiveDay, first_day};
use crate::observe::Observer;
use crate::recent_values::RecentValues;
use crate::{StatusPages, StatusService};
use perfwatch_alerting::AlertingSnapshot;
use perfwatch_live::host_registry::Host;
use perfwatch_live::host_status::HostStatus;
use perfwatch_model::{FailureStreak, HostId};
use perfwatch_store::status_pages::AvailabilityDay;
use perfwatch_store::{CommitError, LeasedTask, StoreError, TaskLease, Transaction};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// Interval at which the current day is continued.
const REFRESH_INTERVAL: Duration = Duration::from_secs(30);
/// Time for which days that are over are computed before the current day is continued.
const MAX_PASS_TIME: Duration = Duration::from_secs(5);
/// Maximum number of days in a commit.
const MAX_BATCH_ROWS: usize = 200;
/// Name of the task in the list of background tasks.
const TASK: &str = "availability";

impl StatusPages {
    /// Follows the availability until `stop` is cancelled.
    pub async fn run(self, stop: CancellationToken) {
        let service = &self.0;
        let mut ticks = interval(REFRESH_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut failures = FailureStreak::default();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
                () = service.changed.notified() => {}
            }
            let started = service.deps.clock.monotonic();
            let result = service.refresh(&stop).await;
            if let Some(error) = failures.first_error(&result) {
                tracing::warn!(%error, "failed to compute the availability of hosts");
            }
            let run = (service.deps.clock.wall_ms(), service.deps.clock.monotonic().saturating_sub(started));
            let error = result.as_ref().err().map(ToString::to_string);
            service.deps.tasks.record(TASK, Some(REFRESH_INTERVAL), run, error);
            if matches!(result, Ok(true)) {
                service.changed.notify_one();
            }
        }
    }
}

impl StatusService {
    /// Hosts of all pages that visitors may see or that may be switched on again.
    fn page_hosts(&self) -> Vec<Host> {
        let snapshot = self.deps.directory.snapshot();
        let now_ms = self.deps.clock.wall_ms();
        let is_used = |page: &&_| {
            matches!(content::page_state(page, &snapshot, now_ms), PageState::Active | PageState::Disabled)
        };
        let contents = snapshot.status_pages.values().filter(is_used).filter_map(StatusContent::parse);
        let groups = contents.flat_map(|content| content.groups);
        let ids: HashSet<HostId> = groups.flat_map(|group| group.hosts).map(|host| host.host).collect();
        ids.into_iter().filter_map(|id| self.deps.hosts.get(id)).collect()
    }

    /// Continues the current day of all hosts and computes days that are over. Returns whether days are left.
    async fn refresh(&self, stop: &CancellationToken) -> Result<bool, StoreError> {
        let hosts = self.page_hosts();
        let used: HashSet<HostId> = hosts.iter().map(|host| host.record.id).collect();
        self.with_days(|days| days.retain(|id, _| used.contains(id)));
        if hosts.is_empty() {
            return Ok(false);
        }
        let now_ms = self.deps.clock.wall_ms();
        let alerting = self.deps.alerting.snapshot();
        let mut observer = Observer::new(&self.deps.history, now_ms);
        for host in &hosts {
            if stop.is_cancelled() {
                return Ok(false);
            }
            if !self.with_days(|days| days.contains_key(&host.record.id)) {
                self.load(host, now_ms).await?;
            }
            if self.first_row_ms(host).is_none() && host.newest_ms().is_some() {
                let first_row_ms = observer.first_row_after(host, first_day(now_ms) * DAY_MS).await?;
                self.with_days(|days| days.entry(host.record.id).or_default().first_row_ms = first_row_ms);
            }
            let live = self.with_days(|days| days.get(&host.record.id).and_then(|days| days.live));
            let live = self.continue_day(&mut observer, (host, live), &alerting).await?;
            self.with_days(|days| days.entry(host.record.id).or_default().live = Some(live));
            // The next pass repeats it. Lines do not matter as much as days.
            if let Err(error) = self.load_recent(host, now_ms).await {
                tracing::debug!(%error, host.id = %host.record.id, "failed to read the last hour of a host");
            }
        }
        self.sample(&hosts).await;
        let Some(lease) = self.deps.store.lease(LeasedTask::AvailabilityDays) else {
            // Another hub stores the days.
            for host in &hosts {
                if !self.missing(host, now_ms).is_empty() {
                    self.load(host, now_ms).await?;
                }
            }
            return Ok(false);
        };
        self.compute_missing(&mut observer, (&hosts, lease), &alerting, stop).await
    }

    /// Reads the last hour of a host that is new on the pages: after a start, all hosts are.
    async fn load_recent(&self, host: &Host, now_ms: i64) -> Result<(), StoreError> {
        if self.recent.read().unwrap_or_else(PoisonError::into_inner).contains_key(&host.record.id) {
            return Ok(());
        }
        let steps = RecentValues::steps(now_ms);
        let course = self.deps.overview.summary_course(host, steps).await?;
        let mut recent = self.recent.write().unwrap_or_else(PoisonError::into_inner);
        recent.insert(host.record.id, RecentValues::from_course(steps, course));
        Ok(())
    }

    /// Adds the newest values of the hosts that send, and drops hosts that left the pages.
    async fn sample(&self, hosts: &[Host]) {
        let now_ms = self.deps.clock.wall_ms();
        let online = hosts.iter().filter(|host| host.status(now_ms) == HostStatus::Online);
        let online: HashSet<HostId> = online.map(|host| host.record.id).collect();
        let values = self.deps.overview.newest_values(&online).await;
        let mut recent = self.recent.write().unwrap_or_else(PoisonError::into_inner);
        recent.retain(|id, _| hosts.iter().any(|host| host.record.id == *id));
        for (host, values) in values {
            recent.entry(host).or_default().add(now_ms, values);
        }
    }

    fn with_days<T>(&self, change: impl FnOnce(&mut HashMap<HostId, HostDays>) -> T) -> T {
        change(&mut self.days.write().unwrap_or_else(PoisonError::into_inner))
    }

    fn first_row_ms(&self, host: &Host) -> Option<i64> {
        self.with_days(|days| days.get(&host.record.id).and_then(|days| days.first_row_ms))
    }

    fn missing(&self, host: &Host, now_ms: i64) -> Vec<i64> {
        self.with_days(|days| {
            let days = days.get(&host.record.id);
            days.map(|days| days.missing(host.newest_ms(), now_ms)).unwrap_or_default()
        })
    }

    /// Loads the stored days of a host.
    async fn load(&self, host: &Host, now_ms: i64) -> Result<(), StoreError> {
        let stored = AvailabilityDay::list(&*self.deps.store, host.record.id, first_day(now_ms)).await?;
        let stored = stored.into_iter().map(|day| (day.day, day)).collect();
        self.with_days(|days| days.entry(host.record.id).or_default().stored = stored);
        Ok(())
    }

    /// Computes and stores missing days, the newest days of all hosts first, for a limited time.
    async fn compute_missing(
        &self,
        observer: &mut Observer<'_>,
        (hosts, lease): (&[Host], TaskLease),
        alerting: &Arc<AlertingSnapshot>,
        stop: &CancellationToken,
    ) -> Result<bool, StoreError> {
        let now_ms = self.deps.clock.wall_ms();
        let started = self.deps.clock.monotonic();
        let of_host = |host| self.missing(host, now_ms).into_iter().map(move |day| (day, host));
        let mut missing: Vec<(i64, &Host)> = hosts.iter().flat_map(of_host).collect();
        missing.sort_by_key(|(day, host)| (std::cmp::Reverse(*day), host.record.id));
        let mut computed: Vec<(HostId, AvailabilityDay)> = Vec::new();
        let mut left = missing.len();
        for (day, host) in missing {
            let took = self.deps.clock.monotonic().saturating_sub(started);
            if stop.is_cancelled() || took > MAX_PASS_TIME || computed.len() >= MAX_BATCH_ROWS {
                break;
            }
            let end_ms = (day + 1) * DAY_MS;
            let is_settled = host.newest_ms() >= Some(end_ms);
            let observation = observer.day((host, self.first_row_ms(host)), day).await?;
            let window = (day * DAY_MS, end_ms);
            let total = self.count(observer, (host, &observation), window, alerting).await?;
            computed.push((host.record.id, total.to_day(day, is_settled)));
            left -= 1;
        }
        if !self.store(&computed, lease, now_ms).await? {
            return Ok(false);
        }
        self.with_days(|days| {
            for (host, day) in computed {
                days.entry(host).or_default().stored.insert(day.day, day);
            }
        });
        Ok(left > 0 && !stop.is_cancelled())
    }

    /// Stores days. Returns `false` if another hub has the lease since and stores them.
    async fn store(
        &self,
        computed: &[(HostId, AvailabilityDay)],
        lease: TaskLease,
        now_ms: i64,
    ) -> Result<bool, StoreError> {
        if computed.is_empty() {
            return Ok(true);
        }
        let first_day = first_day(now_ms);
        let tx = Transaction::build(|tx| {
            tx.require_lease(lease);
            computed.iter().for_each(|(host, day)| tx.status_pages().put_day(*host, day));
            tx.status_pages().delete_days_before(first_day);
        });
        match self.deps.store.commit(tx).await {
            Ok(()) => Ok(true),
            Err(CommitError::Conflict) => Ok(false),
            Err(CommitError::Store(error)) => Err(error),
        }
    }

    /// Current day of a host until now.
    async fn continue_day(
        &self,
        observer: &mut Observer<'_>,
        (host, live): (&Host, Option<LiveDay>),
        alerting: &Arc<AlertingSnapshot>,
    ) -> Result<LiveDay, StoreError> {
        let now_ms = self.deps.clock.wall_ms();
        let today = day_of(now_ms);
        let start_ms = today * DAY_MS;
        let previous = live.filter(|live| live.day == today);
        let (observation, counted) = match previous.and_then(|live| Some((live.last_row_ms?, live.counted))) {
            Some((last_row_ms, counted)) => (observer.since(host, last_row_ms).await?, counted),
            None => (observer.day((host, self.first_row_ms(host)), today).await?, Availability::default()),
        };
        let last_row_ms = observation.rows_ms.map(|(_, last_ms)| last_ms.min(now_ms));
        let counted_from_ms = previous.and_then(|live| live.last_row_ms).unwrap_or(start_ms).max(start_ms);
        let counted_to_ms = last_row_ms.unwrap_or(counted_from_ms).max(counted_from_ms);
        let read = (host, &observation);
        let until_row = self.count(observer, read, (counted_from_ms, counted_to_ms), alerting).await?;
        let rest = self.count(observer, read, (counted_to_ms, now_ms), alerting).await?;
        let counted = counted.plus(until_row);
        Ok(LiveDay { day: today, last_row_ms, counted, total: counted.plus(rest) })
    }

    /// Adds up a window of a single day.
    async fn count(
        &self,
        observer: &mut Observer<'_>,
        (host, observation): (&Host, &Observation),
        window: (i64, i64),
        alerting: &Arc<AlertingSnapshot>,
    ) -> Result<Availability, StoreError> {
        if window.0 >= window.1 {
            return Ok(Availability::default());
        }
        let grace_ms = host.grace_ms();
        let is_silent = observation.rows_ms.is_some_and(|(_, last_ms)| window.1 - last_ms > grace_ms);
        let hub_gaps = match is_silent {
            true => observer.hub_gaps(day_of(window.0)).await?,
            false => Vec::new(),
        };
        let is_disabled = host.status(self.deps.clock.wall_ms()) == HostStatus::Disabled;
        let trailing = Trailing { grace_ms, is_disabled, hub_gaps: &hub_gaps };
        let spans: Vec<Span> = observation.spans(window, trailing);
        let tags = self.deps.directory.snapshot().host_tags(host.record.id).to_vec();
        let (id, alerting) = (host.record.id.0, alerting.clone());
        // Hours of the week are followed minute by minute.
        perfwatch_history::run_blocking(move || {
            let silences = alerting.definitions.silences.iter().map(|silence| &**silence);
            availability::add_up(&spans, &availability::host_silences(silences, id, &tags))
        })
        .await
    }
}
