//! Metric C1: subjects of the commits since the vocabulary was introduced.

use super::measure::{Finding, Measure, Unit};
use std::path::Path;
use std::process::Command;

const TAG: &str = "vocabulary";
/// Characters of a commit subject above which C1 counts it.
const MAX_SUBJECT_LEN: usize = 72;

fn git(root: &Path, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new("git").arg("-C").arg(root).args(arguments).output();
    let output = output.map_err(|error| format!("C1 needs git to read the commit subjects: {error}"))?;
    if !output.status.success() {
        let reason = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(format!("C1 needs the git history: `git {}` failed: {reason}", arguments.join(" ")));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// `area: summary` with at most `MAX_SUBJECT_LEN` characters; the area consists of lower-case
/// letters, digits, and `/_-`.
fn is_conventional(subject: &str) -> bool {
    let Some((area, summary)) = subject.split_once(": ") else { return false };
    let is_letter = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit();
    area.starts_with(is_letter)
        && area.chars().all(|letter| is_letter(letter) || "/_-".contains(letter))
        && summary.starts_with(|first: char| !first.is_whitespace())
        && subject.chars().count() <= MAX_SUBJECT_LEN
}

/// Range of commits to check: since the tag or, without it, since the commit of the configuration
/// file. A shallow clone that contains neither has newer commits only.
fn range(root: &Path, base_commit: &str) -> Result<String, String> {
    git(root, &["rev-parse", "--verify", "HEAD"])?;
    let tag = format!("refs/tags/{TAG}^{{commit}}");
    let commit = format!("{base_commit}^{{commit}}");
    for base in [&tag, &commit] {
        if let Ok(hash) = git(root, &["rev-parse", "--quiet", "--verify", base]) {
            return Ok(format!("{hash}..HEAD"));
        }
    }
    if git(root, &["rev-parse", "--is-shallow-repository"])? == "true" {
        return Ok("HEAD".to_owned());
    }
    Err(format!("C1 needs the tag `{TAG}` or the commit {base_commit}; the history has neither"))
}

/// Measures C1: subjects without convention.
///
/// # Errors
/// Fails if git is not installed, if the root is not a repository, or if the history contains
/// neither the tag nor the commit.
pub(crate) fn measure_commits(root: &Path, base_commit: &str) -> Result<Measure, String> {
    let range = range(root, base_commit)?;
    let log = git(root, &["log", "--no-merges", "--format=%h %s", &range])?;
    let subjects = log.lines().filter_map(|line| line.split_once(' '));
    let offenders = subjects.filter(|(_, subject)| !is_conventional(subject));
    let places = offenders.map(|(hash, subject)| Finding::new(hash, 1, subject)).collect();
    Ok(Measure::new("C1", Unit::Count, places))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commit_subjects_need_an_area_and_a_short_summary() {
        let at_limit = format!("web: {}", "x".repeat(MAX_SUBJECT_LEN - 5));
        for subject in ["store: add partitions", "hub/api: list hosts", "ci: x", &at_limit] {
            assert!(is_conventional(subject), "{subject}");
        }
        for subject in [
            "Add partitions",
            "Store: add",
            "store add",
            "-x: add",
            "store:  add",
            "a b: c",
            &format!("{at_limit}x"),
        ] {
            assert!(!is_conventional(subject), "{subject}");
        }
    }

    #[test]
    fn commit_range_fails_outside_a_repository() {
        let error = measure_commits(Path::new("/proc"), "HEAD").unwrap_err();
        assert!(error.starts_with("C1 needs the git history"), "{error}");
    }

    #[test]
    fn commit_range_fails_without_the_base_commit() {
        let error = range(&crate::root(), "0000000000000000000000000000000000000001");
        let has_tag = git(&crate::root(), &["rev-parse", "--verify", "refs/tags/vocabulary"]).is_ok();
        let is_shallow = git(&crate::root(), &["rev-parse", "--is-shallow-repository"]).unwrap() == "true";
        assert_eq!(error.is_ok(), has_tag || is_shallow);
    }
}
