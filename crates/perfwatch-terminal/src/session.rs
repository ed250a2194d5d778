//! Threads of a running view: the worker of the source, the input, and the signals. All send messages to the main
//! thread, which owns the view.

use crate::source::{HostSource, SourceRequest, SourceUpdate, run_worker};
use crate::view::{Key, View, ViewEffect, ViewEvent};
use perfwatch_model::Clock;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

/// Maximum number of messages that are handled between two screens.
const MAX_MESSAGE_BATCH_LEN: usize = 256;

/// Message to the main thread.
#[derive(Debug)]
pub(crate) enum Message {
    Source(SourceUpdate),
    /// The worker ended, which happens only by a panic.
    SourceEnded,
    Key(Key),
    /// Another event of the terminal, such as a new size.
    Redraw,
    /// Line of the standard input in plain mode.
    Line(String),
    /// Signal that ends the program, or the end of the terminal.
    Stop,
}

/// View with its threads.
pub(crate) struct Session {
    pub(crate) view: View,
    pub(crate) clock: Arc<dyn Clock>,
    requests: Sender<SourceRequest>,
    messages: Receiver<Message>,
    sender: Sender<Message>,
}

/// Reports the end of the worker, also by a panic.
struct EndReport(Sender<Message>);

impl Drop for EndReport {
    fn drop(&mut self) {
        let _ = self.0.send(Message::SourceEnded);
    }
}

impl Session {
    /// Starts the signal handlers and the worker.
    pub(crate) fn start(
        source: Box<dyn HostSource>,
        view: View,
        interval: Duration,
        clock: Arc<dyn Clock>,
    ) -> io::Result<Self> {
        let (sender, messages) = channel();
        let (requests, worker_requests) = channel();
        let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
        let session = Self { view, clock, requests, messages, sender };
        session.spawn("signals", move |sender| {
            // Each signal is a request to end; the first ends the program.
            signals.forever().all(|_| sender.send(Message::Stop).is_ok());
        })?;
        let clock = session.clock.clone();
        session.spawn("source", move |sender| {
            let _report = EndReport(sender.clone());
            let send = |update| sender.send(Message::Source(update)).is_ok();
            run_worker(source, interval, &worker_requests, &*clock, &send);
        })?;
        Ok(session)
    }

    /// Starts a thread that sends messages.
    pub(crate) fn spawn(
        &self,
        name: &str,
        main: impl FnOnce(Sender<Message>) + Send + 'static,
    ) -> io::Result<()> {
        let sender = self.sender.clone();
        std::thread::Builder::new().name(name.to_owned()).spawn(move || main(sender))?;
        Ok(())
    }

    /// Messages since the previous call, in order. Waits for the first message at most `timeout`.
    pub(crate) fn wait(&self, timeout: Duration) -> Vec<Message> {
        match self.messages.recv_timeout(timeout) {
            Ok(first) => {
                std::iter::once(first).chain(self.messages.try_iter()).take(MAX_MESSAGE_BATCH_LEN).collect()
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => Vec::new(),
        }
    }

    /// Changes the view and sends its requests to the worker. Returns the other effects.
    pub(crate) fn apply(&mut self, event: ViewEvent) -> Vec<ViewEffect> {
        self.view.reduce(ViewEvent::Time(self.clock.wall_ms()));
        let effects = self.view.reduce(event);
        self.execute(effects)
    }

    /// Sends the requests to the worker. Returns the other effects.
    pub(crate) fn execute(&self, mut effects: Vec<ViewEffect>) -> Vec<ViewEffect> {
        effects.retain(|effect| match effect {
            ViewEffect::Request(request) => {
                // A worker that ended has sent a message.
                let _ = self.requests.send(*request);
                false
            }
            _ => true,
        });
        effects
    }
}
