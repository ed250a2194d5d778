//! The door of this crate: looks at hosts, and holds the connections that are soon needed again.
//! Of each host there is one at most.

use crate::look::{self, APART, Before, Read};
use crate::session::Session;
use crate::way::{Deadlines, Way, fail};
use perfwatch_model::Clock;
use perfwatch_model::remote::{Ask, Cause, Failure, Login, Looked, RemoteCollector, Seen, Stage, Target};
use secrecy::ExposeSecret as _;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Mutex as Turn, Semaphore};
use uuid::Uuid;

/// Captures that are read at one time: a hostile one takes memory.
const READING: usize = 2;

/// Looks by SSH.
pub struct Looks {
    clock: Arc<dyn Clock>,
    pub(crate) deadlines: Deadlines,
    slots: Mutex<HashMap<Uuid, Arc<Slot>>>,
    held: Arc<AtomicUsize>,
    reading: Semaphore,
}

/// A host's place; whoever has the turn looks.
#[derive(Default)]
struct Slot {
    turn: Turn<Option<Held>>,
}

/// A connection between two looks.
struct Held {
    session: Session,
    /// What it was made for: with other credentials, another one is made.
    made_for: u64,
    until: Duration,
    count: Arc<AtomicUsize>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Looks {
    /// With nothing held.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            deadlines: Deadlines::default(),
            slots: Mutex::default(),
            held: Arc::default(),
            reading: Semaphore::new(READING),
        }
    }

    fn slots(&self) -> MutexGuard<'_, HashMap<Uuid, Arc<Slot>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn run(&self, ask: Ask) -> Looked {
        let mut way = Way::new(&*self.clock, self.deadlines);
        let result = self.through(&ask, &mut way).await;
        self.tidy(ask.target.server);
        Looked { steps: way.steps, keys: way.keys, result }
    }

    /// A place without a connection, and nobody there: gone.
    fn tidy(&self, server: Uuid) {
        let mut slots = self.slots();
        let empty = |slot: &Arc<Slot>| {
            Arc::strong_count(slot) == 1 && slot.turn.try_lock().is_ok_and(|turn| turn.is_none())
        };
        if slots.get(&server).is_some_and(empty) {
            slots.remove(&server);
        }
    }

    /// Places that are known.
    #[cfg(test)]
    pub(crate) fn places(&self) -> usize {
        self.slots().len()
    }

    async fn through(&self, ask: &Ask, way: &mut Way<'_>) -> Result<Seen, Failure> {
        if ask.anew {
            let mut session = Session::open(&ask.target, way).await?;
            return self.look_by(&mut session, ask, way).await;
        }
        let slot = self.slots().entry(ask.target.server).or_default().clone();
        let mut turn = slot.turn.lock().await;
        let made_for = identity(&ask.target);
        let mut session = match turn.take() {
            Some(mut held) if held.made_for == made_for && !held.session.is_closed() => {
                match self.look_by(&mut held.session, ask, way).await {
                    // It was gone already when we came: that says nothing of the host.
                    Err(failure) if failure.cause == Cause::Closed => {
                        way.steps.clear();
                        drop(held);
                        Session::open(&ask.target, way).await?
                    }
                    result => {
                        if result.is_ok() {
                            self.hold(&mut turn, &slot, ask, held);
                        }
                        return result;
                    }
                }
            }
            other => {
                drop(other);
                Session::open(&ask.target, way).await?
            }
        };
        let seen = self.look_by(&mut session, ask, way).await?;
        self.held.fetch_add(1, Ordering::Relaxed);
        let held = Held { session, made_for, until: Duration::ZERO, count: self.held.clone() };
        self.hold(&mut turn, &slot, ask, held);
        Ok(seen)
    }

    /// Keeps it, and lets go of it when its time is over.
    fn hold(&self, turn: &mut Option<Held>, slot: &Arc<Slot>, ask: &Ask, mut held: Held) {
        let until = self.clock.monotonic() + ask.hold;
        if until < held.until {
            // Others need it for longer; their own end of it comes.
            *turn = Some(held);
            return;
        }
        if ask.hold.is_zero() {
            return;
        }
        held.until = until;
        *turn = Some(held);
        let (slot, hold) = (Arc::downgrade(slot), ask.hold);
        tokio::spawn(async move {
            tokio::time::sleep(hold).await;
            if let Some(slot) = slot.upgrade() {
                let mut turn = slot.turn.lock().await;
                // Unless it was used since.
                drop(turn.take_if(|held| held.until <= until));
            }
        });
    }

    /// Looks; twice where there is nothing yet to compare with.
    async fn look_by(&self, session: &mut Session, ask: &Ask, way: &mut Way<'_>) -> Result<Seen, Failure> {
        let (mut read, mut now_ms) = self.read(session, way).await?;
        let before = ask.carried.as_deref().and_then(Before::unpack);
        let mut before = before.filter(|before| read.follows(before, ask.fresh));
        if before.is_none() {
            before = Some(read.remember());
            tokio::time::sleep(APART).await;
            (read, now_ms) = self.read(session, way).await?;
        }
        let interval_ms = u32::try_from(ask.interval.as_millis()).unwrap_or(u32::MAX);
        blocking(move || read.seen(before, now_ms, interval_ms)).await
    }

    async fn read(&self, session: &mut Session, way: &mut Way<'_>) -> Result<(Read, i64), Failure> {
        let now_ms = self.clock.wall_ms();
        let output = session.capture(way).await?;
        let _turn = self.reading.acquire().await;
        Ok((blocking(move || look::read(&output)).await?, now_ms))
    }
}

/// Away from the tasks that others wait for; and what it stumbles over costs one host only.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| {
        Err(fail(Stage::Read, Cause::Internal, "reading it failed here: please report it"))
    })
}

/// Tells targets apart without keeping their secrets.
fn identity(target: &Target) -> u64 {
    let mut hash = DefaultHasher::new();
    let mut at = Some(target);
    while let Some(target) = at {
        (&target.address, target.port, &target.user, &target.pin).hash(&mut hash);
        match &target.login {
            Login::Password(password) => password.expose_secret().hash(&mut hash),
            Login::Key { key, passphrase } => {
                let passphrase = passphrase.as_ref().map(|text| text.expose_secret());
                (key.expose_secret(), passphrase).hash(&mut hash);
            }
        }
        at = target.jump.as_deref();
    }
    hash.finish()
}

impl RemoteCollector for Looks {
    fn look(&self, ask: Ask) -> Pin<Box<dyn Future<Output = Looked> + Send + '_>> {
        Box::pin(self.run(ask))
    }

    fn release(&self, server: Uuid) {
        self.slots().remove(&server);
    }

    fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }
}
