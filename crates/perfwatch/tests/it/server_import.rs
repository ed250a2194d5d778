//! Imports of agentless hosts with invalid entries.

use crate::support::TestHub;
use serde_json::{Value, json};

#[test]
fn valid_entries_are_saved_on_request() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    // An entry behind an invalid jump host is invalid, too.
    let table = "name,address,user,password,port,jump\nbad,192.0.2.4,x,y,many,\n\
                 after,192.0.2.5,x,y,,bad\ngood,192.0.2.6,x,y,,\n";
    let import = |skip_invalid: bool| {
        let request =
            json!({ "format": "csv", "text": table, "skip_invalid": skip_invalid, "enabled": false });
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

/// What is created without a word about `enabled` works.
#[test]
fn new_objects_are_enabled_by_default() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let create = |path: &str, body: Value| {
        let response = hub.request("POST", path, &hub.token, &body);
        assert!([200, 201].contains(&response.status), "{path}: {}", response.text);
        response.body
    };
    let credentials = json!({ "kind": "password", "password": "x" });
    let server =
        json!({ "name": "a", "address": "127.0.0.1", "port": 1, "user": "x", "credentials": credentials });
    create("/api/v1/servers", server);
    let table = "name,address,port,user,password\nb,127.0.0.1,1,x,y\n";
    create("/api/v1/servers/import", json!({ "format": "csv", "text": table }));
    let servers = hub.get("/api/v1/servers").body["servers"].clone();
    let servers = servers.as_array().unwrap();
    assert!(servers.len() == 2 && servers.iter().all(|server| server["enabled"] == true), "{servers:?}");
    let condition = json!({ "kind": "no_data", "grace": "1m" });
    assert_eq!(
        create("/api/v1/rules", json!({ "name": "r", "condition": condition }))["rule"]["enabled"],
        true
    );
    let channel = json!({ "name": "c", "kind": "webhook", "settings": { "url": "https://hook.example" } });
    assert_eq!(create("/api/v1/channels", channel)["enabled"], true);
}

#[test]
fn yaml_list_and_inventory_are_imported() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start(folder.path());
    let import = |text: &str, dry_run: bool| {
        let request = json!({ "format": "yaml", "text": text, "dry_run": dry_run, "tags": ["env=lab"],
            "enabled": false, "user": "watch", "credentials": { "kind": "password", "password": "default-secret" } });
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
