//! Single sign-on with a test issuer that checks what a real issuer checks: code, client, redirect
//! URI, and the PKCE proof (RFC 7636).

use crate::support::{TestHub, eventually, now_ms};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::KeyPair;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// Client secret of the hub.
const SECRET: &str = "oidc client:secret/%+ü&=";

/// OpenID Connect issuer on a loopback port.
struct Issuer {
    address: String,
    key: KeyPair,
    /// Value of `token_endpoint_auth_methods_supported`, and the methods that are accepted.
    auth_methods: (Option<&'static [&'static str]>, &'static [&'static str]),
    /// Claims of the next login.
    claims: Mutex<Value>,
    /// Parameters of the authorization requests, by code.
    authorizations: Mutex<HashMap<String, HashMap<String, String>>>,
}

/// Parses a query string.
fn parse_query(text: &str) -> HashMap<String, String> {
    let uri: ureq::http::Uri = format!("http://x/?{text}").parse().unwrap();
    let decode = |text: &str| {
        let mut bytes = text.bytes();
        let mut out = Vec::new();
        while let Some(byte) = bytes.next() {
            let mut digit = || (bytes.next().unwrap() as char).to_digit(16).unwrap() as u8;
            match byte {
                b'%' => out.push(digit() * 16 + digit()),
                b'+' => out.push(b' '),
                byte => out.push(byte),
            }
        }
        String::from_utf8(out).unwrap()
    };
    let decode_pair = |pair: &str| pair.split_once('=').map(|(name, value)| (decode(name), decode(value)));
    uri.query().unwrap_or_default().split('&').filter_map(decode_pair).collect()
}

impl Issuer {
    fn start() -> Arc<Self> {
        Self::start_with((None, &["client_secret_basic"]))
    }

    fn start_with(auth_methods: (Option<&'static [&'static str]>, &'static [&'static str])) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let issuer = Arc::new(Self {
            address: listener.local_addr().unwrap().to_string(),
            key: KeyPair::generate().unwrap(),
            auth_methods,
            claims: Mutex::new(json!({})),
            authorizations: Mutex::default(),
        });
        let shared = issuer.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                shared.serve(stream.unwrap());
            }
        });
        issuer
    }

    /// Sets the claims of later logins.
    fn set_claims(&self, claims: Value) {
        *self.claims.lock().unwrap() = claims;
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn serve(&self, stream: TcpStream) {
        let mut reader = BufReader::new(stream);
        let mut request_line = String::new();
        reader.read_line(&mut request_line).unwrap();
        let (mut length, mut authorization) = (0, String::new());
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            if line.trim().is_empty() {
                break;
            }
            if line.to_lowercase().starts_with("authorization:") {
                line.trim().split_once(": ").unwrap().1.clone_into(&mut authorization);
            }
            if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        let target = request_line.split(' ').nth(1).unwrap();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let (status, location, text) =
            self.respond(path, query, &String::from_utf8(body).unwrap(), &authorization);
        let head =
            format!("HTTP/1.1 {status} x\r\nContent-Type: application/json\r\nLocation: {location}\r\n");
        let response = format!("{head}Content-Length: {}\r\nConnection: close\r\n\r\n{text}", text.len());
        reader.get_mut().write_all(response.as_bytes()).unwrap();
    }

    /// Returns whether the client authenticated by an accepted method (RFC 6749, section 2.3.1).
    fn authenticates(&self, authorization: &str, parameters: &HashMap<String, String>) -> bool {
        let accepts = |method: &str| self.auth_methods.1.contains(&method);
        if let Some(encoded) = authorization.strip_prefix("Basic ") {
            let decoded =
                String::from_utf8(base64::prelude::BASE64_STANDARD.decode(encoded).unwrap()).unwrap();
            let credentials = parse_query(&decoded.replacen(':', "=", 1));
            let is_valid = credentials.get("perfwatch").map(String::as_str) == Some(SECRET);
            return accepts("client_secret_basic") && is_valid && !parameters.contains_key("client_secret");
        }
        let has_id = parameters.get("client_id").map(String::as_str) == Some("perfwatch");
        match parameters.get("client_secret") {
            Some(secret) => accepts("client_secret_post") && has_id && secret == SECRET,
            None => accepts("none") && has_id,
        }
    }

    fn respond(&self, path: &str, query: &str, body: &str, authorization: &str) -> (u16, String, String) {
        let url = self.url();
        match path {
            "/.well-known/openid-configuration" => {
                let mut metadata = json!({
                    "issuer": url, "authorization_endpoint": format!("{url}/authorize"),
                    "token_endpoint": format!("{url}/token"), "jwks_uri": format!("{url}/keys"),
                    "userinfo_endpoint": format!("{url}/userinfo"),
                });
                if let Some(methods) = self.auth_methods.0 {
                    metadata["token_endpoint_auth_methods_supported"] = json!(methods);
                }
                (200, String::new(), metadata.to_string())
            }
            "/keys" => {
                // Uncompressed point (SEC 1).
                let point = self.key.public_key_raw();
                let coordinate = |range: std::ops::Range<usize>| BASE64_URL_SAFE_NO_PAD.encode(&point[range]);
                let key = json!({
                    "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": "one",
                    "x": coordinate(1..33), "y": coordinate(33..65),
                });
                (200, String::new(), json!({ "keys": [key] }).to_string())
            }
            "/authorize" => {
                let parameters = parse_query(query);
                assert_eq!(
                    (parameters["response_type"].as_str(), parameters["code_challenge_method"].as_str()),
                    ("code", "S256")
                );
                assert!(parameters["scope"].split(' ').any(|scope| scope == "openid"));
                let code = format!("code-{}", self.authorizations.lock().unwrap().len());
                let redirect =
                    format!("{}?code={code}&state={}", parameters["redirect_uri"], parameters["state"]);
                self.authorizations.lock().unwrap().insert(code, parameters);
                (303, redirect, String::new())
            }
            "/token" => {
                let parameters = parse_query(body);
                if !self.authenticates(authorization, &parameters) {
                    return (401, String::new(), json!({ "error": "invalid_client" }).to_string());
                }
                let Some(authorization) = self.authorizations.lock().unwrap().remove(&parameters["code"])
                else {
                    return (400, String::new(), json!({ "error": "invalid_grant" }).to_string());
                };
                let proof =
                    BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(parameters["code_verifier"].as_bytes()));
                let is_valid = proof == authorization["code_challenge"]
                    && parameters["redirect_uri"] == authorization["redirect_uri"]
                    && authorization["client_id"] == "perfwatch";
                if !is_valid {
                    return (400, String::new(), json!({ "error": "invalid_grant" }).to_string());
                }
                (
                    200,
                    String::new(),
                    json!({ "id_token": self.sign(&authorization["nonce"]), "access_token": "at" })
                        .to_string(),
                )
            }
            "/userinfo" => {
                let claims = self.claims.lock().unwrap();
                (
                    200,
                    String::new(),
                    json!({ "sub": claims["sub"], "groups": claims["userinfo_groups"] }).to_string(),
                )
            }
            _ => (404, String::new(), "{}".to_owned()),
        }
    }

    fn sign(&self, nonce: &str) -> String {
        let now = now_ms() / 1_000;
        let mut claims =
            json!({ "iss": self.url(), "aud": "perfwatch", "iat": now, "exp": now + 60, "nonce": nonce });
        let configured = self.claims.lock().unwrap().clone();
        claims.as_object_mut().unwrap().extend(configured.as_object().unwrap().clone());
        let header = Header { kid: Some("one".to_owned()), ..Header::new(Algorithm::ES256) };
        jsonwebtoken::encode(&header, &claims, &EncodingKey::from_ec_der(&self.key.serialize_der())).unwrap()
    }
}

/// Browser with its cookies, by name.
#[derive(Default)]
struct Browser(HashMap<String, String>);

impl Browser {
    /// Sends one request; returns status and redirect location.
    fn get(&mut self, url: &str) -> (u16, String) {
        let agent =
            ureq::Agent::config_builder().max_redirects(0).http_status_as_error(false).build().new_agent();
        let response = agent.get(url).header("Cookie", self.cookies()).call().unwrap();
        for set in response.headers().get_all("set-cookie") {
            let (name, value) = set.to_str().unwrap().split(';').next().unwrap().split_once('=').unwrap();
            self.0.insert(name.to_owned(), value.to_owned());
        }
        let location = response.headers().get("location").map_or("", |to| to.to_str().unwrap());
        (response.status().as_u16(), location.to_owned())
    }

    /// Cookies of the next request.
    fn cookies(&self) -> String {
        let pairs: Vec<String> = self.0.iter().map(|(name, value)| format!("{name}={value}")).collect();
        pairs.join("; ")
    }

    /// Cookie of the session.
    fn session(&self) -> String {
        let found = self.0.iter().find(|(name, _)| name.starts_with("perfwatch_session_"));
        found.map(|(name, value)| format!("{name}={value}")).unwrap_or_default()
    }

    /// Completes a login; returns the final redirect location.
    fn log_in(&mut self, hub: &TestHub) -> String {
        let (status, to) = self.get(&hub.url("/api/v1/auth/oidc/login?next=%2Fhosts%2Fx"));
        assert_eq!(status, 303);
        let (_, callback) = self.get(&to);
        self.get(&callback).1
    }
}

/// Starts a hub that trusts the issuer.
fn start(issuer: &Issuer, folder: &std::path::Path) -> TestHub {
    let url = issuer.url();
    let env = [
        ("PERFWATCH_HUB_OIDC_ISSUER", url.as_str()),
        ("PERFWATCH_HUB_OIDC_CLIENT_SECRET", SECRET),
        ("PERFWATCH_HUB_OIDC_ADMINS", "sre"),
        ("PERFWATCH_HUB_OIDC_VIEWERS", "staff"),
    ];
    TestHub::start_with_env(folder, &["hub", "--listen", "127.0.0.1:0"], &env)
}

/// Finding L7: the issuer was any service of the hub's machine.
#[test]
fn issuer_on_a_loopback_address_is_refused_unless_allowed() {
    let folder = tempfile::tempdir().unwrap();
    let issuer = Issuer::start();
    let url = issuer.url();
    let env = [("PERFWATCH_HUB_OIDC_ISSUER", url.as_str()), ("PERFWATCH_HUB_ALLOWED_TARGETS", "::1")];
    let hub = TestHub::start_with_env(folder.path(), &["hub", "--listen", "127.0.0.1:0"], &env);
    let agent =
        ureq::Agent::config_builder().http_status_as_error(false).max_redirects(0).build().new_agent();
    let response = agent.get(hub.url("/api/v1/auth/oidc/login")).call().unwrap();
    assert!(!response.headers().get("location").is_some_and(|to| to.to_str().unwrap().starts_with(&url)));
    assert!(hub.process.log().contains("hub.allowed_targets"), "{}", hub.process.log());
}

/// Returns the role of the logged-in user; null without a session.
fn role(hub: &TestHub, browser: &Browser) -> Value {
    let response = ureq::get(hub.url("/api/v1/auth/me")).header("Cookie", browser.session()).call();
    response.map_or(Value::Null, |mut response| {
        serde_json::from_str::<Value>(&response.body_mut().read_to_string().unwrap()).unwrap()["role"].clone()
    })
}

#[test]
fn oidc_login_maps_role_claims() {
    let folder = tempfile::tempdir().unwrap();
    let issuer = Issuer::start();
    let hub = start(&issuer, folder.path());
    // The role follows the groups of the ID token at every login.
    issuer.set_claims(json!({ "sub": "42", "preferred_username": "Ada", "groups": ["staff"] }));
    let mut browser = Browser::default();
    assert_eq!(browser.log_in(&hub), "/hosts/x");
    assert_eq!(role(&hub, &browser), "viewer");
    issuer.set_claims(json!({ "sub": "42", "preferred_username": "renamed", "groups": ["staff", "sre"] }));
    assert_eq!(browser.log_in(&hub), "/hosts/x");
    assert_eq!(role(&hub, &browser), "admin");
    let users = hub.get("/api/v1/users").body["users"].clone();
    let names: Vec<&str> =
        users.as_array().unwrap().iter().map(|user| user["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["ada", "admin"], "one account per subject, whatever its name");
    // Groups from the userinfo endpoint.
    issuer.set_claims(json!({ "sub": "43", "email": "bo@example.com", "userinfo_groups": ["staff"] }));
    let mut other = Browser::default();
    assert_eq!(other.log_in(&hub), "/hosts/x");
    assert_eq!(role(&hub, &other), "viewer");
}

/// L13, with others: claims are checked, the time before which the token is not valid (`nbf`) too.
#[test]
fn oidc_rejects_unverified_claims() {
    let folder = tempfile::tempdir().unwrap();
    let issuer = Issuer::start();
    let hub = start(&issuer, folder.path());
    let staff_claims = |overrides: Value| {
        let mut claims = json!({ "sub": "46", "preferred_username": "x", "groups": ["staff"] });
        claims.as_object_mut().unwrap().extend(overrides.as_object().unwrap().clone());
        claims
    };
    for (claims, code) in [
        (json!({ "sub": "44", "preferred_username": "eve", "groups": ["guests"] }), "sso_no_role"),
        (staff_claims(json!({ "aud": "another" })), "sso_failed"),
        (staff_claims(json!({ "iss": "http://evil" })), "sso_failed"),
        (staff_claims(json!({ "exp": 1_000 })), "sso_failed"),
        (staff_claims(json!({ "nbf": now_ms() / 1_000 + 3_600 })), "sso_failed"),
        (staff_claims(json!({ "nonce": "old" })), "sso_failed"),
        (staff_claims(json!({ "azp": "another" })), "sso_failed"),
    ] {
        issuer.set_claims(claims.clone());
        let mut browser = Browser::default();
        assert_eq!(browser.log_in(&hub), format!("/login?error={code}"), "{claims}");
        assert_eq!(role(&hub, &browser), Value::Null);
    }
    assert_eq!(hub.get("/api/v1/users").body["users"].as_array().unwrap().len(), 1);
}

#[test]
fn oidc_rejects_foreign_state() {
    let folder = tempfile::tempdir().unwrap();
    let issuer = Issuer::start();
    let hub = start(&issuer, folder.path());
    issuer.set_claims(json!({ "sub": "42", "groups": ["staff"] }));
    let mut victim = Browser::default();
    let (_, to) = Browser::default().get(&hub.url("/api/v1/auth/oidc/login"));
    let (_, foreign_callback) = Browser::default().get(&to);
    assert_eq!(victim.get(&foreign_callback).1, "/login?error=sso_denied");
    let (_, to) = victim.get(&hub.url("/api/v1/auth/oidc/login"));
    assert_eq!(victim.get(&foreign_callback).1, "/login?error=sso_failed", "state of another browser");
    victim.get(&hub.url("/api/v1/auth/oidc/login"));
    let (_, callback) = victim.get(&to);
    assert_eq!(victim.get(&callback).1, "/login?error=sso_failed", "state of an earlier login");
    assert_eq!(role(&hub, &victim), Value::Null);
    eventually("the failure is logged", || hub.process.log().contains("OIDC login failed"));
    assert!(!hub.process.log().contains(SECRET));
}

#[test]
fn oidc_client_authenticates_by_a_stated_method() {
    for (stated, accepted) in [
        (Some(&["client_secret_basic"][..]), &["client_secret_basic"][..]),
        (Some(&["client_secret_post"]), &["client_secret_post"]),
        (Some(&["private_key_jwt", "client_secret_post"]), &["client_secret_post"]),
        (Some(&["client_secret_post", "client_secret_basic"]), &["client_secret_basic"]),
        (Some(&["none"]), &["none"]),
        (None, &["client_secret_basic"]),
        // Without a statement, the other method is tried after a rejection.
        (None, &["client_secret_post"]),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let issuer = Issuer::start_with((stated, accepted));
        let hub = start(&issuer, folder.path());
        issuer.set_claims(json!({ "sub": "42", "groups": ["staff"] }));
        assert_eq!(Browser::default().log_in(&hub), "/hosts/x", "{stated:?} {}", hub.process.log());
    }
}

#[test]
fn oidc_name_that_is_taken_is_numbered() {
    let folder = tempfile::tempdir().unwrap();
    let issuer = Issuer::start();
    let hub = start(&issuer, folder.path());
    for (subject, name, expected) in [
        ("1", "müller", "müller"),
        ("2", "möller", "möller"),
        ("3", "山田", "山田"),
        ("4", "田中", "田中"),
        ("5", "Mu\u{308}ller", "müller-2"),
        ("6", "MÜLLER", "müller-3"),
        // Never the account of the local administrator.
        ("7", "admin", "admin-2"),
        ("1", "renamed", "müller"),
    ] {
        issuer.set_claims(json!({ "sub": subject, "preferred_username": name, "groups": ["staff"] }));
        let mut browser = Browser::default();
        assert_eq!(browser.log_in(&hub), "/hosts/x", "{name}");
        let (cookie, session) =
            browser.0.iter().find(|(name, _)| name.starts_with("perfwatch_session_")).unwrap();
        let me = ureq::get(hub.url("/api/v1/auth/me")).header("Cookie", format!("{cookie}={session}"));
        let me: Value =
            serde_json::from_str(&me.call().unwrap().body_mut().read_to_string().unwrap()).unwrap();
        assert_eq!((me["name"].as_str(), me["role"].as_str()), (Some(expected), Some("viewer")), "{me}");
    }
    // Local users have the same names, and passwords in any composition.
    let user =
        |name: &str| json!({ "name": name, "role": "viewer", "password": "Gru\u{308}ße aus Ko\u{308}ln" });
    let create = |name: &str| hub.admin_request("POST", "/api/v1/users", &user(name));
    assert_eq!(create("Mü\u{0}x").status, 422);
    assert_eq!(create("MO\u{308}LLER").code(), "name_taken");
    assert_eq!(create("Jürgen").body["name"], "jürgen");
    hub.log_in("JU\u{308}RGEN", "Grüße aus Köln");
}

/// M8: tokens of a user end with a lower role at the identity provider, and with no role.
#[test]
fn oidc_role_end_revokes_tokens() {
    let folder = tempfile::tempdir().unwrap();
    let issuer = Issuer::start();
    let hub = start(&issuer, folder.path());
    for (groups, location) in [("staff", "/hosts/x"), ("guests", "/login?error=sso_no_role")] {
        issuer.set_claims(json!({ "sub": "42", "preferred_username": "ada", "groups": ["sre"] }));
        let mut browser = Browser::default();
        assert_eq!(browser.log_in(&hub), "/hosts/x");
        let cookies = browser.session();
        let body = json!({ "name": "script", "scope": "admin" });
        let created = hub.browser_request("POST", "/api/v1/tokens", &cookies, &body);
        let token = created.body["token"].as_str().unwrap_or_else(|| panic!("{}", created.text));
        assert_eq!(hub.request("GET", "/api/v1/hosts", token, &Value::Null).status, 200);
        issuer.set_claims(json!({ "sub": "42", "preferred_username": "ada", "groups": [groups] }));
        assert_eq!(Browser::default().log_in(&hub), location);
        assert_eq!(hub.request("GET", "/api/v1/hosts", token, &Value::Null).status, 401, "{groups}");
        assert_eq!(hub.browser_request("GET", "/api/v1/auth/me", &cookies, &Value::Null).status, 401);
    }
}

/// H8: users of an identity provider confirm lasting changes by a new login there.
#[test]
fn oidc_login_confirms_lasting_changes() {
    let folder = tempfile::tempdir().unwrap();
    let issuer = Issuer::start();
    let hub = start(&issuer, folder.path());
    let set_claims = |sub: &str, auth_time: i64| {
        issuer.set_claims(json!({ "sub": sub, "groups": ["sre"], "auth_time": auth_time }));
    };
    let now_s = now_ms() / 1_000;
    set_claims("42", now_s);
    let mut browser = Browser::default();
    assert_eq!(browser.log_in(&hub), "/hosts/x");
    let create = |browser: &Browser, name: &str| {
        let user = json!({ "name": name, "role": "admin", "password": "a-third-password-1" });
        hub.browser_request("POST", "/api/v1/users", &browser.cookies(), &user)
    };
    assert_eq!(create(&browser, "one").code(), "confirmation_required");
    let mut confirm = |sub: &str, auth_time: i64| {
        set_claims(sub, auth_time);
        let (_, to) = browser.get(&hub.url("/api/v1/auth/oidc/login?confirm=true&next=%2Fsettings"));
        assert!(to.contains("prompt=login") && to.contains("max_age=0"), "{to}");
        let (_, callback) = browser.get(&to);
        (browser.get(&callback).1, create(&browser, "one").status)
    };
    assert_eq!(confirm("42", now_s - 3_600), ("/login?error=sso_denied".to_owned(), 403), "an old login");
    assert_eq!(confirm("43", now_s + 5), ("/login?error=sso_denied".to_owned(), 403), "another user");
    assert_eq!(confirm("42", now_s + 5), ("/settings".to_owned(), 201));
}
