//! Single sign-on against an issuer of the test's own, which checks what a real one checks: the
//! code, who asks for it, where it goes, and the proof of RFC 7636.

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

const SECRET: &str = "known to issuer and hub";

/// What the issuer does.
struct Issuer {
    address: String,
    key: KeyPair,
    /// What it says of who logs in; a test changes it.
    claims: Mutex<Value>,
    /// What the browser brought, by code.
    begun: Mutex<HashMap<String, HashMap<String, String>>>,
}

fn pairs(text: &str) -> HashMap<String, String> {
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
    let of = |pair: &str| pair.split_once('=').map(|(name, value)| (decode(name), decode(value)));
    uri.query().unwrap_or_default().split('&').filter_map(of).collect()
}

impl Issuer {
    fn start() -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let issuer = Arc::new(Self {
            address: listener.local_addr().unwrap().to_string(),
            key: KeyPair::generate().unwrap(),
            claims: Mutex::new(json!({})),
            begun: Mutex::default(),
        });
        let shared = issuer.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                shared.serve(stream.unwrap());
            }
        });
        issuer
    }

    /// What it says from now on of who logs in.
    fn set_claims(&self, claims: Value) {
        *self.claims.lock().unwrap() = claims;
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn serve(&self, stream: TcpStream) {
        let mut reader = BufReader::new(stream);
        let mut first = String::new();
        reader.read_line(&mut first).unwrap();
        let mut length = 0;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            if line.trim().is_empty() {
                break;
            }
            if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        let target = first.split(' ').nth(1).unwrap();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let (status, location, text) = self.answer(path, query, &String::from_utf8(body).unwrap());
        let head =
            format!("HTTP/1.1 {status} x\r\nContent-Type: application/json\r\nLocation: {location}\r\n");
        let all = format!("{head}Content-Length: {}\r\nConnection: close\r\n\r\n{text}", text.len());
        reader.get_mut().write_all(all.as_bytes()).unwrap();
    }

    fn answer(&self, path: &str, query: &str, body: &str) -> (u16, String, String) {
        let url = self.url();
        match path {
            "/.well-known/openid-configuration" => {
                let metadata = json!({
                    "issuer": url, "authorization_endpoint": format!("{url}/authorize"),
                    "token_endpoint": format!("{url}/token"), "jwks_uri": format!("{url}/keys"),
                    "userinfo_endpoint": format!("{url}/userinfo"),
                });
                (200, String::new(), metadata.to_string())
            }
            "/keys" => {
                // The point of SEC 1, uncompressed.
                let point = self.key.public_key_raw();
                let part = |range: std::ops::Range<usize>| BASE64_URL_SAFE_NO_PAD.encode(&point[range]);
                let key = json!({
                    "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": "one",
                    "x": part(1..33), "y": part(33..65),
                });
                (200, String::new(), json!({ "keys": [key] }).to_string())
            }
            "/authorize" => {
                let asked = pairs(query);
                assert_eq!(
                    (asked["response_type"].as_str(), asked["code_challenge_method"].as_str()),
                    ("code", "S256")
                );
                assert!(asked["scope"].split(' ').any(|scope| scope == "openid"));
                let code = format!("code-{}", self.begun.lock().unwrap().len());
                let to = format!("{}?code={code}&state={}", asked["redirect_uri"], asked["state"]);
                self.begun.lock().unwrap().insert(code, asked);
                (303, to, String::new())
            }
            "/token" => {
                let asked = pairs(body);
                let Some(begun) = self.begun.lock().unwrap().remove(&asked["code"]) else {
                    return (400, String::new(), json!({ "error": "invalid_grant" }).to_string());
                };
                let proof = BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(asked["code_verifier"].as_bytes()));
                let fine = proof == begun["code_challenge"]
                    && asked["redirect_uri"] == begun["redirect_uri"]
                    && asked["client_secret"] == SECRET
                    && asked["client_id"] == begun["client_id"];
                if !fine {
                    return (400, String::new(), json!({ "error": "invalid_grant" }).to_string());
                }
                (
                    200,
                    String::new(),
                    json!({ "id_token": self.sign(&begun["nonce"]), "access_token": "at" }).to_string(),
                )
            }
            "/userinfo" => {
                let claims = self.claims.lock().unwrap();
                (200, String::new(), json!({ "sub": claims["sub"], "groups": claims["later"] }).to_string())
            }
            _ => (404, String::new(), "{}".to_owned()),
        }
    }

    fn sign(&self, nonce: &str) -> String {
        let now = now_ms() / 1_000;
        let mut claims =
            json!({ "iss": self.url(), "aud": "perfwatch", "iat": now, "exp": now + 60, "nonce": nonce });
        let told = self.claims.lock().unwrap().clone();
        claims.as_object_mut().unwrap().extend(told.as_object().unwrap().clone());
        let header = Header { kid: Some("one".to_owned()), ..Header::new(Algorithm::ES256) };
        jsonwebtoken::encode(&header, &claims, &EncodingKey::from_ec_der(&self.key.serialize_der())).unwrap()
    }
}

/// A browser with its cookies.
#[derive(Default)]
struct Browser(HashMap<String, String>);

impl Browser {
    /// One step: status and where it sends us.
    fn get(&mut self, url: &str) -> (u16, String) {
        let agent =
            ureq::Agent::config_builder().max_redirects(0).http_status_as_error(false).build().new_agent();
        let cookies: Vec<String> = self.0.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let answer = agent.get(url).header("Cookie", cookies.join("; ")).call().unwrap();
        for set in answer.headers().get_all("set-cookie") {
            let (name, value) = set.to_str().unwrap().split(';').next().unwrap().split_once('=').unwrap();
            self.0.insert(name.to_owned(), value.to_owned());
        }
        let location = answer.headers().get("location").map_or("", |to| to.to_str().unwrap());
        (answer.status().as_u16(), location.to_owned())
    }

    /// The whole way: where it ends.
    fn log_in(&mut self, hub: &TestHub) -> String {
        let (status, to) = self.get(&hub.url("/api/v1/auth/oidc/login?next=%2Fhosts%2Fx"));
        assert_eq!(status, 303);
        let (_, back) = self.get(&to);
        self.get(&back).1
    }
}

/// A hub that trusts the issuer.
fn start(issuer: &Issuer, folder: &std::path::Path) -> TestHub {
    let url = issuer.url();
    let told = [
        ("PERFWATCH_HUB_OIDC_ISSUER", url.as_str()),
        ("PERFWATCH_HUB_OIDC_CLIENT_SECRET", SECRET),
        ("PERFWATCH_HUB_OIDC_ADMINS", "sre"),
        ("PERFWATCH_HUB_OIDC_VIEWERS", "staff"),
    ];
    TestHub::start_with_env(folder, &["hub", "--listen", "127.0.0.1:0"], &told)
}

/// The role of who is logged in; null for nobody.
fn role(hub: &TestHub, browser: &Browser) -> Value {
    let session = browser.0.get("perfwatch_session").cloned().unwrap_or_default();
    let me =
        ureq::get(hub.url("/api/v1/auth/me")).header("Cookie", format!("perfwatch_session={session}")).call();
    me.map_or(Value::Null, |mut me| {
        serde_json::from_str::<Value>(&me.body_mut().read_to_string().unwrap()).unwrap()["role"].clone()
    })
}

#[test]
fn oidc_login_maps_role_claims() {
    let folder = tempfile::tempdir().unwrap();
    let issuer = Issuer::start();
    let hub = start(&issuer, folder.path());
    // A viewer by a group in the token; an admin once the issuer says so.
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
    assert_eq!(names, ["ada", "admin"], "one account, by what the issuer calls them for ever");
    // Groups that only its other page tells.
    issuer.set_claims(json!({ "sub": "43", "email": "bo@example.com", "later": ["staff"] }));
    let mut other = Browser::default();
    assert_eq!(other.log_in(&hub), "/hosts/x");
    assert_eq!(role(&hub, &other), "viewer");
}

#[test]
fn oidc_rejects_unverified_claims() {
    let folder = tempfile::tempdir().unwrap();
    let issuer = Issuer::start();
    let hub = start(&issuer, folder.path());
    let of_staff = |more: Value| {
        let mut claims = json!({ "sub": "46", "preferred_username": "x", "groups": ["staff"] });
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        claims
    };
    for (claims, problem) in [
        (json!({ "sub": "44", "preferred_username": "eve", "groups": ["guests"] }), "sso_no_role"),
        (json!({ "sub": "45", "preferred_username": "admin", "groups": ["staff"] }), "sso_name_taken"),
        (of_staff(json!({ "aud": "another" })), "sso_failed"),
        (of_staff(json!({ "iss": "http://evil" })), "sso_failed"),
        (of_staff(json!({ "exp": 1_000 })), "sso_failed"),
        (of_staff(json!({ "nonce": "old" })), "sso_failed"),
        (of_staff(json!({ "azp": "another" })), "sso_failed"),
    ] {
        issuer.set_claims(claims.clone());
        let mut browser = Browser::default();
        assert_eq!(browser.log_in(&hub), format!("/login?problem={problem}"), "{claims}");
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
    let (_, planted) = Browser::default().get(&to);
    assert_eq!(victim.get(&planted).1, "/login?problem=sso_refused");
    let (_, to) = victim.get(&hub.url("/api/v1/auth/oidc/login"));
    assert_eq!(victim.get(&planted).1, "/login?problem=sso_failed", "a state of another login");
    victim.get(&hub.url("/api/v1/auth/oidc/login"));
    let (_, back) = victim.get(&to);
    assert_eq!(victim.get(&back).1, "/login?problem=sso_failed", "of an earlier login");
    assert_eq!(role(&hub, &victim), Value::Null);
    eventually("it is in the log", || hub.process.log().contains("single sign-on"));
    assert!(!hub.process.log().contains(SECRET));
}
