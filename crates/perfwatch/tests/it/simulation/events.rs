//! Events of the simulation, drawn from its seed.

use super::*;

/// Maximum time in which the hub is down, or no host sends.
const MAX_PAUSE_S: u64 = 2 * 3_600;
/// Time without rows of a host after which it is connected. With two pauses, below [`SHORT_RETENTION`].
const MAX_SILENCE_MS: i64 = HOUR_MS;

/// Event of the simulation.
#[derive(Debug)]
enum Event {
    /// Hosts send in time for some steps.
    Steps {
        count: u32,
    },
    Disconnect {
        host: usize,
    },
    Connect {
        host: usize,
    },
    /// The hub accepts the next batch, but the host does not learn of it.
    LoseAck {
        host: usize,
    },
    Reboot {
        host: usize,
    },
    StopHost {
        host: usize,
    },
    StartHost {
        host: usize,
    },
    StepClock {
        host: usize,
    },
    ChangeMounts {
        host: usize,
    },
    SetDatabase {
        mode: DatabaseMode,
    },
    LoseResponses {
        count: u32,
    },
    SetReceivers {
        is_unavailable: bool,
    },
    /// The hub stops in order, and is down for a time.
    Restart {
        down_s: u64,
    },
    /// The hub is killed between two events.
    Kill {
        down_s: u64,
    },
    /// The hub is killed at a later call of the store.
    KillAtCall {
        calls: u32,
        is_applied: bool,
    },
    /// Time passes while the hub runs and no host sends.
    Pause {
        seconds: u64,
    },
    Check,
}

impl Simulation {
    fn draw_event(&mut self) -> Event {
        let rng = &mut self.rng;
        let host = rng.usize(..self.hosts.len());
        let down_s = [0, rng.u64(1..200), rng.u64(200..MAX_PAUSE_S)][rng.usize(..3)];
        match rng.u32(..100) {
            0..45 => Event::Steps { count: rng.u32(1..8) },
            45..49 => Event::Disconnect { host },
            49..55 => Event::Connect { host },
            55..59 => Event::LoseAck { host },
            59..62 => Event::Reboot { host },
            62..64 => Event::StopHost { host },
            64..67 => Event::StartHost { host },
            67..69 => Event::StepClock { host },
            69..71 => Event::ChangeMounts { host },
            71..75 => {
                let modes = [DatabaseMode::Available, DatabaseMode::ReadOnly, DatabaseMode::Unreachable];
                Event::SetDatabase { mode: modes[rng.usize(..3)] }
            }
            75..78 => Event::LoseResponses { count: rng.u32(1..4) },
            78..81 => Event::SetReceivers { is_unavailable: rng.bool() },
            81..84 => Event::Restart { down_s },
            84..87 => Event::Kill { down_s },
            87..93 => Event::KillAtCall { calls: rng.u32(..60), is_applied: rng.bool() },
            93..95 => Event::Pause { seconds: rng.u64(600..MAX_PAUSE_S) },
            _ => Event::Check,
        }
    }

    /// Draws an event and lets it happen.
    pub(super) fn run_event(&mut self) {
        self.connect_silent_hosts();
        let event = self.draw_event();
        self.log(&event);
        let now_ms = self.now_ms();
        match event {
            Event::Steps { count } => (0..count).for_each(|_| self.step()),
            Event::Disconnect { host } => self.hosts[host].is_connected = false,
            Event::Connect { host } => self.hosts[host].is_connected = true,
            Event::LoseAck { host } => self.loses_ack = Some(host),
            Event::Reboot { host } => self.hosts[host].reboot(now_ms),
            Event::StopHost { host } => self.hosts[host].is_running = false,
            Event::StartHost { host } if !self.hosts[host].is_running => self.hosts[host].start(now_ms),
            Event::StartHost { .. } => {}
            Event::StepClock { host } => self.hosts[host].step_clock(&mut self.rng),
            Event::ChangeMounts { host } => {
                self.hosts[host].has_second_mount = !self.hosts[host].has_second_mount;
            }
            Event::SetDatabase { mode } => self.site.faults.set_mode(mode),
            Event::LoseResponses { count } => self.site.faults.lose_responses(count),
            Event::SetReceivers { is_unavailable } => self.site.receivers.set_unavailable(is_unavailable),
            Event::Restart { down_s } => {
                let hub = self.hub.take().unwrap();
                hub.stop();
                self.start_hub(down_s);
            }
            Event::Kill { down_s } => {
                self.site.faults.crash();
                self.start_hub(down_s);
            }
            Event::KillAtCall { calls, is_applied } => self.site.faults.crash_after(calls, is_applied),
            Event::Pause { seconds } => self.advance(Duration::from_secs(seconds)),
            Event::Check => self.check(),
        }
    }

    /// Connects the hosts that have sent nothing for long: the rows that their evaluators are restored from must
    /// not be deleted.
    fn connect_silent_hosts(&mut self) {
        let now_ms = self.now_ms();
        for (host, reference) in self.hosts.iter_mut().zip(&self.references) {
            if now_ms - reference.newest_ms().unwrap_or(START_MS) > MAX_SILENCE_MS {
                host.is_connected = true;
                if !host.is_running {
                    host.start(now_ms);
                }
            }
        }
    }

    /// Advances time by some seconds; hosts take snapshots and send them.
    pub(super) fn step(&mut self) {
        let seconds = self.rng.u64(5..60);
        self.advance(Duration::from_secs(seconds));
        let mut order: Vec<usize> = (0..self.hosts.len()).collect();
        self.rng.shuffle(&mut order);
        for host in order {
            self.send(host);
        }
        self.run_until_idle();
    }

    /// Advances the clock, and runs the timers of the hub for a part of this time.
    pub(super) fn advance(&mut self, duration: Duration) {
        let timers = Duration::from_millis(self.rng.u64(1..6_000));
        let is_alive = self.hub().advance(duration, timers);
        let now_ms = self.now_ms();
        self.hosts.iter_mut().for_each(|host| host.collect(now_ms, &mut self.rng));
        if !is_alive {
            self.restart_killed();
        }
    }

    /// Lets a host send its spool, batch by batch, until it is empty or a batch is not acknowledged.
    fn send(&mut self, index: usize) {
        while self.hosts[index].is_connected && !self.hosts[index].spool.is_empty() {
            let (host, now_ms) = (&self.hosts[index], self.now_ms());
            let batch = host.next_batch();
            let count = batch.len();
            let rows = host.corrected(batch.clone(), now_ms);
            let reference = &mut self.references[index];
            match self.hub.as_ref().unwrap().submit(host, batch) {
                Some(Ok(response)) => {
                    let accepted = reference.accept(&rows, now_ms);
                    let counts = (response.accepted, response.duplicates, response.rejected.len());
                    assert_eq!(counts, (accepted, count - accepted, 0), "{}", host.id);
                }
                Some(Err(_)) => {
                    reference.record_failed(rows);
                    return;
                }
                None => {
                    reference.record_failed(rows);
                    return self.restart_killed();
                }
            }
            if self.loses_ack == Some(index) {
                self.loses_ack = None;
                return;
            }
            self.hosts[index].spool.drain(..count);
        }
    }

    /// Lets the hub finish what it can do now.
    fn run_until_idle(&mut self) {
        match self.hub().run_until_idle() {
            false => self.restart_killed(),
            // Since a fault, alerts may wait to be stored.
            true if self.site.faults.epoch() == self.settled_epoch => self.set_settled(),
            true => {}
        }
    }

    /// Records that the alerts of all accepted rows are stored.
    pub(super) fn set_settled(&mut self) {
        self.settled_epoch = self.site.faults.epoch();
        self.references.iter_mut().for_each(|reference| reference.is_in_doubt = false);
    }
}
