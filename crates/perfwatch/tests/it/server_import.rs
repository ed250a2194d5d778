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

#[test]
fn yaml_list_and_inventory_are_imported() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let import = |text: &str, dry_run: bool| {
        let request = json!({ "format": "yaml", "text": text, "dry_run": dry_run, "tags": ["env=lab"],
            "user": "watch", "credentials": { "kind": "password", "password": "default-secret" } });
        hub.request("POST", "/api/v1/servers/import", &hub.token, &request)
    };
    let inventory = "all:\n  hosts:\n    gate: {ansible_host: 192.0.2.1, ansible_password: file-secret}\n  children:\n    \
         db:\n      vars: {ansible_ssh_common_args: -J gate}\n      hosts:\n        db[1:2]:\n";
    assert_eq!(import(inventory, true).body["created"], 3);
    assert_eq!(hub.get("/api/v1/servers").body["servers"], json!([]));
    let response = import(inventory, false);
    assert_eq!(response.body["created"], 3, "{}", response.text);
    let list = hub.get("/api/v1/servers");
    let servers = list.body["servers"].as_array().unwrap().clone();
    let find = |name: &str| servers.iter().find(|server| server["name"] == name).unwrap();
    assert_eq!(find("db2")["tags"], json!(["db", "env=lab"]));
    assert_eq!(find("db2")["jump"], find("gate")["id"]);
    assert_eq!((&find("gate")["address"], &find("gate")["user"]), (&json!("192.0.2.1"), &json!("watch")));
    // No secret of the file can be read again.
    let audit = hub.get("/api/v1/audit").text;
    assert!(![list.text, audit, response.text].concat().contains("secret"));
    assert_eq!(import("- gate\n- 192.0.2.9\n", false).body["created"], 1);
    let response = import("- address: 192.0.2.8\n  adress: x\n", true);
    assert!(response.code() == "invalid_import" && response.text.contains("line 2"), "{}", response.text);
    // The entry of a container is invalid, not the file.
    let response = import("all: {hosts: {box: {ansible_connection: docker}}}", true);
    assert!(response.body["servers"][0]["error"].as_str().unwrap().contains("not SSH"), "{}", response.text);
}
