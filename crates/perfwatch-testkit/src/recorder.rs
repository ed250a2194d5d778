//! HTTP and SMTP servers that record what they receive, each on a free port.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Deadline of the `next` methods; long, because test machines may be slow.
const RECEIVE_TIMEOUT: Duration = Duration::from_secs(30);

/// HTTP request received by an [`HttpRecorder`].
#[derive(Debug, Clone)]
pub struct ReceivedRequest {
    /// Method in upper case, such as `POST`.
    pub method: String,
    /// Path with its query.
    pub path: String,
    /// Headers in order, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Body, decoded as UTF-8.
    pub body: String,
}

impl ReceivedRequest {
    /// Returns a header by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }
}

/// HTTP server that records requests and sends a configurable response, initially 200.
pub struct HttpRecorder {
    port: u16,
    requests: Mutex<Receiver<ReceivedRequest>>,
    respond_with: Arc<Mutex<TestResponse>>,
}

/// Response of an [`HttpRecorder`].
#[derive(Clone)]
struct TestResponse {
    status: u16,
    headers: String,
    /// Body, in which `{path}` is replaced by the path of the request.
    text: String,
}

/// Listens on a free port and handles each connection in its own thread; returns the port.
fn serve(handle: impl Fn(TcpStream) + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let handle = Arc::new(handle);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let handle = handle.clone();
            std::thread::spawn(move || handle(stream));
        }
    });
    port
}

/// Reads one request; none at the end of the connection.
fn read_request(reader: &mut BufReader<TcpStream>) -> Option<ReceivedRequest> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
    let mut words = line.split_whitespace();
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim().split_once(':') else { break };
        headers.push((name.to_lowercase(), value.trim().to_owned()));
    }
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let mut body = vec![0; length.and_then(|(_, value)| value.parse().ok()).unwrap_or(0)];
    reader.read_exact(&mut body).ok()?;
    Some(ReceivedRequest { method, path, headers, body: String::from_utf8_lossy(&body).into_owned() })
}

impl HttpRecorder {
    /// Starts the server on a free port.
    pub fn start() -> Self {
        let (sender, requests) = channel();
        let respond_with = Arc::new(Mutex::new(TestResponse {
            status: 200,
            headers: "retry-after: 7\r\n".to_owned(),
            text: String::new(),
        }));
        let (sender, response) = (Mutex::new(sender), respond_with.clone());
        let port = serve(move |stream| {
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut stream = stream;
            while let Some(request) = read_request(&mut reader) {
                let TestResponse { status, headers, text } = response.lock().unwrap().clone();
                let text = text.replace("{path}", &request.path);
                // The receiver is closed once the recorder was dropped.
                let _ = sender.lock().unwrap().send(request);
                let head = format!("HTTP/1.1 {status} x\r\n{headers}content-length: {}\r\n\r\n", text.len());
                if stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(text.as_bytes())).is_err()
                {
                    return;
                }
            }
        });
        Self { port, requests: Mutex::new(requests), respond_with }
    }

    /// Base URL without a trailing slash.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Sets status and body of all later responses. `{path}` in the body becomes the path of the request.
    pub fn respond_with(&self, status: u16, text: &str) {
        let mut response = self.respond_with.lock().unwrap();
        (response.status, response.text) = (status, text.to_owned());
    }

    /// Replaces the headers of all later responses, initially `retry-after: 7`.
    pub fn respond_with_headers(&self, headers: &[(&str, &str)]) {
        let lines = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n"));
        self.respond_with.lock().unwrap().headers = lines.collect();
    }

    /// Returns the next request; panics after 30 s without a request.
    pub fn next_request(&self) -> ReceivedRequest {
        self.next_request_within(RECEIVE_TIMEOUT).expect("no request was received")
    }

    /// Returns the next request, or none after the given time.
    pub fn next_request_within(&self, time: Duration) -> Option<ReceivedRequest> {
        self.requests.lock().unwrap().recv_timeout(time).ok()
    }
}

/// Mail received by an [`SmtpRecorder`].
#[derive(Debug, Clone)]
pub struct Mail {
    /// Recipients of the envelope (`RCPT TO`).
    pub to: Vec<String>,
    /// Headers and body; folded headers and soft line breaks are joined.
    pub data: String,
}

/// SMTP server that records or rejects mails.
pub struct SmtpRecorder {
    port: u16,
    mails: Mutex<Receiver<Mail>>,
    rejections: Arc<Mutex<Rejections>>,
}

/// Negative replies to recipients.
#[derive(Clone, Default)]
struct Rejections {
    all: Option<String>,
    by_address: HashMap<String, String>,
}

impl Rejections {
    fn find(&self, address: &str) -> Option<&str> {
        self.by_address.get(address).or(self.all.as_ref()).map(String::as_str)
    }
}

/// Handles one SMTP connection.
fn handle_smtp(stream: TcpStream, mails: &Sender<Mail>, rejections: &Rejections) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut stream = stream;
    let mut reply = move |text: &str| stream.write_all(format!("{text}\r\n").as_bytes()).ok();
    let (mut to, mut line) = (Vec::new(), String::new());
    reply("220 recorder ESMTP")?;
    loop {
        line.clear();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        let command = line.to_uppercase();
        if command.starts_with("RCPT TO:") {
            let address = line["RCPT TO:".len()..].trim().trim_matches(['<', '>']);
            if let Some(rejection) = rejections.find(address) {
                reply(rejection)?;
                continue;
            }
            to.push(address.to_owned());
        }
        if command.starts_with("DATA") {
            reply("354 continue")?;
            let mut data = String::new();
            loop {
                line.clear();
                reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
                if line.trim_end() == "." {
                    break;
                }
                data.push_str(&line);
            }
            // Soft breaks of quoted-printable, folded headers.
            let data = data.replace("=\r\n", "").replace("\r\n ", " ");
            mails.send(Mail { to: std::mem::take(&mut to), data }).ok()?;
        }
        if command.starts_with("QUIT") {
            return reply("221 bye");
        }
        reply("250 ok")?;
    }
}

impl SmtpRecorder {
    /// Starts the server on a free port.
    pub fn start() -> Self {
        let (sender, mails) = channel();
        let rejections: Arc<Mutex<Rejections>> = Arc::default();
        let (sender, current) = (Mutex::new(sender), rejections.clone());
        let port = serve(move |stream| {
            let (sender, rejections) = (sender.lock().unwrap().clone(), current.lock().unwrap().clone());
            handle_smtp(stream, &sender, &rejections);
        });
        Self { port, mails: Mutex::new(mails), rejections }
    }

    /// Port of the server on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Rejects all recipients of later connections with a reply such as `550 no such user`.
    pub fn refuse(&self, text: &str) {
        self.rejections.lock().unwrap().all = Some(text.to_owned());
    }

    /// Rejects one recipient of later connections; other recipients are accepted.
    pub fn refuse_recipient(&self, address: &str, text: &str) {
        self.rejections.lock().unwrap().by_address.insert(address.to_owned(), text.to_owned());
    }

    /// Accepts all recipients of later connections.
    pub fn accept_all(&self) {
        *self.rejections.lock().unwrap() = Rejections::default();
    }

    /// Returns the next mail, or none after the given time.
    pub fn next_within(&self, time: Duration) -> Option<Mail> {
        self.mails.lock().unwrap().recv_timeout(time).ok()
    }

    /// Returns the next mail; panics after 30 s without a mail.
    pub fn next(&self) -> Mail {
        self.mails.lock().unwrap().recv_timeout(RECEIVE_TIMEOUT).expect("no mail was received")
    }
}

/// Starts a server that waits for the client to speak first, as a TLS port does; returns its port. After
/// `close_after`, the connection is closed.
pub fn start_silent_server(close_after: Duration) -> u16 {
    serve(move |stream| {
        // Errors end the connection, too.
        let _ = stream.set_read_timeout(Some(close_after));
        let mut buffer = [0; 1_024];
        let _ = (&stream).read(&mut buffer);
    })
}
