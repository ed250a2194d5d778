//! Remote shell that runs the probe: it receives the script once and prints a capture for each
//! request. The server determines how much it sends, so every output has a size limit.

use crate::PROBE;
use crate::connect_trace::{failure, failure_from_russh, sanitize_output};
use crate::keys::HostKeyVerifier;
use perfwatch_model::remote_collector::{CollectionFailure, CollectionStage, FailureCause};
use russh::client::{Handle, Msg};
use russh::{Channel, ChannelMsg};

/// Maximum output before the shell is ready, such as a message of the day.
const MAX_BANNER_BYTES: usize = 64 << 10;
/// Maximum size of a capture. With 20,000 processes it has about 10 MB.
const MAX_OUTPUT_BYTES: usize = 16 << 20;
/// Maximum length of standard error that is stored for messages.
const MAX_STDERR_BYTES: usize = 500;

/// Channel with a running shell.
pub(crate) struct Shell {
    channel: Channel<Msg>,
    /// Standard output received and not yet returned.
    output: Vec<u8>,
    stderr: Vec<u8>,
    exit_code: Option<u32>,
    /// True if the shell prints a capture for each request. A forced command (sshd_config(5)) prints one
    /// capture regardless of requests.
    is_interactive: bool,
    finished: bool,
}

/// Line printed by the probe before it reads requests.
const READY_LINE: &[u8] = b"=== @ready\n";
/// Line printed by the probe after each capture.
const END_LINE: &[u8] = b"=== @end\n";

/// Offset of the first line that starts with `prefix`.
fn find_line(output: &[u8], prefix: &[u8]) -> Option<usize> {
    if output.starts_with(prefix) {
        return Some(0);
    }
    let mut start = 0;
    while let Some(offset) = output[start..].iter().position(|&byte| byte == b'\n') {
        start += offset + 1;
        if output[start..].starts_with(prefix) {
            return Some(start);
        }
    }
    None
}

impl Shell {
    /// Starts the shell and sends the probe; returns once it is ready or prints a capture.
    pub(crate) async fn open(handle: &Handle<HostKeyVerifier>) -> Result<(Self, String), CollectionFailure> {
        let channel_failure = |error| failure_from_russh(CollectionStage::Shell, &error);
        let channel = handle.channel_open_session().await.map_err(channel_failure)?;
        channel.exec(true, "exec sh -s").await.map_err(channel_failure)?;
        channel.data_bytes(PROBE).await.map_err(channel_failure)?;
        let mut shell = Self {
            channel,
            output: Vec::new(),
            stderr: Vec::new(),
            exit_code: None,
            is_interactive: false,
            finished: false,
        };
        loop {
            if let Some(offset) = find_line(&shell.output, READY_LINE) {
                shell.output.drain(..offset + READY_LINE.len());
                shell.is_interactive = true;
                return Ok((shell, "sh".to_owned()));
            }
            // A capture without a request comes from a forced command. With fewer bytes than the ready
            // line has, the line could still become that line.
            if let Some(offset) = find_line(&shell.output, b"=== ")
                .filter(|offset| shell.output.len() > offset + READY_LINE.len())
            {
                shell.output.drain(..offset);
                return Ok((shell, "forced command of the server".to_owned()));
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

    /// Returns the shell if it accepts another request; closes it otherwise.
    pub(crate) async fn reusable(self) -> Option<Self> {
        if self.is_interactive && !self.finished {
            return Some(self);
        }
        let _ = self.channel.close().await;
        None
    }

    /// Receives and stores the next message of the channel.
    async fn receive(&mut self, stage: CollectionStage) -> Result<(), CollectionFailure> {
        match self.channel.wait().await {
            Some(ChannelMsg::Data { data }) => self.output.extend_from_slice(&data),
            Some(ChannelMsg::ExtendedData { data, .. }) => {
                let length = MAX_STDERR_BYTES.saturating_sub(self.stderr.len()).min(data.len());
                self.stderr.extend_from_slice(&data[..length]);
            }
            Some(ChannelMsg::ExitStatus { exit_status }) => self.exit_code = Some(exit_status),
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

    /// Failure of a shell that ended early, with its exit code and the start of its output.
    fn end_failure(&self, stage: CollectionStage) -> CollectionFailure {
        let mut text = sanitize_output(&self.stderr);
        if text.is_empty() {
            text = sanitize_output(&self.output[..self.output.len().min(MAX_STDERR_BYTES)]);
        }
        let suffix = if text.is_empty() { String::new() } else { format!(": {text}") };
        let (cause, message) = match self.exit_code {
            Some(0) => (FailureCause::CommandFailed, format!("shell exited without output{suffix}")),
            Some(code) => (FailureCause::CommandFailed, format!("shell exited with {code}{suffix}")),
            None => (FailureCause::ConnectionClosed, format!("session closed by the server{suffix}")),
        };
        failure(stage, cause, message)
    }

    /// Requests one capture and reads it up to its end line.
    pub(crate) async fn read(&mut self) -> Result<Vec<u8>, CollectionFailure> {
        if self.is_interactive {
            self.channel
                .data_bytes("capture\n")
                .await
                .map_err(|error| failure_from_russh(CollectionStage::Read, &error))?;
        }
        let mut searched = 0;
        loop {
            // The end line may arrive in two messages; the text within a line does not count.
            let start = searched.min(self.output.len()).saturating_sub(END_LINE.len() + 1);
            let end = find_line(&self.output[start..], END_LINE).map(|offset| start + offset);
            if let Some(end) = end.filter(|end| *end == 0 || self.output[end - 1] == b'\n') {
                // A shell that prints more than requested receives no further request.
                self.finished |= self.output.len() > end + END_LINE.len();
                let mut output = std::mem::take(&mut self.output);
                output.truncate(end);
                return Ok(output);
            }
            searched = self.output.len();
            if self.output.len() > MAX_OUTPUT_BYTES {
                let message = format!("output exceeds {} MB", MAX_OUTPUT_BYTES >> 20);
                return Err(failure(CollectionStage::Read, FailureCause::OutputTooLarge, message));
            }
            if self.finished {
                // A forced command may print a capture from a file, which has no end line.
                let is_complete = !self.is_interactive
                    && self.exit_code == Some(0)
                    && find_line(&self.output, b"=== /").is_some();
                return if is_complete {
                    Ok(std::mem::take(&mut self.output))
                } else {
                    Err(self.end_failure(CollectionStage::Read))
                };
            }
            self.receive(CollectionStage::Read).await?;
        }
    }
}
