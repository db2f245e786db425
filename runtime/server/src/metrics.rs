//! The metrics for Prometheus: one page over HTTP/1.1, to `GET /metrics`.
//!
//! Whoever reaches the address may ask, so everything has a limit: one connection is answered at a time, within two seconds,
//! request and reply; a request has at most 8 KiB; and who asks again within a second gets the same page.

use crate::{Inner, Server};
use ringback::ClientId;
use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Clients with metrics of their own: those that are most in trouble.
const METRICS_CLIENTS_MAX: usize = 200;
/// Longest request, without a body; what asks for metrics has none.
const HEAD_BYTES_MAX: usize = 8 << 10;
/// How long one connection is served.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a page is good for.
const FRESH: Duration = Duration::from_secs(1);
/// How long accepting rests after an error that another try at once would only repeat (no descriptors, no memory).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The listening socket, and the thread that answers.
#[derive(Debug)]
pub struct Metrics {
    address: SocketAddr,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Metrics {
    /// Answers until it is dropped. Port 0 asks for any.
    pub fn start(server: &Arc<Server>, address: SocketAddr) -> io::Result<Metrics> {
        let listener = TcpListener::bind(address)?;
        let address = listener.local_addr()?;
        let stopping = Arc::new(AtomicBool::new(false));
        let (mut page, stop) = (Page { server: Arc::clone(server), last: None }, Arc::clone(&stopping));
        let answer = move || {
            for stream in listener.incoming() {
                if stop.load(SeqCst) {
                    return;
                }
                match stream {
                    // Who asks and does not listen is no concern of ours; others come after him.
                    Ok(stream) => drop(serve(&mut page, stream)),
                    Err(_) => thread::sleep(ACCEPT_PAUSE),
                }
            }
        };
        let thread = thread::Builder::new().name("nfs-metrics".to_owned()).spawn(answer)?;
        Ok(Metrics { address, stopping, thread: Some(thread) })
    }

    /// The address that it got.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Metrics {
    fn drop(&mut self) {
        self.stopping.store(true, SeqCst);
        if let (Ok(_), Some(thread)) = (TcpStream::connect_timeout(&self.address, PATIENCE), self.thread.take()) {
            // A thread that panicked has said so itself.
            let _ = thread.join();
        }
    }
}

/// What is served.
struct Page {
    server: Arc<Server>,
    last: Option<(Instant, String)>,
}

impl Page {
    fn text(&mut self) -> Result<&str, ringback::Error> {
        if self.last.as_ref().is_none_or(|(made, _)| made.elapsed() >= FRESH) {
            let text = self.server.metrics(METRICS_CLIENTS_MAX)?;
            self.last = Some((Instant::now(), text));
        }
        Ok(self.last.as_ref().map_or("", |(_, text)| text))
    }
}

impl Server {
    /// What Prometheus is told: see [`Snapshot::to_prometheus`](ringback::Snapshot::to_prometheus). Clients have the ids that
    /// `inspect` shows. An error only from a hook.
    pub fn metrics(&self, clients_max: usize) -> Result<String, ringback::Error> {
        let snapshot = self.runtime().snapshot(1)?;
        let ids = ids(&self.inner);
        let name =
            |client: ClientId| ids.get(&client).cloned().unwrap_or_else(|| format!("new-{:x}", client.to_bits()));
        Ok(snapshot.to_prometheus(clients_max, name))
    }
}

fn ids(inner: &Inner) -> HashMap<ClientId, String> {
    let clients = inner.clients();
    let known = clients.records.values().filter_map(|record| record.client.as_ref());
    known.map(|client| (client.callbacks, format!("{:x}", client.id.0))).collect()
}

/// A connection that is served until a certain time, however slowly its other end is.
struct Timed {
    stream: TcpStream,
    until: Instant,
}

impl Timed {
    fn left(&self) -> io::Result<Duration> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
    }

    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(self.left()?))?;
        self.stream.read(bytes)
    }

    fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            self.stream.set_write_timeout(Some(self.left()?))?;
            match self.stream.write(bytes)? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                written => bytes = &bytes[written..],
            }
        }
        Ok(())
    }
}

fn serve(page: &mut Page, stream: TcpStream) -> io::Result<()> {
    let mut client = Timed { stream, until: Instant::now() + PATIENCE };
    let mut head = [0; HEAD_BYTES_MAX];
    let mut filled = 0;
    let asked = loop {
        let read = client.read(&mut head[filled..])?;
        filled += read;
        if ends(&head[..filled]) {
            break Asked::of(&head[..filled]);
        }
        if filled == head.len() {
            break Asked::TooLong;
        }
        if read == 0 {
            return Ok(());
        }
    };
    let (status, kind, body) = match asked {
        Asked::Metrics { .. } => match page.text() {
            Ok(text) => ("200 OK", "text/plain; version=0.0.4; charset=utf-8", text),
            Err(_) => ("503 Service Unavailable", PLAIN, "the server is ending\n"),
        },
        Asked::Elsewhere => ("404 Not Found", PLAIN, "the metrics are at /metrics\n"),
        Asked::Otherwise => ("405 Method Not Allowed", PLAIN, "GET and HEAD are what can be asked\n"),
        Asked::Nonsense => ("400 Bad Request", PLAIN, "this is no HTTP request\n"),
        Asked::TooLong => ("431 Request Header Fields Too Large", PLAIN, "the request is too long\n"),
    };
    let length = body.len();
    let allow = if asked == Asked::Otherwise { "Allow: GET, HEAD\r\n" } else { "" };
    let reply = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n{allow}Connection: close\r\n\r\n"
    );
    client.write_all(reply.as_bytes())?;
    if asked != (Asked::Metrics { head_only: true }) {
        client.write_all(body.as_bytes())?;
    }
    client.stream.shutdown(std::net::Shutdown::Write)
}

const PLAIN: &str = "text/plain; charset=utf-8";

/// Whether the head of a request is complete.
fn ends(head: &[u8]) -> bool {
    head.windows(4).any(|end| end == b"\r\n\r\n") || head.windows(2).any(|end| end == b"\n\n")
}

/// What a request wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Metrics { head_only: bool },
    Elsewhere,
    Otherwise,
    Nonsense,
    TooLong,
}

impl Asked {
    fn of(head: &[u8]) -> Asked {
        let line = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let mut words = line.trim_ascii_end().split(|byte| *byte == b' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some(method), Some(target), Some(b"HTTP/1.1" | b"HTTP/1.0"), None) => {
                let path = target.split(|byte| *byte == b'?').next();
                match (method, path) {
                    (b"GET" | b"HEAD", Some(b"/metrics")) => Asked::Metrics { head_only: method == b"HEAD" },
                    (b"GET" | b"HEAD", _) => Asked::Elsewhere,
                    _ => Asked::Otherwise,
                }
            }
            _ => Asked::Nonsense,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn requests_are_told_apart() {
        let metrics = |head_only| Asked::Metrics { head_only };
        for (head, asked) in [
            ("GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n", metrics(false)),
            ("GET /metrics?x=1 HTTP/1.0\n\n", metrics(false)),
            ("HEAD /metrics HTTP/1.1\r\n\r\n", metrics(true)),
            ("GET / HTTP/1.1\r\n\r\n", Asked::Elsewhere),
            ("GET /metrics/../x HTTP/1.1\r\n\r\n", Asked::Elsewhere),
            ("POST /metrics HTTP/1.1\r\n\r\n", Asked::Otherwise),
            ("GET /metrics\r\n\r\n", Asked::Nonsense),
            ("GET  /metrics HTTP/1.1\r\n\r\n", Asked::Nonsense),
            ("GET /metrics HTTP/2.0\r\n\r\n", Asked::Nonsense),
            ("\r\n\r\n", Asked::Nonsense),
        ] {
            assert!(ends(head.as_bytes()), "{head:?}");
            assert_eq!(Asked::of(head.as_bytes()), asked, "{head:?}");
        }
        assert!(!ends(b"GET /metrics HTTP/1.1\r\nHost: a\r\n"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_some_request(head in proptest::collection::vec(any::<u8>(), 0..200)) {
            let is_metrics = matches!(Asked::of(&head), Asked::Metrics { .. });
            let begins = [&b"GET /metrics"[..], b"HEAD /metrics"];
            prop_assert!(!is_metrics || begins.iter().any(|begin| head.starts_with(begin)));
        }
    }
}
