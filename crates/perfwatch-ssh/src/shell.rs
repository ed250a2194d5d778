//! The shell on the other side: given the probe once, asked for a capture again and again. What it
//! says has no size of its own, so it has ours.

use crate::PROBE;
use crate::connect_trace::{failure, failure_from_russh, sanitize_output};
use crate::keys::HostKeyVerifier;
use perfwatch_model::remote_collector::{CollectionFailure, CollectionStage, FailureCause};
use russh::client::{Handle, Msg};
use russh::{Channel, ChannelMsg};

/// What a host may say before it comes to the point: a message of the day.
const MAX_BANNER_BYTES: usize = 64 << 10;
/// What a capture may have: 20,000 processes take about 10 MB.
const MAX_OUTPUT_BYTES: usize = 16 << 20;
/// How much of its complaints is kept.
const MAX_STDERR_BYTES: usize = 500;
/// A shell that prints a capture when it is asked; one that prints it by itself was told to by
/// the host, whatever we ask for.
pub(crate) struct Shell {
    channel: Channel<Msg>,
    /// What came so far.
    output: Vec<u8>,
    stderr: Vec<u8>,
    code: Option<u32>,
    is_interactive: bool,
    finished: bool,
}

const READY: &[u8] = b"=== @ready\n";
const END: &[u8] = b"=== @end\n";

/// Where a line begins so.
fn find_line(output: &[u8], begins: &[u8]) -> Option<usize> {
    if output.starts_with(begins) {
        return Some(0);
    }
    let mut from = 0;
    while let Some(at) = output[from..].iter().position(|&byte| byte == b'\n') {
        from += at + 1;
        if output[from..].starts_with(begins) {
            return Some(from);
        }
    }
    None
}

impl Shell {
    pub(crate) async fn open(handle: &Handle<HostKeyVerifier>) -> Result<(Self, String), CollectionFailure> {
        let broken = |error| failure_from_russh(CollectionStage::Shell, &error);
        let channel = handle.channel_open_session().await.map_err(broken)?;
        channel.exec(true, "exec sh -s").await.map_err(broken)?;
        channel.data_bytes(PROBE).await.map_err(broken)?;
        let mut shell = Self {
            channel,
            output: Vec::new(),
            stderr: Vec::new(),
            code: None,
            is_interactive: false,
            finished: false,
        };
        loop {
            if let Some(at) = find_line(&shell.output, READY) {
                shell.output.drain(..at + READY.len());
                shell.is_interactive = true;
                return Ok((shell, "sh".to_owned()));
            }
            // A capture that nobody asked for; "=== @" could still become the one that is waited for.
            if let Some(at) =
                find_line(&shell.output, b"=== ").filter(|at| shell.output.len() > at + READY.len())
            {
                shell.output.drain(..at);
                return Ok((shell, "a command that the host has set".to_owned()));
            }
            if shell.output.len() > MAX_BANNER_BYTES {
                return Err(failure(
                    CollectionStage::Shell,
                    FailureCause::OutputTooLarge,
                    "no shell prompt within the output limit",
                ));
            }
            if shell.finished {
                return Err(shell.end_failure(CollectionStage::Shell));
            }
            shell.receive(CollectionStage::Shell).await?;
        }
    }

    /// This one, where it can be asked once more.
    pub(crate) async fn reusable(self) -> Option<Self> {
        if self.is_interactive && !self.finished {
            return Some(self);
        }
        let _ = self.channel.close().await;
        None
    }

    /// Takes in what comes next.
    async fn receive(&mut self, stage: CollectionStage) -> Result<(), CollectionFailure> {
        match self.channel.wait().await {
            Some(ChannelMsg::Data { data }) => self.output.extend_from_slice(&data),
            Some(ChannelMsg::ExtendedData { data, .. }) => {
                let room = MAX_STDERR_BYTES.saturating_sub(self.stderr.len()).min(data.len());
                self.stderr.extend_from_slice(&data[..room]);
            }
            Some(ChannelMsg::ExitStatus { exit_status }) => self.code = Some(exit_status),
            Some(ChannelMsg::Failure) => {
                return Err(failure(
                    stage,
                    FailureCause::CommandFailed,
                    "authenticated, but command execution is not allowed",
                ));
            }
            Some(ChannelMsg::Close) | None => self.finished = true,
            Some(_) => {}
        }
        Ok(())
    }

    /// Why there is nothing to read.
    fn end_failure(&self, stage: CollectionStage) -> CollectionFailure {
        let said = sanitize_output(&self.stderr);
        let said = if said.is_empty() {
            sanitize_output(&self.output[..self.output.len().min(MAX_STDERR_BYTES)])
        } else {
            said
        };
        let said = if said.is_empty() { String::new() } else { format!(": {said}") };
        let message = match self.code {
            Some(0) => format!("shell exited without output{said}"),
            Some(code) => format!("shell exited with {code}{said}"),
            None => format!("it ended the session{said}"),
        };
        failure(
            stage,
            if self.code.is_some() { FailureCause::CommandFailed } else { FailureCause::ConnectionClosed },
            message,
        )
    }

    /// One capture.
    pub(crate) async fn read(&mut self) -> Result<Vec<u8>, CollectionFailure> {
        if self.is_interactive {
            self.channel
                .data_bytes("capture\n")
                .await
                .map_err(|error| failure_from_russh(CollectionStage::Read, &error))?;
        }
        let mut looked = 0;
        loop {
            // The last line may have come in two parts; what stands within a line is none.
            let from = looked.min(self.output.len()).saturating_sub(END.len() + 1);
            let end = find_line(&self.output[from..], END).map(|at| from + at);
            if let Some(at) = end.filter(|at| *at == 0 || self.output[at - 1] == b'\n') {
                // Whoever says more than was asked is not asked again.
                self.finished |= self.output.len() > at + END.len();
                let mut output = std::mem::take(&mut self.output);
                output.truncate(at);
                return Ok(output);
            }
            looked = self.output.len();
            if self.output.len() > MAX_OUTPUT_BYTES {
                let message = format!("output exceeds {} MB", MAX_OUTPUT_BYTES >> 20);
                return Err(failure(CollectionStage::Read, FailureCause::OutputTooLarge, message));
            }
            if self.finished {
                // A capture from a file has no such line; it ends when all of it was said.
                let whole = !self.is_interactive
                    && self.code == Some(0)
                    && find_line(&self.output, b"=== /").is_some();
                return if whole {
                    Ok(std::mem::take(&mut self.output))
                } else {
                    Err(self.end_failure(CollectionStage::Read))
                };
            }
            self.receive(CollectionStage::Read).await?;
        }
    }
}
