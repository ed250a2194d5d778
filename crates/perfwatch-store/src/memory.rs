//! A store for as long as the process lives: remembers hosts and which snapshots it took in.

use crate::ranges::Ranges;
use crate::store::{Appended, BoxFuture, HostRecord, Row, Store, StoreError};
use perfwatch_model::{BootId, HostId};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Boots of a host that are told apart; of older ones, repeats are not noticed.
const BOOTS: usize = 8;

/// Everything in memory.
#[derive(Default)]
pub struct MemoryStore {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    hosts: HashMap<HostId, HostRecord>,
    seen: HashMap<HostId, Vec<(BootId, Ranges)>>,
}

impl MemoryStore {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn append(&mut self, row: &Row) -> Appended {
        let boots = self.seen.entry(row.host).or_default();
        let at = boots.iter().position(|(boot, _)| *boot == row.snapshot.boot).unwrap_or_else(|| {
            if boots.len() >= BOOTS {
                boots.remove(0);
            }
            boots.push((row.snapshot.boot, Ranges::default()));
            boots.len() - 1
        });
        if boots[at].1.insert(row.snapshot.seq) { Appended::New } else { Appended::Repeat }
    }
}

impl Store for MemoryStore {
    fn append(&self, rows: Vec<Row>) -> BoxFuture<'_, Result<Vec<Appended>, StoreError>> {
        let mut inner = self.lock();
        let answers = rows.iter().map(|row| inner.append(row)).collect();
        Box::pin(std::future::ready(Ok(answers)))
    }

    fn put_host(&self, host: HostRecord) -> BoxFuture<'_, Result<(), StoreError>> {
        self.lock().hosts.insert(host.id, host);
        Box::pin(std::future::ready(Ok(())))
    }

    fn hosts(&self) -> BoxFuture<'_, Result<Vec<HostRecord>, StoreError>> {
        let mut hosts: Vec<HostRecord> = self.lock().hosts.values().cloned().collect();
        hosts.sort_by_key(|host| host.id);
        Box::pin(std::future::ready(Ok(hosts)))
    }
}
