//! Connections that the back end makes itself.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use super::harness::{PATIENCE, Reactor, key, make, pattern, read_exact};
use crate::io::{Backend, ConnKey, IoConfig, SendBuf};

/// A listener, and its address; `None`, said aloud, where the host has no such address.
fn listener(host: &str) -> Option<(TcpListener, SocketAddr)> {
    match TcpListener::bind((host, 0)) {
        Ok(listener) => {
            let address = listener.local_addr().expect("address");
            Some((listener, address))
        }
        Err(error) => {
            let name = std::thread::current().name().unwrap_or_default().to_owned();
            writeln!(std::io::stderr(), "skipped in part: {name}: no {host} here: {error}").expect("stderr");
            None
        }
    }
}

/// An address where nobody listens.
fn nobody() -> SocketAddr {
    listener("127.0.0.1").expect("loopback").1
}

/// A listener that takes no more connections, but does not refuse them: what is sent to it is never answered.
fn silent() -> (TcpListener, Vec<std::net::TcpStream>, SocketAddr) {
    let (listener, address) = listener("127.0.0.1").expect("loopback");
    rustix::net::listen(&listener, 0).expect("listen");
    let mut fillers = Vec::new();
    while let Ok(filler) = std::net::TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
        fillers.push(filler);
        assert!(fillers.len() < 100, "the backlog has no end");
    }
    (listener, fillers, address)
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("proc").count()
}

pub(super) fn connects_over_both_kinds_of_address(r: &mut Reactor) {
    for (i, host) in ["127.0.0.1", "::1"].into_iter().enumerate() {
        let key = key(i as u32);
        let Some((listener, address)) = listener(host) else { continue };
        r.dial(key, address);
        assert!(r.io.send(key, SendBuf::staging(vec![1], 1)).is_err(), "not connected yet");
        r.until("connected", |r| r.of(key).connected.is_some());
        assert_eq!(r.of(key).connected, Some(Ok(())));
        let (mut far, _) = listener.accept().expect("accept");
        far.set_read_timeout(Some(PATIENCE)).expect("timeout");
        far.write_all(&pattern(5000)).expect("write");
        r.until("arrived", |r| r.of(key).received.len() == 5000);
        assert_eq!(r.of(key).received, pattern(5000));
        r.send(key, b"as any other");
        r.until("sent", |r| r.of(key).sent.len() == 1);
        assert_eq!(read_exact(&mut far, 12), b"as any other");
        drop(far);
        r.until("the end", |r| r.of(key).closed == Some(None));
        r.finish(key);
    }
}

pub(super) fn connects_and_is_refused(r: &mut Reactor) {
    let address = nobody();
    for i in 0..20 {
        r.dial(key(i), address);
    }
    r.until("refused", |r| (0..20).all(|i| r.of(key(i)).connected.is_some()));
    for i in 0..20 {
        assert_eq!(r.of(key(i)).connected, Some(Err(std::io::ErrorKind::ConnectionRefused)));
        assert!(r.of(key(i)).closed.is_none(), "what never was does not end");
    }
    r.linger(Duration::from_millis(5));
    (0..20).for_each(|i| r.detach(key(i)));
    r.until("detached", |r| (0..20).all(|i| r.of(key(i)).detached));
}

pub(super) fn detach_ends_an_attempt_to_connect(r: &mut Reactor) {
    let (_listener, _fillers, address) = silent();
    r.dial(key(0), address);
    r.io.pause(key(0));
    r.io.resume(key(0));
    r.linger(Duration::from_millis(20));
    assert_eq!(r.of(key(0)).connected, None, "nobody answers");
    let start = Instant::now();
    r.finish(key(0));
    assert!(start.elapsed() < PATIENCE / 10);
    // Before it was submitted, and at once.
    r.dial(key(1), address);
    r.finish(key(1));
    assert!((0..2).all(|i| r.of(key(i)).connected.is_none()));
}

pub(super) fn connects_thousands_of_times_without_a_descriptor_left(r: &mut Reactor) {
    let (listener, address) = listener("127.0.0.1").expect("loopback");
    let refused = nobody();
    let acceptor = std::thread::spawn(move || {
        for far in listener.incoming().take(1000) {
            let mut far = far.expect("accept");
            // Held until the other end has closed it, so that the descriptors of both are counted at rest.
            let _ = far.read(&mut [0]);
        }
    });
    let mut before = 0;
    for generation in 0..1000 {
        let (one, two) = (ConnKey { index: 0, generation }, ConnKey { index: 1, generation });
        r.dial(one, address);
        r.dial(two, refused);
        r.until("both", |r| r.of(one).connected.is_some() && (generation % 3 == 0 || r.of(two).connected.is_some()));
        assert_eq!(r.of(one).connected, Some(Ok(())));
        r.detach(one);
        r.detach(two);
        r.until("detached", |r| r.of(one).detached && r.of(two).detached);
        if generation == 0 {
            before = descriptors();
        }
    }
    // Other tests of this process have descriptors of their own, but not a thousand.
    assert!(descriptors() < before + 500, "{before} before, {} now", descriptors());
    acceptor.join().expect("acceptor");
}

pub(super) fn drops_while_connecting(r: &mut Reactor) {
    let (_listener, _fillers, address) = silent();
    for i in 0..8 {
        r.dial(key(i), address);
    }
    r.linger(Duration::from_millis(5));
    r.dial(key(8), address);
    r.io.detach(key(0));
    let spare = make(Backend::Epoll, &IoConfig::default()).expect("epoll");
    let start = Instant::now();
    drop(std::mem::replace(&mut r.io, spare));
    assert!(start.elapsed() < PATIENCE / 10);
}

pub(super) fn refuses_what_it_cannot_connect(r: &mut Reactor) {
    let (_listener, address) = listener("127.0.0.1").expect("loopback");
    assert!(r.io.connect(key(1 << 24), address).is_err());
    r.dial(key(0), address);
    assert!(r.io.connect(key(0), address).is_err(), "the index is taken");
    // TCP has no broadcast: the kernel says so at once, and it is told as any other failure.
    r.dial(key(1), "255.255.255.255:9".parse().expect("address"));
    r.until("both", |r| r.of(key(0)).connected.is_some() && r.of(key(1)).connected.is_some());
    assert!(r.of(key(1)).connected.is_some_and(|result| result.is_err()));
    r.finish(key(0));
    r.finish(key(1));
}
