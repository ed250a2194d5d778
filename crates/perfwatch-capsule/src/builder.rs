//! Builds capsules from the history: reads the hosts one by one and writes their sections, so that the rows of
//! a part of a host are in memory. Hosts, window, values, bytes and time are bounded.

use crate::container::{Section, SectionWriter, encode};
use crate::document::{CapsuleDocument, CapsuleHost, IncidentPart};
use crate::limits::{MAX_DOCUMENT_BYTES, MAX_HOSTS, MAX_VALUES};
use crate::mask::Masker;
use crate::processes::ProcessWriter;
use crate::series::{Rows, SeriesWriter};
use crate::{CapsuleError, CapsuleRequest};
use perfwatch_alerting::response::{to_alert_response, to_response};
use perfwatch_alerting::{Alert, Alerting, OpenIncident};
use perfwatch_auth::{Actor, AuthDirectory, Identity};
use perfwatch_history::History;
use perfwatch_history::read::{JoinedSeries, bucket_snapshot};
use perfwatch_http::ApiError;
use perfwatch_http::read_limiter::Reader;
use perfwatch_live::host_registry::{Host, HostRegistry};
use perfwatch_model::{Catalog, Clock, HostId};
use perfwatch_overview::Overview;
use perfwatch_overview::host_events::HostEventsRequest;
use perfwatch_store::incidents::{AlertFilter, AlertRow, IncidentEventRow};
use perfwatch_store::{BlockContent, ReadBounds, StoreError};
use perfwatch_tsdb::{Buckets, Projection, Table, Tier};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// Memory that a capsule needs while it is built: the file, sections and the rows of a part.
const BUILD_MEMORY_BYTES: usize = 60 << 20;
/// Maximum time for building.
const BUILD_TIMEOUT: Duration = Duration::from_secs(60);
/// Maximum number of values in memory at the same time, unless a minute has more.
const MAX_PART_CELLS: usize = 1 << 20;
/// Maximum length of the parts in which rows are read.
const MAX_PART_MS: i64 = 900_000;
/// Minimum length of the parts.
const MIN_PART_MS: i64 = 60_000;
/// Maximum number of incidents beside the requested incident.
const MAX_INCIDENTS: usize = 50;
/// Kinds of events: changes by users are part of the audit log and stay on the hub.
const EVENT_KINDS: &str = "alert,gap,reboot,first_seen,system";

/// Services that capsules are built from.
#[derive(Clone)]
pub struct CapsuleDeps {
    /// Source of wall and monotonic time.
    pub clock: Arc<dyn Clock>,
    /// Definitions of all metrics.
    pub catalog: Arc<Catalog>,
    /// Accounts and tags of hosts.
    pub directory: Arc<AuthDirectory>,
    /// Hosts that a capsule may contain.
    pub hosts: Arc<HostRegistry>,
    /// Stored history of all hosts.
    pub history: Arc<History>,
    /// Alerts and incidents.
    pub alerting: Arc<Alerting>,
}

/// Capsule that was built.
#[derive(Debug)]
pub struct CapsuleFile {
    /// Name for a download.
    pub name: String,
    /// Bytes of the file.
    pub bytes: Vec<u8>,
}

/// Builds capsules for callers of the API.
pub struct CapsuleBuilder(CapsuleDeps);

/// Capsule in progress.
struct Build<'a> {
    deps: &'a CapsuleDeps,
    overview: &'a Overview,
    identity: &'a Identity,
    reader: &'a Reader,
    window: (i64, i64),
    hosts: Vec<Host>,
    ends_at: Duration,
    /// Rows × series so far.
    values: usize,
    sections: Vec<Section>,
}

/// Explanations of alerts as JSON.
type Explanations = HashMap<Uuid, Value>;

fn to_json(value: impl serde::Serialize) -> Value {
    serde_json::to_value(value).unwrap_or_default()
}

fn too_large(error: CapsuleError) -> ApiError {
    ApiError::unprocessable("capsule_too_large", error.to_string())
}

impl CapsuleBuilder {
    /// Builder that reads these services.
    pub fn new(deps: CapsuleDeps) -> Self {
        Self(deps)
    }

    /// Builds a capsule of hosts that the caller may view, and records it in the audit log. `find_host` finds a host
    /// that the caller may view by its id or name.
    ///
    /// # Errors
    /// Returns the reason for which the request is invalid, `not_found` for hosts and incidents that the caller may
    /// not view, `capsule_too_large` above a limit, and `store_unavailable` if the history cannot be read.
    pub async fn build(
        &self,
        (actor, reader): (&Actor, &Reader),
        overview: &Overview,
        find_host: impl Fn(&str) -> Result<Host, ApiError>,
        request: CapsuleRequest,
    ) -> Result<CapsuleFile, ApiError> {
        request.validate()?;
        let (deps, identity) = (&self.0, &actor.identity);
        let ends_at = deps.clock.monotonic() + BUILD_TIMEOUT;
        let open = match request.incident {
            Some(id) => Some(self.visible_incident(identity, id).await?),
            None => None,
        };
        let window = request.window(open.as_ref(), deps.clock.wall_ms())?;
        let hosts = self.find_hosts(find_host, &request.hosts, open.as_ref())?;
        reader.reserve(BUILD_MEMORY_BYTES).await?;
        let sections = Vec::new();
        let mut build =
            Build { deps, overview, identity, reader, window, hosts, ends_at, values: 0, sections };
        let names = build.hosts.iter().map(|host| (host.record.id.to_string(), host.record.name.clone()));
        let mut masker = Masker::new(request.mask, &names.collect::<Vec<_>>());
        let incidents = build.incidents(request.incident).await?;
        let mut hosts = Vec::new();
        for host in build.hosts.clone() {
            hosts.push(build.host(&host, &incidents.1, &mut masker).await?);
        }
        let host_names = || hosts.iter().map(|host| host.name.as_str()).collect::<Vec<_>>().join(", ");
        let title = request.title.filter(|title| !title.trim().is_empty());
        let first = incidents.0.first().filter(|_| request.incident.is_some());
        let title = title.or_else(|| Some(first?.incident["title"].as_str()?.to_owned()));
        let mut document = CapsuleDocument {
            title: title.unwrap_or_else(host_names),
            note: request.note.unwrap_or_default(),
            created_ms: deps.clock.wall_ms(),
            created_by: identity.actor_name(),
            created_with: env!("CARGO_PKG_VERSION").to_owned(),
            from_ms: window.0,
            to_ms: window.1,
            masked: request.mask,
            units: self.units(&hosts, &incidents.1),
            hosts,
            incidents: incidents.0,
        };
        masker.document(&mut document);
        let bytes = build.encode(&document).map_err(too_large)?;
        self.record(actor, &build.hosts, bytes.len()).await?;
        Ok(CapsuleFile { name: document.file_name(), bytes })
    }

    /// Records the export: the data leaves the hub.
    async fn record(&self, actor: &Actor, hosts: &[Host], bytes: usize) -> Result<(), ApiError> {
        // Access may have ended while the capsule was built.
        let auth_snapshot = self.0.directory.snapshot();
        let identity = actor.identity.refresh(&self.0.directory);
        let can_view = |host: &Host| {
            identity.as_ref().is_some_and(|identity| identity.can_view(&auth_snapshot, host.record.id))
        };
        if !hosts.iter().all(can_view) {
            return Err(ApiError::not_found("host not found"));
        }
        let names: Vec<&str> = hosts.iter().map(|host| host.record.name.as_str()).collect();
        let after = json!({ "hosts": names, "bytes": bytes }).to_string();
        let entry = actor.audit("capsule.create", format!("capsule of {} hosts", hosts.len()));
        Ok(actor.record(perfwatch_store::audit::AuditEntry { after: Some(after), ..entry }).await?)
    }

    /// Incident as far as the caller may view it.
    async fn visible_incident(&self, identity: &Identity, id: Uuid) -> Result<OpenIncident, ApiError> {
        let open = self.0.alerting.get(id).await?;
        let visible = open.and_then(|open| open.visible_to(identity, &self.0.directory.snapshot()));
        visible.ok_or_else(|| ApiError::not_found("incident not found"))
    }

    /// Hosts by id or name, or those of an incident, each once.
    fn find_hosts(
        &self,
        find: impl Fn(&str) -> Result<Host, ApiError>,
        ids: &[String],
        open: Option<&OpenIncident>,
    ) -> Result<Vec<Host>, ApiError> {
        let mut hosts: Vec<Host> = ids.iter().map(|id| find(id)).collect::<Result<_, _>>()?;
        if ids.is_empty() {
            let alerts = open.iter().flat_map(|open| &open.alerts);
            let ids: BTreeSet<HostId> = alerts.map(|alert| alert.host).collect();
            hosts.extend(ids.into_iter().filter_map(|id| self.0.hosts.get(id)).take(MAX_HOSTS));
            hosts.sort_by(|a, b| a.record.name.cmp(&b.record.name));
        }
        let mut seen = BTreeSet::new();
        hosts.retain(|host| seen.insert(host.record.id));
        if hosts.is_empty() {
            return Err(ApiError::unprocessable("invalid_capsule", "hosts: the incident has no host"));
        }
        Ok(hosts)
    }

    /// Units of the metrics of the capsule.
    fn units(&self, hosts: &[CapsuleHost], explanations: &Explanations) -> BTreeMap<String, String> {
        let series = hosts.iter().flat_map(|host| &host.series).map(|(metric, _, _)| metric.as_str());
        let movers = explanations.values().flat_map(|explanation| explanation["movers"].as_array());
        let movers = movers.flatten().filter_map(|mover| mover["metric"].as_str());
        let unit = |metric: &str| {
            let unit = to_json(self.0.catalog.get(metric)?.unit);
            Some((metric.to_owned(), unit.as_str()?.to_owned()))
        };
        series.chain(movers).filter_map(unit).collect()
    }
}

impl Build<'_> {
    /// Incidents of the hosts in the window with the alerts of these hosts, and the explanations of their alerts.
    async fn incidents(
        &self,
        requested: Option<Uuid>,
    ) -> Result<(Vec<IncidentPart>, Explanations), ApiError> {
        let store = self.deps.alerting.store();
        let mut ids: Vec<Uuid> = requested.into_iter().collect();
        for host in &self.hosts {
            for row in AlertRow::list(store, self.alert_filter(host)).await? {
                if !ids.contains(&row.incident) && ids.len() < MAX_INCIDENTS {
                    ids.push(row.incident);
                }
            }
        }
        let (mut parts, mut explanations) = (Vec::new(), Explanations::new());
        let auth_snapshot = self.deps.directory.snapshot();
        let chosen: BTreeSet<HostId> = self.hosts.iter().map(|host| host.record.id).collect();
        for id in ids {
            self.check_time()?;
            let Some(open) = self.deps.alerting.get(id).await? else { continue };
            let alerts: Vec<_> =
                open.alerts.iter().filter(|alert| chosen.contains(&alert.host)).cloned().collect();
            let is_complete = alerts.len() == open.alerts.len();
            let limited = OpenIncident { incident: open.incident.clone(), alerts };
            let Some(response) = to_response(&limited, self.identity, &auth_snapshot, &mut HashMap::new())
            else {
                continue;
            };
            for (alert, text) in AlertRow::explanations(store, id).await? {
                if let Ok(explanation) = serde_json::from_str(&text) {
                    explanations.insert(alert, explanation);
                }
            }
            let mut incident = to_json(response);
            for alert in incident["alerts"].as_array_mut().into_iter().flatten() {
                explain(alert, &explanations);
            }
            // The timeline names all hosts of the incident.
            let timeline = match is_complete {
                true => IncidentEventRow::list(store, id).await?.iter().map(timeline_entry).collect(),
                false => Vec::new(),
            };
            parts.push(IncidentPart { incident, timeline });
        }
        Ok((parts, explanations))
    }

    fn alert_filter(&self, host: &Host) -> AlertFilter {
        AlertFilter::Host(host.record.id.0, self.window.0, self.window.1)
    }

    /// Reads a host and writes its sections.
    async fn host(
        &mut self,
        host: &Host,
        explanations: &Explanations,
        masker: &mut Masker,
    ) -> Result<CapsuleHost, ApiError> {
        let (mut series, mut processes) = (SeriesWriter::new(), ProcessWriter::new());
        let (mut at_ms, mut part_ms) = (self.window.0, MAX_PART_MS);
        let projection = Arc::new(Projection::full());
        while at_ms < self.window.1 {
            self.check_time()?;
            let range = (at_ms, at_ms.saturating_add(part_ms).min(self.window.1));
            let max_cells = if part_ms > MIN_PART_MS { MAX_PART_CELLS } else { 16 * MAX_PART_CELLS };
            let held = Some(self.reader.permit());
            let bounds = ReadBounds { max_cells, trim: true, held, ..ReadBounds::default() };
            let history = &self.deps.history;
            match history.read_bounded(host.record.id, Tier::Raw, range, &projection, &bounds).await {
                Err(StoreError::TooLarge(_)) if part_ms > MIN_PART_MS => {
                    part_ms = (part_ms / 2).max(MIN_PART_MS);
                    continue;
                }
                joined => {
                    write_part(joined?, range, (&mut series, &mut processes), masker).map_err(too_large)?;
                }
            }
            if self.values + series.values() > MAX_VALUES {
                return Err(too_large(CapsuleError::TooLarge("values")));
            }
            at_ms = range.1;
        }
        self.values += series.values();
        let events =
            HostEventsRequest::new(host.clone(), self.window, Some(EVENT_KINDS), self.reader.permit());
        let events = events.map_err(|(code, message)| ApiError::bad_request(code, message))?;
        let mut events = to_json(self.overview.host_events(self.identity, events).await?);
        let alerts = AlertRow::list(self.deps.alerting.store(), self.alert_filter(host)).await?;
        let alerts = alerts.iter().filter_map(Alert::from_row).map(|alert| {
            let mut alert = to_json(to_alert_response(&alert, None));
            explain(&mut alert, explanations);
            alert
        });
        let record = &host.record;
        let (rows, process_rows) = (series.rows(), processes.rows);
        let (series, names) = series.finish().map_err(too_large)?;
        self.sections.push(series);
        self.sections.push(processes.finish().map_err(too_large)?);
        Ok(CapsuleHost {
            id: record.id.to_string(),
            name: record.name.clone(),
            tags: self.deps.directory.snapshot().host_tags(record.id).to_vec(),
            facts: record.facts.as_deref().cloned(),
            interval_ms: host.interval_ms(),
            rows,
            series: names,
            process_rows,
            events: serde_json::from_value(events["events"].take()).unwrap_or_default(),
            alerts: alerts.collect(),
        })
    }

    fn check_time(&self) -> Result<(), ApiError> {
        if self.deps.clock.monotonic() < self.ends_at {
            return Ok(());
        }
        let message = "building the capsule takes too long; choose fewer hosts or a shorter window";
        Err(ApiError::unprocessable("capsule_too_large", message))
    }

    /// Writes the file, the document first.
    fn encode(&mut self, document: &CapsuleDocument) -> Result<Vec<u8>, CapsuleError> {
        document.check()?;
        let json = serde_json::to_vec(document).map_err(|_| CapsuleError::Invalid("document"))?;
        if json.len() > MAX_DOCUMENT_BYTES {
            return Err(CapsuleError::TooLarge("texts"));
        }
        let mut section = SectionWriter::new();
        section.write(&json)?;
        let mut sections = vec![section.finish()?];
        sections.append(&mut self.sections);
        encode(&sections)
    }
}

/// Adds the explanation of an alert.
fn explain(alert: &mut Value, explanations: &Explanations) {
    let id = alert["id"].as_str().and_then(|id| id.parse().ok());
    if let Some(explanation) = id.and_then(|id: Uuid| explanations.get(&id)) {
        alert["explanation"] = explanation.clone();
    }
}

fn timeline_entry(event: &IncidentEventRow) -> Value {
    json!({ "at_ms": event.at_ms, "kind": event.kind, "actor": event.actor, "text": event.text })
}

/// Writes the rows of a part of the window: averages of buckets where raw rows are deleted already.
fn write_part(
    joined: JoinedSeries,
    (from_ms, to_ms): (i64, i64),
    (series, processes): (&mut SeriesWriter, &mut ProcessWriter),
    masker: &mut Masker,
) -> Result<(), CapsuleError> {
    let (mut tables, mut buckets) = (joined.unsealed, Vec::new());
    for slice in joined.sealed.slices {
        match slice.content {
            Ok(BlockContent::Raw(table)) => tables.push(table),
            Ok(BlockContent::Buckets(stored)) => {
                let tier = slice.block.tier;
                buckets.push((tier, stored.slice(slice.from_ms.max(from_ms), slice.to_ms.min(to_ms))));
            }
            // An unreadable block is a gap, as in charts.
            Err(_) => {}
        }
    }
    for (tier, buckets) in &buckets {
        series.add(&bucket_rows(buckets, *tier).as_rows())?;
    }
    for table in Table::merge(tables, from_ms) {
        let (at_ms, interval_ms) = (&table.at_ms[..], &table.interval_ms[..]);
        series.add(&Rows { shape: &table.shape, at_ms, interval_ms, columns: &table.columns })?;
        for (at_ms, rows) in table.at_ms.iter().zip(&table.processes) {
            let rows: Vec<_> = rows.iter().map(|row| masker.process(row)).collect();
            processes.add(*at_ms, &rows)?;
        }
    }
    Ok(())
}

/// Averages of buckets as rows.
struct BucketRows {
    shape: Arc<perfwatch_model::Shape>,
    at_ms: Vec<i64>,
    interval_ms: Vec<i64>,
    columns: Vec<Vec<i64>>,
}

impl BucketRows {
    fn as_rows(&self) -> Rows<'_> {
        let Self { shape, at_ms, interval_ms, columns } = self;
        Rows { shape, at_ms, interval_ms, columns }
    }
}

fn bucket_rows(buckets: &Buckets, tier: Tier) -> BucketRows {
    let mut columns = vec![Vec::with_capacity(buckets.len()); buckets.columns.len()];
    for row in 0..buckets.len() {
        let values = bucket_snapshot(buckets, row, tier).values;
        columns.iter_mut().zip(values).for_each(|(column, value)| column.push(value));
    }
    let (shape, at_ms) = (buckets.shape.clone(), buckets.start_ms.clone());
    BucketRows { shape, at_ms, interval_ms: vec![tier.width_ms(); buckets.len()], columns }
}
