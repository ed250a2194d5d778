//! Preferences of accounts for the dashboard.

use crate::access::add_user;
use crate::support::{ADMIN, TestHub};
use serde_json::{Value, json};

const VIEWER: (&str, &str) = ("vera", "initial-password-2");
const PATH: &str = "/api/v1/auth/preferences";

#[test]
fn preferences_belong_to_an_account_and_end_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let user = add_user(&hub, VIEWER, "viewer", &[]);
    let (viewer, admin) = (hub.log_in(VIEWER.0, VIEWER.1), hub.log_in(ADMIN.0, ADMIN.1));
    let get = |cookie: &str| hub.browser_request("GET", PATH, cookie, &Value::Null).body;
    let none = json!({ "pins": null, "host_columns": null, "host_filters": null });
    assert_eq!(get(&viewer), none);
    let pin = "01a1ffe1-afde-72f9-853f-a45c90cff753";
    let body = json!({
        "pins": [pin], "host_columns": ["cpu"], "host_filters": [{ "name": "web", "filter": "tag:web" }],
    });
    assert_eq!(hub.browser_request("PUT", PATH, &viewer, &body).status, 200);
    // Another session of the same user, and another user.
    assert_eq!(get(&hub.log_in(VIEWER.0, VIEWER.1)), body);
    assert_eq!(get(&admin), none);
    let filter = json!({ "name": "web", "filter": "f".repeat(501) });
    for (body, status, code) in [
        (json!({ "pins": ["x"] }), 400, "invalid_body"),
        (json!({ "theme": "dark" }), 400, "invalid_body"),
        (json!({ "host_columns": vec!["cpu"; 51] }), 422, "invalid_preferences"),
        (json!({ "host_filters": [filter] }), 422, "invalid_preferences"),
    ] {
        let response = hub.browser_request("PUT", PATH, &viewer, &body);
        assert_eq!((response.status, response.code()), (status, code), "{}", response.text);
    }
    // Scripts have no dashboard.
    assert_eq!(hub.get(PATH).status, 403);
    assert_eq!(hub.request("GET", PATH, "", &Value::Null).status, 401);
    assert_eq!(hub.admin_request("DELETE", &format!("/api/v1/users/{user}"), &Value::Null).status, 204);
    assert_eq!(hub.browser_request("GET", PATH, &viewer, &Value::Null).status, 401);
}
