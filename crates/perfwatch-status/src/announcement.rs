//! Announcements of a status page: texts of operators for visitors, about an incident or a maintenance.

use perfwatch_http::params;
use serde::{Deserialize, Serialize};

/// Maximum number of announcements of a page.
const MAX_ANNOUNCEMENTS: usize = 5;
/// Maximum number of updates of an announcement.
const MAX_UPDATES: usize = 10;
/// Maximum length of an update.
const MAX_UPDATE_BYTES: usize = 500;

/// State of what an announcement is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum AnnouncementState {
    /// The reason is not found yet.
    Investigating,
    /// The reason is found.
    Identified,
    /// It is over as far as it seems.
    Monitoring,
    /// It is over.
    Resolved,
    /// A maintenance.
    Maintenance,
    /// No problem.
    Information,
}

/// Text of an announcement at a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AnnouncementUpdate {
    /// Time of the text, Unix milliseconds; 0 in a request for the time of the request.
    #[serde(default)]
    pub at_ms: i64,
    /// Text without markup; 1 to 500 bytes.
    pub text: String,
}

/// Announcement for the visitors of a page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Announcement {
    /// Heading; 1 to 100 bytes.
    pub title: String,
    /// State of what it is about.
    pub state: AnnouncementState,
    /// Texts, newest first; 1 to 10.
    pub updates: Vec<AnnouncementUpdate>,
}

/// Validates announcements, removes white space around texts, sets missing times and sorts the updates.
///
/// # Errors
/// Returns the path of the first invalid field and what is accepted.
pub(crate) fn validate(announcements: &mut [Announcement], now_ms: i64) -> Result<(), String> {
    if announcements.len() > MAX_ANNOUNCEMENTS {
        return Err(format!("announcements: at most {MAX_ANNOUNCEMENTS} are allowed"));
    }
    for (index, announcement) in announcements.iter_mut().enumerate() {
        let path = format!("announcements[{index}]");
        announcement.title = params::validate_label(&announcement.title)
            .map_err(|_| format!("{path}.title: must have 1 to 100 bytes"))?;
        if !(1..=MAX_UPDATES).contains(&announcement.updates.len()) {
            return Err(format!("{path}.updates: expected 1 to {MAX_UPDATES}"));
        }
        for (at, update) in announcement.updates.iter_mut().enumerate() {
            let path = format!("{path}.updates[{at}]");
            let text = params::validate_comment(&update.text, MAX_UPDATE_BYTES).unwrap_or_default();
            if text.is_empty() {
                return Err(format!(
                    "{path}.text: must have 1 to {MAX_UPDATE_BYTES} bytes and no control characters"
                ));
            }
            if !(0..=now_ms).contains(&update.at_ms) {
                return Err(format!("{path}.at_ms: must not be in the future"));
            }
            update.text = text;
            update.at_ms = if update.at_ms == 0 { now_ms } else { update.at_ms };
        }
        announcement.updates.sort_by_key(|update| std::cmp::Reverse(update.at_ms));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn announcement(updates: &[(i64, &str)]) -> Announcement {
        let updates = updates
            .iter()
            .map(|(at_ms, text)| AnnouncementUpdate { at_ms: *at_ms, text: (*text).to_owned() });
        Announcement {
            title: " Slow database ".to_owned(),
            state: AnnouncementState::Investigating,
            updates: updates.collect(),
        }
    }

    #[test]
    fn updates_are_sorted_and_get_their_time() {
        let mut list = [announcement(&[(5, " first "), (0, "now"), (7, "second")])];
        validate(&mut list, 100).unwrap();
        assert_eq!(list[0].title, "Slow database");
        let updates: Vec<(i64, &str)> =
            list[0].updates.iter().map(|update| (update.at_ms, update.text.as_str())).collect();
        assert_eq!(updates, [(100, "now"), (7, "second"), (5, "first")]);
    }

    #[test]
    fn invalid_announcements_are_rejected() {
        let long = "x".repeat(501);
        for (list, expected) in [
            (vec![announcement(&[(0, "x")]); 6], "announcements: at most 5 are allowed"),
            (vec![announcement(&[])], "announcements[0].updates: expected 1 to 10"),
            (vec![announcement(&[(0, "x"); 11])], "announcements[0].updates: expected 1 to 10"),
            (
                vec![announcement(&[(101, "x")])],
                "announcements[0].updates[0].at_ms: must not be in the future",
            ),
            (
                vec![announcement(&[(-1, "x")])],
                "announcements[0].updates[0].at_ms: must not be in the future",
            ),
            (
                vec![announcement(&[(0, "x"), (0, " ")])],
                "announcements[0].updates[1].text: must have 1 to 500 bytes and no control characters",
            ),
            (
                vec![announcement(&[(0, &long)])],
                "announcements[0].updates[0].text: must have 1 to 500 bytes and no control characters",
            ),
            (
                vec![Announcement { title: String::new(), ..announcement(&[(0, "x")]) }],
                "announcements[0].title: must have 1 to 100 bytes",
            ),
        ] {
            let mut list = list;
            assert_eq!(validate(&mut list, 100).unwrap_err(), expected);
        }
        validate(&mut vec![announcement(&[(100, "x"); 10]); 5], 100).unwrap();
    }
}
