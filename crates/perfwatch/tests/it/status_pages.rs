//! Public status pages: what visitors see, the end of links, limits of access, availability from history.

use crate::access::add_user;
use crate::support::{ADMIN, TestHub, TestResponse, eventually, now_ms};
use perfwatch_testkit::Postgres;
use serde_json::{Value, json};

const PASSWORD: &str = "a-password-of-tests-1";
const DAY_MS: i64 = 86_400_000;
const BOOTS: [&str; 2] = ["11111111-2222-4333-8444-555555555555", "22222222-2222-4333-8444-555555555555"];

fn row(host: &str, boot: usize, seq: i64, at_ms: i64, interval_ms: i64) -> Value {
    json!({ "host": host, "boot": BOOTS[boot], "seq": seq, "timestamp": at_ms, "interval_ms": interval_ms,
            "cpu": { "usage": 42.4 }, "memory": { "used_percent": 61.0 } })
}

/// Sends a snapshot of a host; returns the id of the host.
fn send(hub: &TestHub, host: &str, tag: &str) -> String {
    let response = hub.post_json(&json!([row(host, 0, now_ms(), now_ms(), 3_600_000)]));
    assert_eq!(response.body["accepted"], 1, "{}", response.text);
    let path = format!("/api/v1/hosts/{host}/tags");
    assert_eq!(hub.request("PUT", &path, &hub.token, &json!({ "tags": [tag] })).status, 200);
    host_id(hub, host)
}

fn host_id(hub: &TestHub, host: &str) -> String {
    hub.get(&format!("/api/v1/hosts/{host}")).body["id"].as_str().unwrap().to_owned()
}

fn request(hosts: &[(&str, &str)]) -> Value {
    let hosts: Vec<Value> = hosts.iter().map(|(host, name)| json!({ "host": host, "name": name })).collect();
    json!({
        "title": "Shop",
        "content": { "description": "All of it", "groups": [{ "name": "Web", "hosts": hosts }], "metrics": ["cpu"],
                     "incidents": true },
        "expires_ms": now_ms() + 30 * DAY_MS,
    })
}

fn create(hub: &TestHub, token: &str, body: &Value) -> TestResponse {
    hub.request("POST", "/api/v1/status-pages", token, body)
}

/// Id of a created page and token of its link.
fn created(response: &TestResponse) -> (String, String) {
    let url = response.body["url"].as_str().unwrap_or_else(|| panic!("{}", response.text));
    let token = url.rsplit('/').next().unwrap().to_owned();
    (response.body["page"]["id"].as_str().unwrap().to_owned(), token)
}

fn visit(hub: &TestHub, token: &str) -> TestResponse {
    hub.request("GET", &format!("/api/v1/public/status/{token}"), "", &Value::Null)
}

#[test]
fn visitors_see_only_what_was_chosen() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let (web, db) = (send(&hub, "web-1", "team=shop"), send(&hub, "db-1", "team=shop"));
    let response = create(&hub, &hub.token, &request(&[(&web, "Frontend")]));
    assert_eq!(response.status, 201, "{}", response.text);
    let (id, token) = created(&response);
    assert!(response.body["url"].as_str().unwrap().ends_with(&format!("/s/{token}")));

    // Values are at most a second old.
    eventually("the page has values", || {
        !visit(&hub, &token).body["groups"][0]["hosts"][0]["values"]["cpu"].is_null()
    });
    let page = visit(&hub, &token);
    assert_eq!(page.status, 200, "{}", page.text);
    let host = &page.body["groups"][0]["hosts"][0];
    assert_eq!((&page.body["title"], &page.body["state"]), (&json!("Shop"), &json!("up")));
    assert_eq!((&host["name"], &host["state"]), (&json!("Frontend"), &json!("up")));
    let values = json!({ "cpu": 42.0, "memory": null, "disk": null, "load": null, "rx": null, "tx": null });
    assert_eq!(host["values"], values);
    assert_eq!(host["days"].as_array().unwrap().len(), 90);
    // The lines contain the chosen values, in steps of two minutes.
    eventually("the line has a point", || {
        let recent = visit(&hub, &token).body["groups"][0]["hosts"][0]["recent"].clone();
        let points = recent["cpu"].as_array().cloned().unwrap_or_default();
        points.len() == 30 && points.contains(&json!(42.0)) && recent.as_object().unwrap().len() == 1
    });
    for secret in ["web-1", "db-1", "team=shop", &*web, &*db, &*id, "admin"] {
        assert!(!page.text.contains(secret), "{secret}: {}", page.text);
    }
    // The token opens nothing else, in no place.
    for path in ["/api/v1/hosts", "/api/v1/status-pages", "/metrics", "/api/v1/overview"] {
        assert_eq!(hub.request("GET", path, &token, &Value::Null).status, 401, "{path}");
        assert_eq!(hub.request("GET", &format!("{path}?token={token}"), "", &Value::Null).status, 401);
    }
    // Neither the list nor the audit log shows the token.
    let list = hub.get("/api/v1/status-pages");
    assert_eq!(list.body["pages"][0]["state"], "active", "{}", list.text);
    let audit = hub.get("/api/v1/audit");
    assert!(audit.text.contains("status_page.create"), "{}", audit.text);
    assert!(
        !list.text.contains(&token) && !audit.text.contains(&token) && !hub.process.log().contains(&token)
    );
}

#[test]
fn answers_are_revalidated_and_not_indexed() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let web = send(&hub, "web-1", "team=shop");
    let (_, token) = created(&create(&hub, &hub.token, &request(&[(&web, "Frontend")])));
    let url = hub.url(&format!("/api/v1/public/status/{token}"));
    eventually("an answer is shared", || {
        let first = ureq::get(&url).call().unwrap();
        let headers = first.headers();
        assert_eq!(headers["cache-control"], "private, max-age=10");
        assert_eq!(headers["x-robots-tag"], "noindex, nofollow");
        assert_eq!(headers["referrer-policy"], "no-referrer");
        let etag = headers["etag"].to_str().unwrap().to_owned();
        let second = ureq::get(&url).header("If-None-Match", &etag).call().unwrap();
        second.status() == 304
    });
    let page = ureq::get(hub.url(&format!("/s/{token}"))).call().unwrap();
    let policy = page.headers()["content-security-policy"].to_str().unwrap();
    assert!(policy.starts_with("default-src 'none'"), "{policy}");
    assert_eq!(page.headers()["x-robots-tag"], "noindex, nofollow");
}

#[test]
fn links_that_ended_have_the_same_response() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let web = send(&hub, "web-1", "team=shop");
    let body = request(&[(&web, "Frontend")]);
    let unknown = visit(&hub, &format!("pwp_{}", "0".repeat(64)));
    assert_eq!((unknown.status, unknown.code()), (404, "not_found"));
    let is_gone = |token: &str| {
        let response = visit(&hub, token);
        (response.status, response.text.as_str()) == (404, unknown.text.as_str())
    };
    assert!(is_gone("short") && is_gone(&hub.token));

    // Switched off, and on again.
    let (id, token) = created(&create(&hub, &hub.token, &body));
    let path = format!("/api/v1/status-pages/{id}");
    let change = |enabled: bool| {
        let page = hub.get("/api/v1/status-pages").body["pages"][0].clone();
        let (mut change, updated_ms) = (body.clone(), page["updated_ms"].clone());
        change["enabled"] = enabled.into();
        change["updated_ms"] = updated_ms;
        hub.request("PUT", &path, &hub.token, &change)
    };
    assert_eq!(visit(&hub, &token).status, 200);
    assert_eq!(change(false).body["state"], "disabled");
    assert!(is_gone(&token));
    assert_eq!(change(true).body["state"], "active");
    assert_eq!(visit(&hub, &token).status, 200);
    let mut outdated = body.clone();
    outdated["updated_ms"] = 1.into();
    assert_eq!(hub.request("PUT", &path, &hub.token, &outdated).status, 409);

    // Renewed: the previous link ends.
    let expiry = json!({ "expires_ms": now_ms() + DAY_MS });
    let (_, renewed) = created(&hub.request("POST", &format!("{path}/link"), &hub.token, &expiry));
    assert!(is_gone(&token) && visit(&hub, &renewed).status == 200);

    // Deleted.
    assert_eq!(hub.request("DELETE", &path, &hub.token, &Value::Null).status, 204);
    assert!(is_gone(&renewed));

    // Expired.
    let mut short = body.clone();
    short["expires_ms"] = (now_ms() + 3_000).into();
    let (_, token) = created(&create(&hub, &hub.token, &short));
    assert_eq!(visit(&hub, &token).status, 200);
    eventually("the link expires", || is_gone(&token));
    for expires_ms in [now_ms(), now_ms() + 367 * DAY_MS] {
        short["expires_ms"] = expires_ms.into();
        assert_eq!(create(&hub, &hub.token, &short).code(), "invalid_status_page");
    }
}

#[test]
fn page_ends_with_the_account_that_answers_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let (web, db) = (send(&hub, "web-1", "team=shop"), send(&hub, "db-1", "team=data"));
    add_user(&hub, ("vera", PASSWORD), "viewer", &[]);
    let olga = add_user(&hub, ("olga", PASSWORD), "operator", &["team=shop"]);
    let viewer = hub.create_token(("vera", PASSWORD), "viewer");
    assert_eq!(create(&hub, &viewer, &request(&[(&web, "Frontend")])).status, 403);
    assert_eq!(hub.request("GET", "/api/v1/status-pages", &viewer, &Value::Null).status, 403);

    // A limited operator: hidden hosts do not exist, and neither do pages with them.
    let operator = hub.create_token(("olga", PASSWORD), "operator");
    let hidden = create(&hub, &operator, &request(&[(&web, "Frontend"), (&db, "Database")]));
    assert_eq!((hidden.status, hidden.code()), (422, "invalid_status_page"), "{}", hidden.text);
    let (both, both_token) =
        created(&create(&hub, &hub.token, &request(&[(&web, "Frontend"), (&db, "Database")])));
    let list = hub.request("GET", "/api/v1/status-pages", &operator, &Value::Null);
    assert_eq!(list.body["pages"], json!([]));
    let path = format!("/api/v1/status-pages/{both}");
    assert_eq!(hub.request("DELETE", &path, &operator, &Value::Null).status, 404);

    // A signed token must not create what lasts.
    let signed = hub.sign_token("olga", PASSWORD);
    assert_eq!(create(&hub, &signed, &request(&[(&web, "Frontend")])).status, 403);

    let (_, token) = created(&create(&hub, &operator, &request(&[(&web, "Frontend")])));
    assert_eq!(visit(&hub, &token).body["groups"][0]["hosts"][0]["name"], "Frontend");
    // A host that leaves the tags of the account leaves the page.
    let tags =
        |tag: &str| hub.request("PUT", "/api/v1/hosts/web-1/tags", &hub.token, &json!({ "tags": [tag] }));
    assert_eq!(tags("team=other").status, 200);
    assert_eq!(visit(&hub, &token).body["groups"][0]["hosts"], json!([]));
    assert_eq!(tags("team=shop").status, 200);
    assert_eq!(visit(&hub, &token).body["groups"][0]["hosts"].as_array().unwrap().len(), 1);

    // The end of the rights ends the page, and nothing else.
    let olga = format!("/api/v1/users/{olga}");
    assert_eq!(hub.admin_request("PATCH", &olga, &json!({ "role": "viewer" })).status, 200);
    assert_eq!((visit(&hub, &token).status, visit(&hub, &both_token).status), (404, 200));
    let pages = hub.get("/api/v1/status-pages").body["pages"].clone();
    let ended = pages.as_array().unwrap().iter().find(|page| page["owner"] == "olga").unwrap().clone();
    assert_eq!(ended["state"], "ended", "{pages}");
    // Restored rights do not bring the link back; a new link of another user does.
    assert_eq!(hub.admin_request("PATCH", &olga, &json!({ "role": "operator" })).status, 200);
    assert_eq!(visit(&hub, &token).status, 404);
    let link = format!("/api/v1/status-pages/{}/link", ended["id"].as_str().unwrap());
    let renewed = hub.request("POST", &link, &hub.token, &json!({ "expires_ms": now_ms() + DAY_MS }));
    let (_, renewed) = created(&renewed);
    assert_eq!(visit(&hub, &renewed).status, 200);
    assert_eq!(hub.admin_request("DELETE", &olga, &Value::Null).status, 204);
    assert_eq!(visit(&hub, &renewed).status, 200);

    // A page of an API token ends with the token.
    let script = hub.create_token(ADMIN, "operator");
    let (_, token) = created(&create(&hub, &script, &request(&[(&web, "Frontend")])));
    assert_eq!(visit(&hub, &token).status, 200);
    let tokens = hub.admin_request("GET", "/api/v1/tokens", &Value::Null);
    let newest = tokens.body["tokens"].as_array().unwrap().iter().find(|token| token["scope"] == "operator");
    let path = format!("/api/v1/tokens/{}", newest.unwrap()["id"].as_str().unwrap());
    assert_eq!(hub.admin_request("DELETE", &path, &Value::Null).status, 204);
    assert_eq!(visit(&hub, &token).status, 404);
}

#[test]
fn number_of_pages_is_limited_per_account() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let web = send(&hub, "web-1", "team=shop");
    for index in 0..20 {
        let response = create(&hub, &hub.token, &request(&[(&web, "Frontend")]));
        assert_eq!(response.status, 201, "{index}: {}", response.text);
    }
    let refused = create(&hub, &hub.token, &request(&[(&web, "Frontend")]));
    assert_eq!((refused.status, refused.code()), (409, "too_many_status_pages"));
}

#[test]
fn announcements_are_shown_with_their_times_and_audited() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let web = send(&hub, "web-1", "team=shop");
    let with_announcements = |list: &Value, base_ms: &Value| {
        let mut body = request(&[(&web, "Frontend")]);
        body["content"]["announcements"] = list.clone();
        body["updated_ms"] = base_ms.clone();
        body
    };
    let announcement = |updates: Value| json!([{ "title": "Slow <b>database</b>", "state": "investigating", "updates": updates }]);
    let started = now_ms();
    let list = announcement(json!([{ "text": "We look at it." }]));
    let response = create(&hub, &hub.token, &with_announcements(&list, &Value::Null));
    let (id, token) = created(&response);
    let page = || visit(&hub, &token).body;
    let first = page()["announcements"][0].clone();
    let first_ms = first["updates"][0]["at_ms"].as_i64().unwrap();
    assert!((started..=now_ms()).contains(&first_ms), "{first}");
    assert_eq!((&first["title"], &first["state"]), (&json!("Slow <b>database</b>"), &json!("investigating")));
    // An update comes first and keeps the time of the earlier text.
    let list =
        announcement(json!([{ "text": "Found it." }, { "at_ms": first_ms, "text": "We look at it." }]));
    let path = format!("/api/v1/status-pages/{id}");
    let replace = |list: &Value, token: &str| {
        let base_ms = hub.get("/api/v1/status-pages").body["pages"][0]["updated_ms"].clone();
        hub.request("PUT", &path, token, &with_announcements(list, &base_ms))
    };
    let response = replace(&list, &hub.token);
    assert_eq!(response.status, 200, "{}", response.text);
    let updates = page()["announcements"][0]["updates"].clone();
    assert_eq!((&updates[0]["text"], &updates[1]["at_ms"]), (&json!("Found it."), &json!(first_ms)));
    let audit = hub.get("/api/v1/audit").text;
    assert!(audit.contains("status_page.update") && audit.contains("Found it."), "{audit}");
    for (updates, message) in [
        (json!([]), "announcements[0].updates: expected 1 to 10"),
        (json!([{ "text": "x".repeat(501) }]), "announcements[0].updates[0].text: must have 1 to 500 bytes"),
        (
            json!([{ "at_ms": now_ms() + DAY_MS, "text": "x" }]),
            "announcements[0].updates[0].at_ms: must not be in the future",
        ),
    ] {
        let response = replace(&announcement(updates), &hub.token);
        assert!(
            response.code() == "invalid_status_page" && response.text.contains(message),
            "{}",
            response.text
        );
    }
    add_user(&hub, ("vera", PASSWORD), "viewer", &[]);
    let viewer = hub.sign_token("vera", PASSWORD);
    assert_eq!(replace(&list, &viewer).status, 403);
}

#[test]
fn availability_follows_reasons_of_gaps_and_survives_a_restart() {
    const STEP_MS: i64 = 300_000;
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    // Yesterday in UTC: the host is off for an hour, its agent stops for an hour, and an hour of data is lost.
    let now = now_ms();
    let yesterday = (now.div_euclid(DAY_MS) - 1) * DAY_MS;
    let (off, stopped, lost) =
        (yesterday + 12 * STEP_MS, yesterday + 60 * STEP_MS, yesterday + 120 * STEP_MS);
    let (mut boot, mut seq, mut rows) = (0, 0, Vec::new());
    let mut at_ms = yesterday - 2 * STEP_MS;
    while at_ms <= now {
        if at_ms == off || at_ms == stopped || at_ms == lost {
            boot = usize::from(at_ms >= off);
            seq = if at_ms == off { 0 } else { seq };
            seq += if at_ms == lost { 12 } else { 0 };
            // The gap is an hour, from the last row before to the first row after.
            at_ms += 11 * STEP_MS;
        }
        rows.push(row("web-1", boot, seq, at_ms, STEP_MS));
        (seq, at_ms) = (seq + 1, at_ms + STEP_MS);
    }
    // Late in the day, these are more rows than a request may have.
    for rows in rows.chunks(250) {
        let response = hub.post_json(&Value::Array(rows.to_vec()));
        assert_eq!(response.body["accepted"], rows.len(), "{}", response.text);
    }
    let web = host_id(&hub, "web-1");
    let (_, token) = created(&create(&hub, &hub.token, &request(&[(&web, "Frontend")])));
    let host = |hub: &TestHub| visit(hub, &token).body["groups"][0]["hosts"][0].clone();
    let expected = json!([86_400 - 7_200, 3_600, 0, 3_600]);
    eventually("all days are computed", || {
        host(&hub)["days"].as_array().unwrap().iter().all(|day| !day.is_null())
    });
    let days = host(&hub)["days"].clone();
    assert_eq!(days[88], expected, "{days}");
    assert_eq!(days[86], json!([0, 0, 0, 0]), "no time of the days before the first data counts");
    drop(hub);
    let hub = TestHub::start(folder.path());
    eventually("days are loaded", || host(&hub)["days"][88] == expected);
}

#[test]
fn lines_are_read_from_the_history_after_a_start() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let end_ms = now_ms();
    let rows: Vec<Value> = (0..60)
        .map(|minute: i64| {
            let mut row = row("web-1", 0, minute, end_ms - (59 - minute) * 60_000, 60_000);
            row["cpu"]["usage"] = minute.into();
            row
        })
        .collect();
    let response = hub.post_json(&Value::Array(rows));
    assert_eq!(response.body["accepted"], 60, "{}", response.text);
    let web = host_id(&hub, "web-1");
    let (_, token) = created(&create(&hub, &hub.token, &request(&[(&web, "Frontend")])));
    let is_complete = |hub: &TestHub| {
        let line = visit(hub, &token).body["groups"][0]["hosts"][0]["recent"]["cpu"].clone();
        let points = line.as_array().cloned().unwrap_or_default();
        let values: Vec<f64> = points.iter().filter_map(Value::as_f64).collect();
        // The first and the last step may have no row yet.
        points.len() == 30 && values.len() >= 28 && values.is_sorted() && values[0] < 5.0 && values[27] > 50.0
    };
    eventually("the line of a new page is complete", || is_complete(&hub));
    drop(hub);
    let hub = TestHub::start(folder.path());
    eventually("the line is complete after a start", || is_complete(&hub));
}

/// Writes of availability days by the role of their hub.
const LOG_DAYS: &str = "CREATE TABLE written_day (host BYTEA, day BIGINT, writer TEXT);
    CREATE FUNCTION log_day() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO written_day VALUES (NEW.host, NEW.day, session_user); RETURN NEW; END $$;
    CREATE TRIGGER log_day AFTER INSERT OR UPDATE ON availability_day FOR EACH ROW EXECUTE FUNCTION log_day()";

#[test]
fn days_are_written_by_one_of_two_hubs() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let database = Postgres::start();
    database.database("shared");
    let start = |at: usize, role: &str| {
        let url = database.url_as("shared", role);
        TestHub::start_with(folders[at].path(), &["hub", "--listen", "127.0.0.1:0", "--store", &url])
    };
    let (a, b) = (start(0, "hub_a"), start(1, "hub_b"));
    database.query("shared", LOG_DAYS);
    let count = |sql: &str| -> usize { database.query("shared", sql).parse().unwrap() };
    let writers = || database.query("shared", "SELECT DISTINCT writer FROM written_day ORDER BY writer");
    let is_complete = |hub: &TestHub, token: &str| {
        let page = visit(hub, token);
        let days = page.body["groups"][0]["hosts"][0]["days"].as_array().cloned().unwrap_or_default();
        days.len() == 90 && days.iter().all(|day| !day.is_null())
    };
    let web = send(&a, "web-1", "team=shop");
    let (_, token) = created(&create(&a, &a.token, &request(&[(&web, "Frontend")])));
    eventually("both hubs have all days", || is_complete(&a, &token) && is_complete(&b, &token));
    let stored = count("SELECT count(*) FROM availability_day");
    assert!(stored >= 89, "{stored}");
    // One writer wrote each day once; the other hub has read them.
    assert_eq!(count("SELECT count(*) FROM written_day"), stored);
    let first = writers();
    assert!(first == "hub_a" || first == "hub_b", "{first}");
    // The other hub writes when the lease of a hub that ended is over.
    let (ended, rest) = if first == "hub_a" { (a, b) } else { (b, a) };
    let holder = || database.query("shared", "SELECT holder FROM lease WHERE name = 'availability_days'");
    let before = holder();
    ended.process.kill();
    eventually("the other hub has the lease", || holder() != before);
    let db = send(&rest, "db-1", "team=shop");
    let (_, token) = created(&create(&rest, &rest.token, &request(&[(&db, "Database")])));
    eventually("the other hub computes the days", || is_complete(&rest, &token));
    assert_eq!(writers(), "hub_a\nhub_b");
    let twice =
        "SELECT count(*) FROM (SELECT 1 FROM written_day GROUP BY host, day HAVING count(*) > 1) AS twice";
    assert_eq!(count(twice), 0);
}
