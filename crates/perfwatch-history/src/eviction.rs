//! Shares of the disk budget: above an equal share, the largest host gives first. Hosts that an account or a token
//! created lately have the share of a single host together.
//!
//! A host that is above its share has separate retention watermarks. Its oldest data is deleted past them as
//! retention deletes the data of all hosts: detail first, and only after its roll-up.

use super::History;
use super::budget::EVICT_TO_PERCENT;
use super::metrics::DeletionReason;
use super::retention::{MAX_BLOCKS_PER_PASS, MAX_DROPS_PER_COMMIT, tier_to_evict, watermark_step_ms};
use perfwatch_model::{HostId, limit_table, limits};
use perfwatch_store::shares::{self, HostUsage};
use perfwatch_store::{CommitError, DiskUsage, SharePrincipal, StoreError, Write};
use perfwatch_tsdb::{Tier, rollup::bucket_start};
use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError};

/// Maximum number of principals, and of hosts of each, whose data is deleted in one pass, the largest first.
const MAX_HOSTS_PER_PASS: usize = 16;

/// Storage that the hosts of a principal use.
struct PrincipalUsage {
    bytes: u64,
    /// Hosts with their usage, largest first.
    hosts: Vec<(HostId, HostUsage)>,
}

/// Use of the storage by principal: a host counts for itself, the new hosts of a sender together for that sender.
/// Largest first.
fn usage_by_principal(
    usage: &HashMap<HostId, HostUsage>,
    new_hosts: &HashMap<HostId, Arc<str>>,
) -> Vec<PrincipalUsage> {
    let mut principals: HashMap<SharePrincipal, Vec<(HostId, HostUsage)>> = HashMap::new();
    for (host, usage) in usage {
        let sender = new_hosts.get(host).cloned().map(SharePrincipal::Sender);
        principals.entry(sender.unwrap_or(SharePrincipal::Host(*host))).or_default().push((*host, *usage));
    }
    let mut principals: Vec<PrincipalUsage> = principals
        .into_values()
        .map(|mut hosts| {
            hosts.sort_by_key(|(host, usage)| (Reverse(usage.total_bytes()), *host));
            PrincipalUsage { bytes: hosts.iter().map(|(_, usage)| usage.total_bytes()).sum(), hosts }
        })
        .collect();
    principals
        .sort_by_key(|principal| (Reverse(principal.bytes), principal.hosts.first().map(|(host, _)| *host)));
    principals
}

/// Size from which a principal is above its share: an equal part of what all may use, with a tolerance.
fn share_bytes(limit_bytes: u64, principals: usize) -> u64 {
    let equal = limit_bytes / 100 * EVICT_TO_PERCENT / principals.max(1) as u64;
    equal / 100 * limits::MAX_EQUAL_SHARE_PERCENT
}

/// Principals above their share, largest first.
fn over_share(principals: &[PrincipalUsage], limit_bytes: u64) -> &[PrincipalUsage] {
    let share = share_bytes(limit_bytes, principals.len());
    &principals[..principals.partition_point(|principal| principal.bytes > share)]
}

/// Size to which those above a share are reduced, so that together they give `excess_bytes`: the largest give
/// first, down to the size of the next. None gives more than what is above the share. Sizes are sorted, largest
/// first.
fn level_bytes(sorted: &[u64], share: u64, excess_bytes: u64) -> u64 {
    let mut sum = 0;
    for (index, bytes) in sorted.iter().enumerate() {
        sum += bytes;
        let next = sorted.get(index + 1).copied().unwrap_or(share);
        let count = index as u64 + 1;
        if sum - next * count >= excess_bytes {
            return (sum - excess_bytes) / count;
        }
    }
    share
}

impl History {
    /// Deletes data of the hosts above their share, about `excess_bytes` in total. Returns the number of blocks.
    pub(super) async fn evict_over_share(
        &self,
        limit_bytes: u64,
        excess_bytes: u64,
    ) -> Result<usize, StoreError> {
        let new_hosts = shares::list_new_hosts(&*self.backend, self.clock.wall_ms()).await?;
        let principals = self.list_usage(&new_hosts).await?;
        // A single principal shares with no other.
        if principals.len() < 2 {
            return Ok(0);
        }
        let over = over_share(&principals, limit_bytes);
        let sizes: Vec<u64> = over.iter().map(|principal| principal.bytes).collect();
        let level = level_bytes(&sizes, share_bytes(limit_bytes, principals.len()), excess_bytes);
        let mut count = 0;
        for principal in over.iter().take(MAX_HOSTS_PER_PASS) {
            let give_bytes = principal.bytes.saturating_sub(level);
            let sizes: Vec<u64> = principal.hosts.iter().map(|(_, usage)| usage.total_bytes()).collect();
            let level = level_bytes(&sizes, 0, give_bytes);
            for (host, usage) in principal.hosts.iter().take(MAX_HOSTS_PER_PASS) {
                let give_bytes = usage.total_bytes().saturating_sub(level);
                if give_bytes > 0 {
                    count += self.evict_host(*host, *usage, give_bytes).await?;
                }
            }
        }
        Ok(count)
    }

    async fn list_usage(
        &self,
        new_hosts: &HashMap<HostId, Arc<str>>,
    ) -> Result<Vec<PrincipalUsage>, StoreError> {
        Ok(usage_by_principal(&shares::list_host_usage(&*self.backend).await?, new_hosts))
    }

    /// Deletes the oldest blocks of a host, about `give_bytes` in total. Returns their number.
    async fn evict_host(&self, host: HostId, usage: HostUsage, give_bytes: u64) -> Result<usize, StoreError> {
        limit_table::STORAGE_SHARE.refuse();
        let first = tier_to_evict(&DiskUsage {
            tier_bytes: usage.tier_bytes,
            used_bytes: usage.total_bytes(),
            ..DiskUsage::default()
        });
        // Shapes are deleted with the last block that names them.
        let others = Tier::ALL.into_iter().filter(|tier| *tier != first);
        for tier in std::iter::once(first).chain(others) {
            let count = self.evict_host_tier(tier, host, give_bytes).await?;
            if count > 0 {
                return Ok(count);
            }
        }
        Ok(0)
    }

    async fn evict_host_tier(&self, tier: Tier, host: HostId, give_bytes: u64) -> Result<usize, StoreError> {
        let backend = &*self.backend;
        let oldest =
            shares::oldest_blocks_of_host(backend, tier, host, i64::MAX, MAX_BLOCKS_PER_PASS).await?;
        let mut sum = 0;
        let last_needed = oldest.iter().find(|block| {
            sum += block.bytes;
            sum >= give_bytes
        });
        let Some(last) = last_needed.or(oldest.last()) else {
            return Ok(0);
        };
        let watermarks = shares::host_watermarks(backend, host).await?;
        let max_ms = match tier {
            Tier::Raw => i64::MAX,
            Tier::Minute => watermarks.tier_ms(Tier::Raw),
            Tier::Hour => watermarks.tier_ms(Tier::Minute),
        };
        let step_ms = watermark_step_ms(tier);
        let watermark_ms = (bucket_start(last.last_ms, step_ms) + step_ms).min(bucket_start(max_ms, step_ms));
        tracing::info!(
            host.id = %host,
            tier = tier.name(),
            watermark_ms,
            "deleting data of a host above its share of the disk budget"
        );
        if watermark_ms > watermarks.tier_ms(tier) {
            if tier.coarser().is_some() {
                self.roll_up_host(tier, host, watermark_ms).await?;
            }
            match self.commit_maintenance(vec![Write::AdvanceHostWatermark(tier, host, watermark_ms)]).await {
                Ok(()) => {}
                // Rows below the new watermark arrived since the roll-up; the next run retries.
                Err(CommitError::Conflict) => return Ok(0),
                Err(CommitError::Store(error)) => return Err(error),
            }
        }
        let before_ms = watermark_ms.max(watermarks.tier_ms(tier)) - tier.width_ms() + 1;
        let mut count = 0;
        loop {
            let blocks =
                shares::oldest_blocks_of_host(backend, tier, host, before_ms, MAX_DROPS_PER_COMMIT).await?;
            let dropped = match blocks.is_empty() {
                true => 0,
                false => self.drop_blocks(&blocks, DeletionReason::DiskBudget).await?,
            };
            if dropped == 0 {
                return Ok(count);
            }
            count += dropped;
        }
    }

    /// Remembers the hosts above their share while the disk budget is almost used up: they are refused, so
    /// that the rest of the budget is left to the others.
    pub(super) async fn update_over_share(&self, usage: DiskUsage) -> Result<(), StoreError> {
        let new_hosts = shares::list_new_hosts(&*self.backend, self.clock.wall_ms()).await?;
        let is_short = usage.used_bytes > usage.target_bytes / 100 * limits::MAX_SHARED_USE_PERCENT;
        let hosts: HashSet<HostId> = match is_short {
            true => {
                let principals = self.list_usage(&new_hosts).await?;
                let over = over_share(&principals, usage.target_bytes).iter();
                let hosts = over.flat_map(|principal| principal.hosts.iter().map(|(host, _)| *host));
                hosts.filter(|_| principals.len() > 1).collect()
            }
            false => HashSet::new(),
        };
        let heads = self.heads();
        let unsealed = heads.iter().map(|(host, head)| (*host, head.unsealed_bytes()));
        self.space_share().measure(usage, unsealed, new_hosts);
        *self.over_share.write().unwrap_or_else(PoisonError::into_inner) = hosts;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(number: u8, bytes: u64) -> (HostId, HostUsage) {
        let usage = HostUsage { tier_bytes: [bytes, 0, 0], ..HostUsage::default() };
        (HostId::from_bytes(&[number; 16]).unwrap(), usage)
    }

    /// Finding C1: the oldest data was deleted first, whoever sent it.
    #[test]
    fn largest_host_gives_first() {
        let by_principal = |usage: &HashMap<_, _>| usage_by_principal(usage, &HashMap::new());
        let usage: HashMap<_, _> = [host(1, 500), host(2, 60), host(3, 40), host(4, 300)].into();
        let usage = by_principal(&usage);
        let sizes: Vec<u64> = over_share(&usage, 1_000).iter().map(|usage| usage.bytes).collect();
        assert_eq!(sizes, [500, 300]);
        let share = share_bytes(1_000, usage.len());
        assert_eq!(share, 250);
        // The largest alone, then both to one level, at most down to the share.
        assert_eq!(level_bytes(&sizes, share, 100), 400);
        assert_eq!(level_bytes(&sizes, share, 240), 280);
        assert_eq!(level_bytes(&sizes, share, 1_000), share);
        // Equal hosts are all within their share.
        let equal: HashMap<_, _> = [host(1, 240), host(2, 250), host(3, 230), host(4, 245)].into();
        assert!(over_share(&by_principal(&equal), 1_000).is_empty());
    }

    /// Sibling of finding C1: invented hosts made the equal share of each host small.
    #[test]
    fn new_hosts_of_a_sender_share_the_disk_budget_of_one_host() {
        let mut usage: HashMap<_, _> = [host(1, 200), host(2, 100)].into();
        let mut new_hosts = HashMap::new();
        for number in 3..=253 {
            let (id, usage_of_host) = host(number, 3);
            usage.insert(id, usage_of_host);
            new_hosts.insert(id, Arc::from("token 1"));
        }
        let principals = usage_by_principal(&usage, &new_hosts);
        assert_eq!(principals.len(), 3);
        let over = over_share(&principals, 1_000);
        assert_eq!(
            over.iter().map(|usage| (usage.bytes, usage.hosts.len())).collect::<Vec<_>>(),
            [(753, 251)]
        );
    }
}
