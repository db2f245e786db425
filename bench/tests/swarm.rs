//! The swarm against the server half: both sides count, and must agree.

use ringback::{Backend, Builder, Runtime};
use ringback_bench::swarm::{Behaviour, Progress, Swarm, SwarmConfig, Tally, Until};
use ringback_server::{Config, Observer, Server};
use std::net::{SocketAddr, TcpStream};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

struct Quiet;

impl Observer for Quiet {}

fn server(backend: Backend) -> (Server, SwarmConfig) {
    let builder = Builder::new().reactors(1).backend(backend);
    let server = Server::new(Config::default(), builder, Arc::new(Quiet)).unwrap();
    let mut config = SwarmConfig::new(server.listen("127.0.0.1:0").unwrap());
    (config.clients, config.session_slots) = (5, 16);
    (server, config)
}

fn go_on(_: &Progress<'_>) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// Grants, recalls all and serves until everything is recalled and the server has nothing left to ask.
fn recall(server: &Server, config: SwarmConfig, delegations: u64) -> Tally {
    let mut swarm = Swarm::connect(config).unwrap();
    swarm.set_up(&mut go_on).unwrap();
    swarm.grant(delegations, &mut go_on).unwrap();
    assert_eq!((swarm.tally().total().granted, server.delegations()), (delegations, delegations));
    swarm.begin_recalls();
    let before = server.runtime().stats();
    server.held().for_each(|held| {
        let _ = server.recall(&held);
    });
    let deadline = Instant::now() + Duration::from_secs(30);
    let started = delegations + before.started;
    swarm
        .serve(Until::Told, &mut |progress| {
            let stats = server.runtime().stats();
            let over = stats.released >= started && stats.in_flight == 0 && progress.done == progress.total;
            if over || Instant::now() > deadline { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .unwrap();
    swarm.finish()
}

#[test]
fn all_is_recalled_once_over_both_back_ends() {
    for backend in [Backend::Uring, Backend::Epoll] {
        let (server, config) = server(backend);
        let tally = recall(&server, config, 3000);
        let total = tally.total();
        assert_eq!((total.received, total.distinct, total.doubled), (3000, 3000, 0), "{backend:?} {tally:?}");
        assert_eq!((total.delegreturns_ok, server.delegations()), (3000, 0));
        assert_eq!((tally.malformed, tally.misordered, tally.sequence_errors, tally.replays), (0, 0, 0, 0));
        assert_eq!((tally.wrong_credential, tally.other_credential, tally.unknown_xid), (0, 0, 0));
        assert!(tally.errors.is_empty() && tally.failures.is_empty(), "{tally:?}");
        server.shutdown(Duration::from_secs(1)).unwrap();
    }
}

#[test]
fn connections_are_cut_and_bound_again() {
    let (server, mut config) = server(Backend::Auto);
    config.cuts = 6;
    let tally = recall(&server, config, 3000);
    let total = tally.total();
    assert_eq!((total.distinct, total.doubled, total.delegreturns_ok, tally.cuts), (3000, 0, 3000, 30), "{tally:?}");
    assert_eq!((tally.malformed, tally.misordered, tally.sequence_errors), (0, 0, 0), "{tally:?}");
    assert!(tally.failures.is_empty() && tally.uncached_replies == 0, "{tally:?}");
    assert_eq!(server.delegations(), 0);
    server.shutdown(Duration::from_secs(1)).unwrap();
}

#[test]
fn a_conflicting_open_makes_the_server_recall() {
    let (server, mut config) = server(Backend::Auto);
    (config.trigger, config.trigger_window) = (true, 32);
    let mut swarm = Swarm::connect(config).unwrap();
    swarm.set_up(&mut go_on).unwrap();
    swarm.grant(300, &mut go_on).unwrap();
    swarm.begin_recalls();
    swarm.trigger(&mut go_on).unwrap();
    let tally = swarm.finish();
    assert_eq!((tally.total().distinct, tally.triggered, tally.of(Behaviour::Normal).doubled), (300, 300, 0));
    assert!(tally.failures.is_empty(), "{tally:?}");
    server.shutdown(Duration::from_secs(1)).unwrap();
}

/// A thread that lives in tokio-uring, accepts connections there and gives them to the server's runtime, until told to end.
fn accept_in_tokio_uring(runtime: Runtime) -> (SocketAddr, impl FnOnce()) {
    let (sender, address) = mpsc::channel();
    let is_over = Arc::new(AtomicBool::new(false));
    let over = Arc::clone(&is_over);
    let accepting = std::thread::spawn(move || {
        tokio_uring::start(async move {
            let listener = tokio_uring::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
            sender.send(listener.local_addr().unwrap()).unwrap();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                if over.load(SeqCst) {
                    return;
                }
                stream.set_nodelay(true).unwrap();
                ringback::tokio_uring::add_connection(&runtime, stream).unwrap();
            }
        })
    });
    let address = address.recv().unwrap();
    let end = move || {
        is_over.store(true, SeqCst);
        TcpStream::connect(address).unwrap();
        accepting.join().unwrap();
    };
    (address, end)
}

#[test]
fn connections_live_in_tokio_uring() {
    let uring = Builder::new().reactors(1).backend(Backend::Uring);
    if let Err(error) = Server::new(Config::default(), uring, Arc::new(Quiet)) {
        eprintln!("skipped: no io_uring here ({error})");
        return;
    }
    for cuts in [0, 6] {
        let (server, mut config) = server(Backend::Auto);
        let (address, end) = accept_in_tokio_uring(server.runtime().clone());
        (config.server, config.cuts) = (address, cuts);
        let tally = recall(&server, config, 3000);
        let total = tally.total();
        assert_eq!((total.distinct, total.doubled, total.delegreturns_ok), (3000, 0, 3000), "{tally:?}");
        assert_eq!((tally.malformed, tally.misordered, tally.sequence_errors), (0, 0, 0), "{tally:?}");
        assert_eq!((tally.cuts, server.delegations()), (u64::from(5 * cuts), 0));
        assert!(tally.failures.is_empty() && tally.uncached_replies == 0, "{tally:?}");
        // Ends the connections, without which tokio-uring's runtime could not end.
        server.shutdown(Duration::from_secs(1)).unwrap();
        end();
    }
}
