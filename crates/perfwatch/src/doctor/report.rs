//! Results of the checks as text and as JSON.

use crate::terminal::printable;
use serde::Serialize;
use std::fmt::Write as _;

/// Result of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum CheckStatus {
    Ok,
    /// The installation works, but something needs attention.
    Warning,
    /// The installation does not work, or loses data.
    Error,
}

impl CheckStatus {
    fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

#[derive(Debug, Serialize)]
struct CheckResult {
    check: &'static str,
    status: CheckStatus,
    message: String,
    /// Remedy of a warning or error.
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
}

/// Results in the order of the checks.
#[derive(Debug, Default)]
pub(super) struct Report {
    results: Vec<CheckResult>,
}

impl Report {
    /// Adds a passed check.
    pub(super) fn ok(&mut self, check: &'static str, message: impl Into<String>) {
        self.add(check, CheckStatus::Ok, &message.into(), None);
    }

    /// Adds a check that needs attention, with its remedy.
    pub(super) fn warning(
        &mut self,
        check: &'static str,
        message: impl Into<String>,
        advice: impl Into<String>,
    ) {
        self.add(check, CheckStatus::Warning, &message.into(), Some(advice.into()));
    }

    /// Adds a failed check with its remedy.
    pub(super) fn error(
        &mut self,
        check: &'static str,
        message: impl Into<String>,
        advice: impl Into<String>,
    ) {
        self.add(check, CheckStatus::Error, &message.into(), Some(advice.into()));
    }

    fn add(&mut self, check: &'static str, status: CheckStatus, message: &str, advice: Option<String>) {
        // Names of hosts and messages of other programs may contain control characters.
        let message = printable(message).into_owned();
        self.results.push(CheckResult { check, status, message, advice });
    }

    /// Number of failed checks.
    pub(super) fn errors(&self) -> usize {
        self.results.iter().filter(|result| result.status == CheckStatus::Error).count()
    }

    /// Worst status of all checks.
    pub(super) fn status(&self) -> CheckStatus {
        let is_any = |status| self.results.iter().any(|result| result.status == status);
        match () {
            () if is_any(CheckStatus::Error) => CheckStatus::Error,
            () if is_any(CheckStatus::Warning) => CheckStatus::Warning,
            () => CheckStatus::Ok,
        }
    }

    /// Result of the last check of this name, for tests.
    #[cfg(test)]
    pub(super) fn result_of(&self, check: &str) -> (CheckStatus, String) {
        let result = self.results.iter().rev().find(|result| result.check == check);
        let result = result.unwrap_or_else(|| panic!("no check {check} in {self:?}"));
        let advice = result.advice.as_deref().unwrap_or_default();
        (result.status, format!("{}; {advice}", result.message))
    }

    /// A line per check; the remedy follows on a line below.
    pub(super) fn to_text(&self) -> String {
        let width = self.results.iter().map(|result| result.check.len()).max().unwrap_or_default();
        let mut text = String::new();
        for CheckResult { check, status, message, advice } in &self.results {
            let _ = writeln!(text, "{:8} {check:width$}  {message}", status.label());
            if let Some(advice) = advice {
                let _ = writeln!(text, "{:8} {:width$}  -> {advice}", "", "");
            }
        }
        text
    }

    /// `{"status": …, "version": …, "checks": […]}`.
    pub(super) fn to_json(&self) -> String {
        let json = serde_json::json!({
            "status": self.status(),
            "version": env!("CARGO_PKG_VERSION"),
            "checks": self.results,
        });
        format!("{json:#}\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_aligned_and_count_errors() {
        let mut report = Report::default();
        report.ok("disk", "9 GB free");
        assert_eq!((report.errors(), report.status()), (0, CheckStatus::Ok));
        report.warning("clock", "12 s\x1b[2J behind", "start a time service");
        assert_eq!((report.errors(), report.status()), (0, CheckStatus::Warning));
        report.error("listen", "in use", "stop the other program");
        assert_eq!((report.errors(), report.status()), (1, CheckStatus::Error));
        let expected = "ok       disk    9 GB free\n\
            warning  clock   12 s\u{fffd}[2J behind\n\
            \x20                -> start a time service\n\
            error    listen  in use\n\
            \x20                -> stop the other program\n";
        assert_eq!(report.to_text(), expected);
        let json: serde_json::Value = serde_json::from_str(&report.to_json()).unwrap();
        assert_eq!(
            (&json["status"], &json["checks"][1]["advice"]),
            (&"error".into(), &"start a time service".into())
        );
        assert!(json["checks"][0].get("advice").is_none());
    }
}
