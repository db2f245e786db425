//! How a back end lets a connection go: closed ([`Io::detach`](crate::io::Io::detach)), or open, for another one
//! ([`Io::lift`](crate::io::Io::lift)).

use super::harness::{Reactor, key, make, pattern, read_exact};
use crate::io::{Backend, ConnKey, IoConfig, SendBuf};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::time::Duration;

pub(super) fn detach_gives_back_the_send_in_flight(r: &mut Reactor) {
    let mut far = r.connect(key(0));
    let bytes = vec![7; 64 << 20];
    let address = bytes.as_ptr();
    r.io.send(key(0), SendBuf::staging(bytes, 64 << 20)).expect("send");
    r.linger(Duration::from_millis(50));
    assert!(r.of(key(0)).sent.is_empty(), "the socket buffer took 64 MiB");
    r.finish(key(0));
    let (buf, result) = r.seen.get_mut(&key(0)).expect("seen").sent.pop().expect("sent before detached");
    let unsent = buf.unsent().len();
    assert_eq!((64 << 20) - unsent, result.expect("some bytes fitted into the socket buffer"));
    assert!(unsent > 0);
    let staging = buf.into_staging().expect("staging");
    assert_eq!(staging.as_ptr(), address);
    // What the kernel took arrives, and then the end (or a reset).
    let mut got = Vec::new();
    let _ = far.read_to_end(&mut got);
    assert!(got.iter().all(|byte| *byte == 7));
}

pub(super) fn detach_silences_a_talking_peer(r: &mut Reactor) {
    let mut far = r.connect(key(0));
    let writer = std::thread::spawn(move || while far.write_all(&[1; 8192]).is_ok() {});
    r.until("some bytes", |r| r.of(key(0)).received.len() > 100_000);
    // The checks in the reactor see what comes afterwards.
    r.finish(key(0));
    writer.join().expect("the peer meets an error");
    r.linger(Duration::from_millis(5));
}

pub(super) fn detach_twice_and_of_strangers_does_nothing(r: &mut Reactor) {
    let _far = r.connect(key(0));
    r.io.detach(key(1));
    r.io.detach(ConnKey { index: 0, generation: 2 });
    r.io.pause(key(7));
    r.io.resume(key(7));
    r.detach(key(0));
    r.io.detach(key(0));
    r.until("detached", |r| r.of(key(0)).detached);
    r.io.detach(key(0));
    r.linger(Duration::from_millis(5));
}

fn lift(r: &mut Reactor, index: u32) -> OwnedFd {
    r.io.lift(key(index));
    r.until("lifted", |r| r.of(key(index)).lifted.is_some());
    r.seen.get_mut(&key(index)).and_then(|seen| seen.lifted.take()).expect("lifted")
}

/// The back ends that a connection can go on with.
fn successors(config: &IoConfig) -> Vec<Reactor> {
    [Backend::Uring, Backend::Epoll].into_iter().filter_map(|kind| make(kind, config)).map(Reactor::new).collect()
}

pub(super) fn lift_gives_the_socket_back_and_loses_nothing(r: &mut Reactor) {
    let bytes = pattern(300_000);
    let mut far = r.connect(key(0));
    let told = bytes.clone();
    let writer = std::thread::spawn(move || {
        far.write_all(&told).expect("write");
        far
    });
    let mut received = Vec::new();
    // Back and forth while the peer talks, also to the other kind of back end and back.
    let mut others = successors(&IoConfig { recv_buffers: 2, recv_buffer_bytes: 256, ..IoConfig::default() });
    let others_len = others.len();
    for round in 0..=2 * others_len {
        r.until("some more", |r| received.len() + r.of(key(0)).received.len() >= (1 + round) * 20_000);
        let socket = lift(r, 0);
        received.append(&mut r.seen.get_mut(&key(0)).expect("seen").received);
        let socket = match others.get_mut(round) {
            Some(other) => {
                other.attach(key(3), socket);
                other.until("some more", |o| o.of(key(3)).received.len() >= 10_000);
                let socket = lift(other, 3);
                received.append(&mut other.seen.get_mut(&key(3)).expect("seen").received);
                socket
            }
            None => socket,
        };
        r.attach_again(key(0), socket);
    }
    r.until("all", |r| received.len() + r.of(key(0)).received.len() == bytes.len());
    received.append(&mut r.seen.get_mut(&key(0)).expect("seen").received);
    assert!(received == bytes);
    let mut far = writer.join().expect("the peer writes");
    r.send(key(0), b"pong");
    r.until("sent", |r| r.of(key(0)).sent.len() == 1);
    assert_eq!(read_exact(&mut far, 4), b"pong");
    r.finish(key(0));
}

pub(super) fn lift_takes_back_what_is_being_sent(r: &mut Reactor) {
    let bytes = pattern(32 << 20);
    for mut other in successors(&IoConfig::default()) {
        let mut far = r.connect(key(0));
        r.io.send(key(0), SendBuf::staging(bytes.clone(), bytes.len())).expect("send");
        r.linger(Duration::from_millis(20));
        assert!(r.of(key(0)).sent.is_empty(), "the socket buffer took 32 MiB");
        let socket = lift(r, 0);
        let (buf, result) = r.seen.get_mut(&key(0)).expect("seen").sent.pop().expect("sent before lifted");
        let gone = result.expect("lifting is no failure");
        assert_eq!(gone + buf.unsent().len(), bytes.len());
        assert!(gone > 0 && !buf.unsent().is_empty());
        assert!(r.io.send(key(0), SendBuf::staging(vec![1], 1)).is_err(), "it is not attached");
        other.attach(key(7), socket);
        other.io.send(key(7), buf).expect("send");
        let length = bytes.len();
        let reader = std::thread::spawn(move || read_exact(&mut far, length));
        other.until("the rest", |o| !o.of(key(7)).sent.is_empty());
        assert!(reader.join().expect("the peer reads") == bytes, "in order, nothing twice");
        other.finish(key(7));
        r.seen.clear();
    }
}

pub(super) fn lift_leaves_an_end_to_be_found(r: &mut Reactor) {
    for (index, mut other) in (0..).zip(successors(&IoConfig::default())) {
        let mut far = r.connect(key(index));
        far.write_all(b"last").expect("write");
        drop(far);
        let socket = lift(r, index);
        let here = r.of(key(index)).received.clone();
        other.attach(key(1), socket);
        other.until("the end", |o| o.of(key(1)).closed.is_some());
        assert_eq!([here, other.of(key(1)).received.clone()].concat(), b"last");
        assert!(r.of(key(index)).closed.is_none() || r.of(key(index)).closed == Some(None));
        other.finish(key(1));
    }
    // One that is let go of afterwards is gone, and one that is not there is nothing.
    let _far = r.connect(key(9));
    r.io.lift(key(9));
    r.detach(key(9));
    r.until("it is over", |r| r.of(key(9)).detached || r.of(key(9)).lifted.is_some());
    r.io.lift(ConnKey { index: 77, generation: 1 });
    r.linger(Duration::from_millis(5));
}

pub(super) fn lift_of_what_is_paused_or_starved(r: &mut Reactor) {
    let (mut fars, mut got) = (Vec::new(), Vec::new());
    for index in 0..3 {
        fars.push(r.connect(key(index)));
    }
    r.io.pause(key(0));
    // The only buffer is kept: the others have none.
    r.hold = true;
    for far in &mut fars {
        far.write_all(&pattern(200)).expect("write");
    }
    r.until("the buffer is used", |r| !r.held.is_empty());
    r.linger(Duration::from_millis(10));
    let sockets: Vec<_> = (0..3).map(|index| lift(r, index)).collect();
    r.hold = false;
    r.recycle_held();
    for (index, socket) in (0..).zip(sockets) {
        got.push(std::mem::take(&mut r.seen.get_mut(&key(index)).expect("seen").received));
        r.attach_again(key(index), socket);
    }
    for (index, got) in (0..).zip(&mut got) {
        r.until("the rest", |r| got.len() + r.of(key(index)).received.len() == 200);
        got.append(&mut r.seen.get_mut(&key(index)).expect("seen").received);
        assert!(*got == pattern(200));
        r.finish(key(index));
    }
}
