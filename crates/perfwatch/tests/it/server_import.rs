//! Imports of agentless hosts with invalid entries.

use crate::support::TestHub;
use serde_json::json;

#[test]
fn valid_entries_are_saved_on_request() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    // An entry behind an invalid jump host is invalid, too.
    let table = "name,address,user,password,port,jump\nbad,192.0.2.4,x,y,many,\n\
                 after,192.0.2.5,x,y,,bad\ngood,192.0.2.6,x,y,,\n";
    let import = |skip_invalid: bool| {
        let request = json!({ "format": "csv", "text": table, "skip_invalid": skip_invalid });
        hub.request("POST", "/api/v1/servers/import", &hub.token, &request)
    };
    assert_eq!(import(false).code(), "invalid_import");
    assert_eq!(hub.get("/api/v1/servers").body["servers"], json!([]));
    let response = import(true);
    let errors: Vec<bool> =
        (0..3).map(|entry| response.body["servers"][entry]["error"].is_string()).collect();
    assert_eq!(
        (&response.body["created"], errors),
        (&json!(1), vec![true, true, false]),
        "{}",
        response.text
    );
    let servers = hub.get("/api/v1/servers").body["servers"].clone();
    assert_eq!((servers.as_array().unwrap().len(), &servers[0]["name"]), (1, &json!("good")));
}
