//! Queries and formulas of a request, and their validation.

use crate::formula::Formula;
use perfwatch_http::ApiError;
use perfwatch_model::{SeriesSelector, limits, wire};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::HashSet;

/// Maximum number of queries of a request.
pub(crate) const MAX_QUERIES: usize = 10;
/// Maximum number of formulas of a request.
pub(crate) const MAX_FORMULAS: usize = 5;
/// Maximum length of the id of a query or formula.
const MAX_ID_LEN: usize = 16;
/// Maximum number of hosts, and of tags, that a query names.
const MAX_SELECTED: usize = 1_000;
/// Maximum length of a tag, and of the key in `tag:KEY`.
const MAX_TAG_LEN: usize = 64;

/// Hosts of a query. All hosts match if `hosts` and `tags` are empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct QueryHosts {
    /// Ids or names of selected hosts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// Tags that select a host; any of them is sufficient.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Tags that exclude a host, even if it is listed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude_tags: Vec<String>,
}

/// Hosts of a query as sets, to be compared with many hosts.
#[derive(Debug)]
pub(crate) struct HostMatcher<'a> {
    hosts: HashSet<&'a str>,
    tags: HashSet<&'a str>,
    exclude_tags: HashSet<&'a str>,
}

impl<'a> HostMatcher<'a> {
    pub(crate) fn new(selector: &'a QueryHosts) -> Self {
        let to_set = |list: &'a [String]| list.iter().map(String::as_str).collect();
        Self {
            hosts: to_set(&selector.hosts),
            tags: to_set(&selector.tags),
            exclude_tags: to_set(&selector.exclude_tags),
        }
    }

    /// Returns whether a host with this id, name and tags is selected.
    pub(crate) fn matches(&self, id: &str, name: &str, tags: &[String]) -> bool {
        let selects_all = self.hosts.is_empty() && self.tags.is_empty();
        let is_listed = self.hosts.contains(id) || self.hosts.contains(name);
        let has_tag = |set: &HashSet<&str>| tags.iter().any(|tag| set.contains(tag.as_str()));
        (selects_all || is_listed || has_tag(&self.tags)) && !has_tag(&self.exclude_tags)
    }
}

/// Aggregation of the series of a group at each point.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Aggregation {
    /// Mean of the series that have a value.
    #[default]
    Mean,
    /// Sum of the means of the series that have a value.
    Sum,
    /// Smallest sample.
    Min,
    /// Largest sample.
    Max,
    /// Value that 95 % of the means do not exceed.
    P95,
}

/// Grouping of the series of a query. Metrics are never combined with each other.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Grouping {
    /// A series for each host.
    #[default]
    Host,
    /// A series for each value of a tag `KEY=value`.
    Tag(String),
    /// A series for each instance, over all hosts.
    Instance,
    /// A series for each host and instance.
    Series,
    /// A single series.
    None,
}

impl Grouping {
    /// Parses `host`, `tag:KEY`, `instance`, `series` or `none`.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "host" => Self::Host,
            "instance" => Self::Instance,
            "series" => Self::Series,
            "none" => Self::None,
            _ => {
                let key = text.strip_prefix("tag:")?;
                let is_key = !key.is_empty() && key.len() <= MAX_TAG_LEN && !key.contains('=');
                is_key.then(|| Self::Tag(key.to_owned()))?
            }
        })
    }
}

impl std::fmt::Display for Grouping {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Host => f.write_str("host"),
            Self::Tag(key) => write!(f, "tag:{key}"),
            Self::Instance => f.write_str("instance"),
            Self::Series => f.write_str("series"),
            Self::None => f.write_str("none"),
        }
    }
}

impl Serialize for Grouping {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Grouping {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let expected = "expected host, tag:KEY, instance, series or none";
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom(format!("invalid grouping; {expected}")))
    }
}

/// Returns whether groups of `narrow` have no label that groups of `wide` do not have.
fn includes(wide: &Grouping, narrow: &Grouping) -> bool {
    wide == narrow
        || *narrow == Grouping::None
        || *wide == Grouping::Series && matches!(narrow, Grouping::Host | Grouping::Instance)
}

/// Grouping whose groups a formula over these groupings has; `None` if they do not match.
pub(crate) fn common_grouping<'a>(groupings: &[&'a Grouping]) -> Option<&'a Grouping> {
    let is_common = |wide: &&&'a Grouping| groupings.iter().all(|narrow| includes(wide, narrow));
    groupings.iter().find(is_common).copied()
}

/// Query of a metric over hosts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SeriesQuery {
    /// Letter and up to 15 letters, digits or underscores; formulas refer to it.
    pub id: String,
    /// Metric, or a pattern such as `cpu.*`.
    pub metric: String,
    /// Single instance; all instances if missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// Hosts of the query; all visible hosts by default.
    #[serde(default)]
    pub hosts: QueryHosts,
    /// Aggregation of the series of a group.
    #[serde(default)]
    pub aggregate: Aggregation,
    /// Grouping: `host`, `tag:KEY`, `instance`, `series` or `none`.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub by: Grouping,
    /// Maximum number of series, those with the largest newest value; default 50, at most 200.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Omits the series from the response; formulas still use them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hidden: bool,
}

impl SeriesQuery {
    /// Selector of the series of the query.
    pub(crate) fn selector(&self) -> SeriesSelector {
        SeriesSelector { metric: self.metric.clone(), instance: self.instance.clone() }
    }

    fn validate(&self, path: &str) -> Result<(), ApiError> {
        let is_pattern = self.selector().is_pattern() && is_metric_pattern(&self.metric);
        if !is_pattern && !wire::is_metric_name(&self.metric) {
            return Err(invalid(format!(
                "{path}.metric: must be the name of a metric or a pattern such as cpu.*"
            )));
        }
        if self.instance.as_ref().is_some_and(|instance| instance.len() > limits::MAX_INSTANCE_BYTES) {
            return Err(invalid(format!(
                "{path}.instance: must have at most {} bytes",
                limits::MAX_INSTANCE_BYTES
            )));
        }
        let selector = &self.hosts;
        if selector.hosts.len().max(selector.tags.len()).max(selector.exclude_tags.len()) > MAX_SELECTED {
            return Err(invalid(format!("{path}.hosts: at most {MAX_SELECTED} hosts or tags are allowed")));
        }
        let names = selector.hosts.iter().chain(&selector.tags).chain(&selector.exclude_tags);
        if names.map(String::len).any(|len| len == 0 || len > limits::MAX_HOST_NAME_BYTES) {
            return Err(invalid(format!("{path}.hosts: contains an empty or too long host or tag")));
        }
        if self.limit == Some(0) {
            return Err(invalid(format!("{path}.limit: must be at least 1")));
        }
        Ok(())
    }
}

/// Formula over the series of queries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FormulaQuery {
    /// Letter and up to 15 letters, digits or underscores.
    pub id: String,
    /// Ids of queries, numbers, `+ - * /` and parentheses: `A / B * 100`.
    pub expression: String,
    /// Maximum number of series, those with the largest newest value; default 50, at most 200.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Omits the series from the response.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hidden: bool,
}

/// Queries and formulas of a request or of a saved view.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct QuerySet {
    /// Queries, at most 10.
    pub queries: Vec<SeriesQuery>,
    /// Formulas over the queries, at most 5.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub formulas: Vec<FormulaQuery>,
}

impl QuerySet {
    /// Validates queries and formulas. Returns the formulas with the queries that they use.
    ///
    /// # Errors
    /// Returns `invalid_series_query` for the first invalid query, and `invalid_formula` for the first invalid formula.
    pub(crate) fn validate(&self) -> Result<Vec<Formula>, ApiError> {
        if self.queries.is_empty() || self.queries.len() > MAX_QUERIES {
            return Err(invalid(format!("queries: 1 to {MAX_QUERIES} are allowed")));
        }
        if self.formulas.len() > MAX_FORMULAS {
            return Err(invalid(format!("formulas: at most {MAX_FORMULAS} are allowed")));
        }
        let mut ids = HashSet::new();
        let query_ids =
            self.queries.iter().enumerate().map(|(at, query)| (format!("queries[{at}]"), &query.id));
        let formulas = self.formulas.iter().enumerate();
        let formula_ids = formulas.map(|(at, formula)| (format!("formulas[{at}]"), &formula.id));
        for (path, id) in query_ids.chain(formula_ids) {
            if !is_id(id) {
                let expected = "must be a letter and up to 15 letters, digits or underscores";
                return Err(invalid(format!("{path}.id: {expected}")));
            }
            if !ids.insert(id) {
                return Err(invalid(format!("{path}.id: duplicate id")));
            }
        }
        for (at, query) in self.queries.iter().enumerate() {
            query.validate(&format!("queries[{at}]"))?;
        }
        let formulas = self.formulas.iter().enumerate();
        formulas.map(|(at, formula)| self.parse_formula(formula, &format!("formulas[{at}]"))).collect()
    }

    /// Parses a formula, and checks that its queries have series that can be combined.
    fn parse_formula(&self, formula: &FormulaQuery, path: &str) -> Result<Formula, ApiError> {
        let invalid = |message: String| {
            ApiError::unprocessable("invalid_formula", format!("{path}.expression: {message}"))
        };
        if formula.limit == Some(0) {
            return Err(self::invalid(format!("{path}.limit: must be at least 1")));
        }
        let ids: Vec<&str> = self.queries.iter().map(|query| query.id.as_str()).collect();
        let parsed = Formula::parse(&formula.expression, &ids).map_err(invalid)?;
        let used: Vec<&SeriesQuery> = parsed.queries().iter().map(|index| &self.queries[*index]).collect();
        if used.iter().any(|query| query.selector().is_pattern()) {
            return Err(invalid(
                "uses a query of several metrics; expected queries of a single metric".to_owned(),
            ));
        }
        let groupings: Vec<&Grouping> = used.iter().map(|query| &query.by).collect();
        if common_grouping(&groupings).is_none() {
            let message = "uses queries with different groupings; expected equal groupings, or none";
            return Err(invalid(message.to_owned()));
        }
        Ok(parsed)
    }
}

/// Queries over a time range.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct QueryRequest {
    /// Start: milliseconds since 1970, RFC 3339, or an offset; default: one hour before `to`.
    pub from: Option<String>,
    /// End of the range; default: now.
    pub to: Option<String>,
    /// Maximum number of points per series: 10 to 2,000, default 300.
    pub points: Option<usize>,
    /// Queries, at most 10.
    pub queries: Vec<SeriesQuery>,
    /// Formulas over the queries, at most 5.
    #[serde(default)]
    pub formulas: Vec<FormulaQuery>,
}

/// Error of a query that is not accepted.
pub(crate) fn invalid(message: String) -> ApiError {
    ApiError::unprocessable("invalid_series_query", message)
}

fn is_id(id: &str) -> bool {
    id.len() <= MAX_ID_LEN
        && id.starts_with(|c: char| c.is_ascii_alphabetic())
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn is_metric_pattern(pattern: &str) -> bool {
    let is_allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'.' | b'*' | b'?');
    pattern.len() <= limits::MAX_METRIC_NAME_BYTES && pattern.bytes().all(is_allowed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(body: serde_json::Value) -> Result<QuerySet, String> {
        let set: QuerySet = serde_json::from_value(body).map_err(|error| error.to_string())?;
        set.validate().map(|_| set).map_err(|error| format!("{}: {}", error.code(), error.message()))
    }

    #[test]
    fn groupings_are_parsed_and_written_alike() {
        for text in ["host", "tag:role", "instance", "series", "none"] {
            assert_eq!(Grouping::parse(text).unwrap().to_string(), text);
        }
        for text in ["", "hosts", "tag:", "tag:a=b"] {
            assert_eq!(Grouping::parse(text), None, "{text}");
        }
    }

    #[test]
    fn invalid_queries_are_rejected_with_their_reason() {
        let query = |id: &str, metric: &str| json!({ "id": id, "metric": metric });
        let twice = json!({ "queries": [query("A", "cpu.usage"), query("A", "cpu.user")] });
        let long = "a".repeat(300);
        let many: Vec<_> = (0..11).map(|at| query(&format!("A{at}"), "cpu.usage")).collect();
        for (body, expected) in [
            (json!({ "queries": [] }), "invalid_series_query: queries: 1 to 10"),
            (json!({ "queries": many }), "invalid_series_query: queries: 1 to 10"),
            (twice, "invalid_series_query: queries[1].id: duplicate id"),
            (
                json!({ "queries": [query("1", "cpu.usage")] }),
                "invalid_series_query: queries[0].id: must be a letter",
            ),
            (
                json!({ "queries": [query("A", "CPU usage")] }),
                "invalid_series_query: queries[0].metric: must be",
            ),
            (json!({ "queries": [query("A", "*;x")] }), "invalid_series_query: queries[0].metric: must be"),
            (
                json!({ "queries": [{ "id": "A", "metric": "cpu.usage", "limit": 0 }] }),
                "invalid_series_query: queries[0].limit: must be",
            ),
            (
                json!({ "queries": [{ "id": "A", "metric": "cpu.usage", "hosts": { "hosts": [long] } }] }),
                "invalid_series_query: queries[0].hosts: contains",
            ),
            (json!({ "queries": [{ "id": "A", "metric": "cpu.usage", "by": "rack" }] }), "invalid grouping"),
            (
                json!({ "queries": [query("A", "cpu.usage")], "formulas": [{ "id": "F", "expression": "A /" }] }),
                "invalid_formula: formulas[0].expression: ends where",
            ),
            (
                json!({
                    "queries": [query("A", "cpu.usage"), { "id": "B", "metric": "cpu.usage", "by": "tag:role" }],
                    "formulas": [{ "id": "F", "expression": "A / B" }],
                }),
                "invalid_formula: formulas[0].expression: uses queries with different groupings",
            ),
            (
                json!({
                    "queries": [query("A", "cpu.*")],
                    "formulas": [{ "id": "F", "expression": "A * 2" }],
                }),
                "invalid_formula: formulas[0].expression: uses a query of several metrics",
            ),
        ] {
            let error = parse(body).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
        }
        assert!(parse(json!({ "queries": [query("A", "disk.*")] })).is_ok());
    }

    #[test]
    fn hosts_are_selected_by_id_name_and_tag() {
        let tags = vec!["role=db".to_owned()];
        for (hosts, tags_selected, excluded, expected) in [
            (vec![], vec![], vec![], true),
            (vec!["db-1"], vec![], vec![], true),
            (vec!["id"], vec![], vec![], true),
            (vec!["web-1"], vec![], vec![], false),
            (vec![], vec!["role=db"], vec![], true),
            (vec!["web-1"], vec!["role=db"], vec![], true),
            (vec!["db-1"], vec![], vec!["role=db"], false),
        ] {
            let to_list = |list: Vec<&str>| list.into_iter().map(str::to_owned).collect();
            let selector = QueryHosts {
                hosts: to_list(hosts),
                tags: to_list(tags_selected),
                exclude_tags: to_list(excluded),
            };
            let matcher = HostMatcher::new(&selector);
            assert_eq!(matcher.matches("id", "db-1", &tags), expected, "{selector:?}");
        }
    }
}
