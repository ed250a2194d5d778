//! Servers that take down what they hear: an HTTP one and an SMTP one, each on a port of its own.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Nothing that is on its way takes longer.
const RECEIVE_TIMEOUT: Duration = Duration::from_secs(30);

/// A request.
#[derive(Debug, Clone)]
pub struct ReceivedRequest {
    /// `POST`.
    pub method: String,
    /// With its query.
    pub path: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// As text.
    pub body: String,
}

impl ReceivedRequest {
    /// A header by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// Takes requests and answers as it is told: 200 at first.
pub struct HttpRecorder {
    port: u16,
    requests: Mutex<Receiver<ReceivedRequest>>,
    respond_with: Arc<Mutex<(u16, String)>>,
}

/// What a server does with one connection.
fn serve(port: u16, talk: impl Fn(TcpStream) + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let talk = Arc::new(talk);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let talk = talk.clone();
            std::thread::spawn(move || talk(stream));
        }
    });
    port
}

fn request(reader: &mut BufReader<TcpStream>) -> Option<ReceivedRequest> {
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
    /// On a free port.
    pub fn start() -> Self {
        let (told, heard) = channel();
        let respond_with = Arc::new(Mutex::new((200, String::new())));
        let (told, answers) = (Mutex::new(told), respond_with.clone());
        let port = serve(0, move |stream| {
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut stream = stream;
            while let Some(request) = request(&mut reader) {
                let (status, text) = answers.lock().unwrap().clone();
                // A sink that is gone hears nothing.
                let _ = told.lock().unwrap().send(request);
                let head = format!(
                    "HTTP/1.1 {status} x\r\nretry-after: 7\r\ncontent-length: {}\r\n\r\n",
                    text.len()
                );
                if stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(text.as_bytes())).is_err()
                {
                    return;
                }
            }
        });
        Self { port, requests: Mutex::new(heard), respond_with }
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// What it says from now on.
    pub fn respond_with(&self, status: u16, text: &str) {
        *self.respond_with.lock().unwrap() = (status, text.to_owned());
    }

    /// What it heard next.
    pub fn next_request(&self) -> ReceivedRequest {
        self.next_request_within(RECEIVE_TIMEOUT).expect("nothing was heard")
    }

    /// What it hears within a time, if anything.
    pub fn next_request_within(&self, time: Duration) -> Option<ReceivedRequest> {
        self.requests.lock().unwrap().recv_timeout(time).ok()
    }
}

/// A mail as it was handed over.
#[derive(Debug, Clone)]
pub struct Mail {
    /// Whom it is for.
    pub to: Vec<String>,
    /// Headers and body, lines joined where they were folded or encoded over several.
    pub data: String,
}

/// Takes mails, or refuses them.
pub struct SmtpRecorder {
    port: u16,
    heard: Mutex<Receiver<Mail>>,
    refuses: Arc<Mutex<Option<String>>>,
}

fn smtp(stream: TcpStream, told: &Sender<Mail>, refuses: Option<&str>) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut stream = stream;
    let mut say = move |text: &str| stream.write_all(format!("{text}\r\n").as_bytes()).ok();
    let (mut to, mut line) = (Vec::new(), String::new());
    say("220 sink ESMTP")?;
    loop {
        line.clear();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        let upper = line.to_uppercase();
        if upper.starts_with("RCPT TO:") {
            if let Some(refuses) = refuses {
                say(refuses)?;
                continue;
            }
            to.push(line["RCPT TO:".len()..].trim().trim_matches(['<', '>']).to_owned());
        }
        if upper.starts_with("DATA") {
            say("354 go on")?;
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
            told.send(Mail { to: std::mem::take(&mut to), data }).ok()?;
        }
        if upper.starts_with("QUIT") {
            return say("221 bye");
        }
        say("250 fine")?;
    }
}

impl SmtpRecorder {
    /// On a free port.
    pub fn start() -> Self {
        let (told, heard) = channel();
        let refuses = Arc::new(Mutex::new(None));
        let (told, says) = (Mutex::new(told), refuses.clone());
        let port = serve(0, move |stream| {
            let (told, says) = (told.lock().unwrap().clone(), says.lock().unwrap().clone());
            smtp(stream, &told, says.as_deref());
        });
        Self { port, heard: Mutex::new(heard), refuses }
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What it says to every recipient from now on, as `550 no such user`.
    pub fn refuse(&self, text: &str) {
        *self.refuses.lock().unwrap() = Some(text.to_owned());
    }

    /// The next mail.
    pub fn next(&self) -> Mail {
        self.heard.lock().unwrap().recv_timeout(RECEIVE_TIMEOUT).expect("no mail came")
    }
}
