//! Clients over TCP that open the same few files for reading and writing, so that delegations are granted, recalled and
//! returned all the time, on several reactors at once.

mod client;

use client::Client;
use ringback::{Backend, Builder, CallbackKey, Outcome, Run};
use ringback_rpc::nfs4::fore::share_access;
use ringback_server::{Config, Observer, Server};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);
const CLIENTS: u64 = 4;
const ROUNDS: u64 = 500;
const FILES: u64 = 5;

#[derive(Default)]
struct Counts {
    accepted: AtomicU64,
    done: AtomicU64,
    released: AtomicU64,
}

impl Observer for Counts {
    fn accepted(&self, _: CallbackKey) {
        self.accepted.fetch_add(1, SeqCst);
    }
    fn done(&self, _: &Run, _: &Outcome<'_>) {
        self.done.fetch_add(1, SeqCst);
    }
    fn released(&self, _: &Run) {
        self.released.fetch_add(1, SeqCst);
    }
}

fn contend(backend: Backend) {
    let counts = Arc::new(Counts::default());
    let builder = Builder::new().reactors(2).backend(backend);
    // Delegated again at once, so that there is always something to recall.
    let config = Config { contended: Duration::ZERO, ..Config::default() };
    let server = match Server::new(config, builder, Arc::clone(&counts) as _) {
        Ok(server) => server,
        Err(error) if backend == Backend::Uring && std::env::var_os("RINGBACK_REQUIRE_URING").is_none() => {
            return eprintln!("skipped: the io_uring back end ({error})");
        }
        Err(error) => panic!("{error}"),
    };
    let address = server.listen("127.0.0.1:0").unwrap();
    let threads = (0..CLIENTS).map(|c| {
        std::thread::spawn(move || {
            let mut client = Client::connect(address, format!("client-{c}"));
            let mut delegated = 0;
            for round in 0..ROUNDS {
                let file = format!("f{}", (round * 7 + c * 3) % FILES);
                let access = if (round + c) % 8 == 0 { share_access::WRITE } else { share_access::READ };
                client.visit(&file, access);
                delegated += client.held.len();
            }
            // The slowest client may still want what this one holds.
            for (handle, stateid) in std::mem::take(&mut client.held) {
                client.give_back(stateid, &handle);
            }
            (client, delegated)
        })
    });
    let clients: Vec<_> = threads.collect::<Vec<_>>().into_iter().map(|t| t.join().unwrap()).collect();
    assert_eq!(server.delegations(), 0);
    assert_eq!(server.files(), FILES);
    assert!(clients.iter().any(|(_, delegated)| *delegated > 0), "something was delegated");
    assert!(clients.iter().any(|(client, _)| client.recalls > 0), "something was recalled");
    // Recalls that crossed a return are answered by nobody any more once the clients are gone.
    drop(clients);
    server.runtime().drain(Duration::from_secs(1)).unwrap();
    let start = Instant::now();
    while counts.released.load(SeqCst) < counts.accepted.load(SeqCst) {
        assert!(start.elapsed() < PATIENCE, "a run was lost");
        std::thread::sleep(Duration::from_millis(5));
    }
    let all = [&counts.accepted, &counts.done, &counts.released].map(|n| n.load(SeqCst));
    assert!(all.iter().all(|n| *n == all[0]), "accepted, done, released: {all:?}");
    assert_eq!(server.runtime().stats().in_flight, 0);
    server.shutdown(Duration::from_secs(1)).unwrap();
    assert!(TcpStream::connect(address).is_err(), "nobody listens any more");
}

#[test]
fn clients_contend_over_epoll() {
    contend(Backend::Epoll);
}

#[test]
fn clients_contend_over_io_uring() {
    contend(Backend::Uring);
}

#[test]
fn an_address_in_use_is_an_error() {
    let builder = Builder::new().reactors(1).backend(Backend::Epoll);
    let server = Server::new(Config::default(), builder, Arc::new(())).unwrap();
    let address = server.listen("127.0.0.1:0").unwrap();
    assert_eq!(server.listen(address).unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
    server.shutdown(Duration::ZERO).unwrap();
}
