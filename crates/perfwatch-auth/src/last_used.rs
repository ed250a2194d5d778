//! Times of last use, buffered in memory: a request must not cost a write.

use perfwatch_store::Transaction;
use perfwatch_store::accounts::{SecretHash, Session};
use perfwatch_store::agents::Agent;
use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use uuid::Uuid;

/// Last use of sessions, tokens and agents since the previous flush, milliseconds since 1970.
#[derive(Default)]
struct LastUsed {
    sessions: HashMap<SecretHash, i64>,
    tokens: HashMap<Uuid, i64>,
    agents: HashMap<Uuid, i64>,
}

/// Buffer of last-used times that are not stored yet.
#[derive(Default)]
pub(crate) struct LastUsedBuffer(Mutex<LastUsed>);

/// Agents whose latest request came from another machine over a connection without encryption.
#[derive(Default)]
pub(crate) struct UnencryptedAgents(Mutex<HashSet<Uuid>>);

impl UnencryptedAgents {
    pub(crate) fn record(&self, agent: Uuid, is_unencrypted: bool) {
        let mut agents = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match is_unencrypted {
            true => agents.insert(agent),
            false => agents.remove(&agent),
        };
    }

    pub(crate) fn contains(&self, agent: Uuid) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&agent)
    }
}

impl LastUsedBuffer {
    fn lock(&self) -> MutexGuard<'_, LastUsed> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn touch_session(&self, hash: SecretHash, now_ms: i64) {
        self.lock().sessions.insert(hash, now_ms);
    }

    pub(crate) fn touch_token(&self, id: Uuid, now_ms: i64) {
        self.lock().tokens.insert(id, now_ms);
    }

    pub(crate) fn touch_agent(&self, id: Uuid, now_ms: i64) {
        self.lock().agents.insert(id, now_ms);
    }

    /// Last use of a session, stored or buffered.
    pub(crate) fn session_ms(&self, session: &Session) -> i64 {
        self.lock().sessions.get(&session.hash).copied().unwrap_or_default().max(session.last_used_ms)
    }

    /// Last request of an agent, stored or buffered.
    pub(crate) fn agent_ms(&self, agent: &Agent) -> i64 {
        self.lock().agents.get(&agent.id).copied().unwrap_or_default().max(agent.last_seen_ms)
    }

    /// Copies buffered times into freshly loaded sessions, so that a load does not expire them.
    pub(crate) fn apply(&self, sessions: &mut HashMap<SecretHash, Session>) {
        for (hash, at_ms) in &self.lock().sessions {
            if let Some(session) = sessions.get_mut(hash) {
                session.last_used_ms = session.last_used_ms.max(*at_ms);
            }
        }
    }

    /// Empties the buffer into writes.
    pub(crate) fn drain(&self) -> Transaction {
        let buffered = std::mem::take(&mut *self.lock());
        Transaction::build(|tx| {
            buffered.sessions.iter().for_each(|(hash, at_ms)| tx.sessions().touch(hash, *at_ms));
            buffered.tokens.iter().for_each(|(id, at_ms)| tx.tokens().touch(*id, *at_ms));
            buffered.agents.iter().for_each(|(id, at_ms)| tx.agents().touch(*id, *at_ms));
        })
    }
}
