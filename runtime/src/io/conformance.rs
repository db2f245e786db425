//! One suite for both back ends, over real loopback sockets: whatever passes here is the behaviour of [`super::Io`].

mod connect;
pub(crate) mod harness;
mod letting_go;

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use self::connect::*;
use self::harness::{PATIENCE, Reactor, Tracked, key, make, pair, pattern, read_exact, reset};
use self::letting_go::*;
use super::{Backend, ConnKey, IoConfig, RecvBuf, SendBuf, Wait};

/// Makes each scenario a test of both back ends, with its own sizes if it has any.
macro_rules! scenarios {
    ($($name:ident $(($($field:ident: $value:expr),+))?),+ $(,)?) => {
        mod uring {
            $(#[test] fn $name() { super::run(super::Backend::Uring, super::config!($($($field: $value),+)?), super::$name); })+
        }
        mod epoll {
            $(#[test] fn $name() { super::run(super::Backend::Epoll, super::config!($($($field: $value),+)?), super::$name); })+
        }
    };
}

macro_rules! config {
    ($($field:ident: $value:expr),*) => { super::super::IoConfig { $($field: $value,)* ..Default::default() } };
}
use config;

scenarios! {
    echoes_in_order,
    echoes_with_tiny_queues(submission_entries: 1, completion_entries: 2, recv_buffers: 2, recv_buffer_bytes: 512),
    splits_at_the_size_of_a_buffer(recv_buffer_bytes: 100),
    keeps_sending_after_a_half_close,
    reports_a_reset_once,
    reports_a_failed_send_and_the_end,
    reports_the_end_of_a_paused_connection_when_a_send_fails,
    detach_gives_back_the_send_in_flight,
    detach_silences_a_talking_peer,
    detach_twice_and_of_strangers_does_nothing,
    lift_gives_the_socket_back_and_loses_nothing(recv_buffers: 2, recv_buffer_bytes: 256),
    lift_takes_back_what_is_being_sent,
    lift_leaves_an_end_to_be_found,
    lift_of_what_is_paused_or_starved(recv_buffers: 1, recv_buffer_bytes: 64),
    pause_stops_and_resume_continues,
    flapping_pauses_lose_nothing,
    starves_without_buffers_and_recovers(recv_buffers: 4, recv_buffer_bytes: 1024),
    shares_few_buffers_among_many(recv_buffers: 2, recv_buffer_bytes: 256),
    wakes_from_another_thread,
    wakes_before_the_wait,
    wakes_though_a_socket_is_full,
    wakes_amid_traffic(submission_entries: 1, completion_entries: 2, recv_buffers: 2, recv_buffer_bytes: 512),
    many_wakes_do_not_linger,
    waits_until_the_deadline,
    an_index_is_reused_by_the_next_generation,
    opens_and_closes_thousands,
    sends_megabytes,
    refuses_a_second_send_and_strangers,
    refuses_what_it_cannot_attach,
    takes_unix_sockets,
    a_flood_leaves_time_for_others,
    drops_with_everything_in_flight,
    recycling_a_stranger_does_nothing,
    connects_over_both_kinds_of_address,
    connects_and_is_refused(submission_entries: 1, completion_entries: 2),
    detach_ends_an_attempt_to_connect,
    connects_thousands_of_times_without_a_descriptor_left,
    drops_while_connecting,
    refuses_what_it_cannot_connect,
}

fn run(backend: Backend, config: IoConfig, scenario: fn(&mut Reactor)) {
    if let Some(io) = make(backend, &config) {
        scenario(&mut Reactor::new(io));
    }
}

fn echoes_in_order(r: &mut Reactor) {
    let mut far = r.connect(key(0));
    let bytes = pattern(40_000);
    let mut echoed = 0;
    for chunk in bytes.chunks(1111) {
        far.write_all(chunk).expect("write");
        r.until("arrived", |r| r.of(key(0)).received.len() == echoed + chunk.len());
        let back = r.of(key(0)).received[echoed..].to_vec();
        r.send(key(0), &back);
        let sent = r.of(key(0)).sent.len();
        r.until("sent", |r| r.of(key(0)).sent.len() == sent + 1);
        echoed += chunk.len();
        assert_eq!(read_exact(&mut far, chunk.len()), chunk);
    }
    assert_eq!(r.of(key(0)).received, bytes);
    assert!(r.of(key(0)).sent.iter().all(|(buf, result)| buf.unsent().is_empty() && result.is_ok()));
    let counters = r.io.counters();
    assert_eq!((counters.sent_bytes, counters.received_bytes), (40_000, 40_000));
    assert_eq!(counters.sends, bytes.chunks(1111).len() as u64);
    drop(far);
    r.until("the end", |r| r.of(key(0)).closed == Some(None));
    r.finish(key(0));
}

fn echoes_with_tiny_queues(r: &mut Reactor) {
    let mut fars: Vec<_> = (0..20).map(|i| r.connect(key(i))).collect();
    for round in 1..=20 {
        for far in &mut fars {
            far.write_all(&[round; 100]).expect("write");
        }
        let len = usize::from(round) * 100;
        r.until("arrived", |r| (0..20).all(|i| r.of(key(i)).received.len() == len));
        for i in 0..20 {
            let mut buf = Some(SendBuf::staging(vec![round; 50], 50));
            r.until("queued", |r| match r.io.send(key(i), buf.take().expect("given back")) {
                Ok(()) => true,
                Err(back) => {
                    buf = Some(back);
                    false
                }
            });
        }
        for far in &mut fars {
            // The bytes are read while the reactor turns.
            far.set_nonblocking(true).expect("nonblocking");
            let mut got = Vec::new();
            r.until("echoed", |_| {
                let mut some = [0; 50];
                match far.read(&mut some) {
                    Ok(len) => got.extend_from_slice(&some[..len]),
                    Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
                }
                got.len() == 50
            });
            assert_eq!(got, [round; 50]);
            far.set_nonblocking(false).expect("blocking");
        }
        r.until("all sends ended", |r| (0..20).all(|i| r.of(key(i)).sent.len() == usize::from(round)));
    }
    for i in 0..20 {
        r.detach(key(i));
    }
    r.until("detached", |r| (0..20).all(|i| r.of(key(i)).detached));
}

fn splits_at_the_size_of_a_buffer(r: &mut Reactor) {
    let mut far = r.connect(key(0));
    let bytes = pattern(10_050);
    far.write_all(&bytes).expect("write");
    drop(far);
    r.until("the end", |r| r.of(key(0)).closed.is_some());
    assert_eq!(r.of(key(0)).received, bytes);
    assert!(r.io.counters().receives >= 101);
}

fn keeps_sending_after_a_half_close(r: &mut Reactor) {
    let mut far = r.connect(key(0));
    far.write_all(b"last words").expect("write");
    far.shutdown(Shutdown::Write).expect("shutdown");
    r.until("the end", |r| r.of(key(0)).closed == Some(None));
    assert_eq!(r.of(key(0)).received, b"last words");
    r.send(key(0), b"farewell");
    r.until("sent", |r| !r.of(key(0)).sent.is_empty());
    assert!(matches!(r.of(key(0)).sent[0].1, Ok(8)));
    r.finish(key(0));
    let mut got = Vec::new();
    far.read_to_end(&mut got).expect("the end");
    assert_eq!(got, b"farewell");
}

fn reports_a_reset_once(r: &mut Reactor) {
    let far = r.connect(key(0));
    r.linger(Duration::from_millis(5));
    reset(far);
    r.until("the end", |r| r.of(key(0)).closed.is_some());
    assert_eq!(r.of(key(0)).closed, Some(Some(ErrorKind::ConnectionReset)));
    r.send(key(0), b"too late");
    r.until("the send ended", |r| !r.of(key(0)).sent.is_empty());
    let (buf, result) = &r.of(key(0)).sent[0];
    assert_eq!(result.as_ref().expect_err("nobody is there").kind(), ErrorKind::BrokenPipe);
    assert_eq!(buf.unsent(), b"too late");
    r.linger(Duration::from_millis(5));
    r.finish(key(0));
}

fn reports_a_failed_send_and_the_end(r: &mut Reactor) {
    // A Unix socket whose peer refuses to read: sends fail, but no end of receiving would ever come by itself.
    let (near, far) = UnixStream::pair().expect("pair");
    r.attach(key(0), near);
    r.linger(Duration::from_millis(5));
    far.shutdown(Shutdown::Read).expect("shutdown");
    r.send(key(0), b"nobody listens");
    r.until("the end", |r| r.of(key(0)).closed.is_some());
    assert_eq!(r.of(key(0)).closed, Some(Some(ErrorKind::BrokenPipe)));
    assert_eq!(r.of(key(0)).sent.len(), 1);
    assert!(r.of(key(0)).sent[0].1.is_err());
    r.finish(key(0));
}

fn reports_the_end_of_a_paused_connection_when_a_send_fails(r: &mut Reactor) {
    let far = r.connect(key(0));
    r.io.pause(key(0));
    r.linger(Duration::from_millis(10));
    reset(far);
    r.linger(Duration::from_millis(10));
    assert_eq!(r.of(key(0)).closed, None);
    r.send(key(0), b"too late");
    r.until("the end", |r| r.of(key(0)).closed.is_some());
    assert!(r.of(key(0)).sent[0].1.is_err());
    r.io.resume(key(0));
    r.linger(Duration::from_millis(10));
    r.finish(key(0));
}

fn pause_stops_and_resume_continues(r: &mut Reactor) {
    let mut far = r.connect(key(0));
    r.io.pause(key(0));
    r.linger(Duration::from_millis(10));
    far.write_all(&pattern(5000)).expect("write");
    r.linger(Duration::from_millis(30));
    assert_eq!(r.of(key(0)).received, b"");
    r.send(key(0), b"still sending");
    assert_eq!(
        {
            r.until("sent", |r| r.of(key(0)).sent.len() == 1);
            read_exact(&mut far, 13)
        },
        b"still sending"
    );
    r.io.resume(key(0));
    r.until("arrived", |r| r.of(key(0)).received.len() == 5000);
    assert_eq!(r.of(key(0)).received, pattern(5000));
    r.io.pause(key(0));
    r.linger(Duration::from_millis(10));
    drop(far);
    r.linger(Duration::from_millis(10));
    assert_eq!(r.of(key(0)).closed, None);
    r.io.resume(key(0));
    r.until("the end", |r| r.of(key(0)).closed == Some(None));
}

fn flapping_pauses_lose_nothing(r: &mut Reactor) {
    let mut far = r.connect(key(0));
    let writer = std::thread::spawn(move || far.write_all(&pattern(4 << 20)).expect("write"));
    let mut flaps = 0;
    r.until("the end", |r| {
        flaps += 1;
        match flaps % 7 {
            0 => r.io.pause(key(0)),
            1 | 3 => r.io.resume(key(0)),
            2 => {
                r.io.pause(key(0));
                r.io.resume(key(0));
                r.io.pause(key(0));
            }
            _ => {}
        }
        if flaps % 7 == 6 {
            r.io.resume(key(0));
        }
        r.of(key(0)).closed.is_some()
    });
    writer.join().expect("writer");
    assert_eq!(r.of(key(0)).closed, Some(None));
    assert!(r.of(key(0)).received == pattern(4 << 20), "bytes were lost, doubled or moved");
}

fn starves_without_buffers_and_recovers(r: &mut Reactor) {
    let mut far = r.connect(key(0));
    let mut other = r.connect(key(1));
    r.hold = true;
    let bytes = pattern(64 << 10);
    far.write_all(&bytes).expect("write");
    r.until("every buffer is lent out", |r| r.held.len() == 4);
    other.write_all(b"me too").expect("write");
    r.linger(Duration::from_millis(30));
    assert_eq!(r.held.len(), 4);
    assert_eq!(r.of(key(0)).received.len(), 4096);
    assert!(r.io.counters().starvations > 0);
    assert!(r.io.counters().starvations < 10, "a starved connection tries again and again");
    for _ in 0..2 {
        r.recycle_held();
        r.until("every buffer again", |r| r.held.len() == 4);
    }
    assert_eq!(r.of(key(1)).received, b"me too", "the one that starved has its turn");
    r.hold = false;
    r.recycle_held();
    r.until("the rest", |r| r.of(key(0)).received.len() == bytes.len());
    assert_eq!(r.of(key(0)).received, bytes);
    drop(far);
    r.until("the end", |r| r.of(key(0)).closed == Some(None));
}

fn shares_few_buffers_among_many(r: &mut Reactor) {
    let mut fars: Vec<_> = (0..50).map(|i| r.connect(key(i))).collect();
    for far in &mut fars {
        far.write_all(&pattern(3000)).expect("write");
        far.shutdown(Shutdown::Write).expect("shutdown");
    }
    r.until("all ends", |r| (0..50).all(|i| r.of(key(i)).closed == Some(None)));
    assert!((0..50).all(|i| r.of(key(i)).received == pattern(3000)));
}

/// Waits for a wake, not for a deadline.
fn woken(r: &mut Reactor, before: u64) {
    let deadline_ns = r.io.now_ns() + PATIENCE.as_nanos() as u64;
    while r.io.counters().wakes == before {
        assert!(r.io.now_ns() < deadline_ns, "the wake is lost");
        r.turn(Wait::Until(deadline_ns));
    }
}

fn wakes_from_another_thread(r: &mut Reactor) {
    let waker = r.io.waker();
    let thread = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(20));
        waker.wake();
        Instant::now()
    });
    let before = r.io.counters().wakes;
    while r.io.counters().wakes == before {
        r.turn(Wait::Forever);
    }
    let woken = Instant::now();
    assert!(woken.saturating_duration_since(thread.join().expect("waker")) < Duration::from_secs(5));
    assert_eq!(r.io.counters().wakes, before + 1);
}

fn wakes_before_the_wait(r: &mut Reactor) {
    for _ in 0..100 {
        let before = r.io.counters().wakes;
        r.io.waker().wake();
        woken(r, before);
    }
}

/// A send that does not complete keeps the reactor from nothing else.
fn wakes_though_a_socket_is_full(r: &mut Reactor) {
    let _far = r.connect(key(0));
    r.send(key(0), &vec![7; 64 << 20]);
    let (waker, before) = (r.io.waker(), r.io.counters().wakes);
    let thread = std::thread::spawn(move || waker.wake());
    woken(r, before);
    thread.join().expect("waker");
    assert!(r.of(key(0)).sent.is_empty(), "the socket buffer took 64 MiB");
    r.finish(key(0));
}

fn wakes_amid_traffic(r: &mut Reactor) {
    let mut fars: Vec<_> = (0..20).map(|i| r.connect(key(i))).collect();
    for round in 1..=50 {
        for far in &mut fars {
            far.write_all(&[1; 30]).expect("write");
        }
        let before = r.io.counters().wakes;
        r.io.waker().wake();
        woken(r, before);
        r.until("arrived", |r| (0..20).all(|i| r.of(key(i)).received.len() == round * 30));
    }
}

fn many_wakes_do_not_linger(r: &mut Reactor) {
    for _ in 0..1000 {
        r.io.waker().wake();
    }
    r.linger(Duration::from_millis(20));
    let before = r.io.counters();
    r.linger(Duration::from_millis(30));
    assert_eq!(r.io.counters().wakes, before.wakes);
    assert!(r.io.counters().syscalls - before.syscalls < 10, "the reactor spins");
}

fn waits_until_the_deadline(r: &mut Reactor) {
    let _far = r.connect(key(0));
    r.linger(Duration::from_millis(5));
    let start_ns = r.io.now_ns();
    let mut turns = 0;
    while r.io.now_ns() < start_ns + 50_000_000 {
        assert_eq!(r.turn(Wait::Until(start_ns + 50_000_000)), 0);
        turns += 1;
    }
    assert!(turns < 5, "{turns} turns in one wait");
    assert!(r.io.now_ns() - start_ns < 5_000_000_000);
    for wait in [Wait::No, Wait::Until(0), Wait::Until(start_ns)] {
        let start = Instant::now();
        r.turn(wait);
        assert!(start.elapsed() < Duration::from_secs(1));
    }
}

fn an_index_is_reused_by_the_next_generation(r: &mut Reactor) {
    let mut old_fars = Vec::new();
    for generation in 0..100 {
        let key = ConnKey { index: 3, generation };
        let mut far = r.connect(key);
        far.write_all(&generation.to_le_bytes()).expect("write");
        if generation % 3 == 0 {
            r.until("arrived", |r| r.of(key).received.len() == 4);
            assert_eq!(r.of(key).received, generation.to_le_bytes());
        }
        let (again, _) = pair();
        assert!(r.io.attach(key, again.into()).is_err(), "attached twice");
        r.finish(key);
        old_fars.push(far);
    }
}

fn opens_and_closes_thousands(r: &mut Reactor) {
    for generation in 0..5 {
        let keys = || (0..400).map(move |index| ConnKey { index, generation });
        let mut fars: Vec<_> = keys().map(|key| r.connect(key)).collect();
        for far in &mut fars {
            far.write_all(b"ping").expect("write");
        }
        r.until("arrived", |r| keys().all(|key| r.of(key).received == b"ping"));
        for key in keys() {
            r.send(key, b"pong");
        }
        r.until("sent", |r| keys().all(|key| r.of(key).sent.len() == 1));
        for (i, mut far) in fars.into_iter().enumerate() {
            assert_eq!(read_exact(&mut far, 4), b"pong");
            if i % 2 == 0 {
                reset(far);
            }
        }
        r.until("the ends", |r| keys().all(|key| r.of(key).closed.is_some()));
        keys().for_each(|key| r.detach(key));
        r.until("detached", |r| keys().all(|key| r.of(key).detached));
    }
}

fn sends_megabytes(r: &mut Reactor) {
    let mut far = r.connect(key(0));
    let drops = Arc::new(AtomicUsize::new(0));
    let reader = std::thread::spawn(move || {
        for _ in 0..8 {
            assert!(read_exact(&mut far, 1 << 20) == pattern(1 << 20), "bytes were lost, doubled or moved");
            std::thread::sleep(Duration::from_millis(2));
        }
    });
    for i in 0..8 {
        let buf = if i % 2 == 0 {
            SendBuf::shared(Box::new(Tracked(pattern(1 << 20), drops.clone())))
        } else {
            SendBuf::staging(pattern(1 << 20), 1 << 20)
        };
        r.io.send(key(0), buf).expect("send");
        r.until("sent", |r| r.of(key(0)).sent.len() == i + 1);
        assert!(matches!(r.of(key(0)).sent[i].1, Ok(len) if len == 1 << 20), "a whole buffer is one send");
    }
    reader.join().expect("reader");
    assert_eq!(drops.load(Ordering::Relaxed), 0);
    r.seen.clear();
    assert_eq!(drops.load(Ordering::Relaxed), 4);
}

fn refuses_a_second_send_and_strangers(r: &mut Reactor) {
    let mut far = r.connect(key(0));
    r.send(key(0), b"first");
    let back = r.io.send(key(0), SendBuf::staging(b"second".to_vec(), 6)).expect_err("one is in flight");
    assert_eq!(back.unsent(), b"second");
    assert!(r.io.send(key(1), back).is_err());
    r.until("sent", |r| r.of(key(0)).sent.len() == 1);
    r.send(key(0), b"second");
    assert_eq!(
        {
            r.until("sent", |r| r.of(key(0)).sent.len() == 2);
            read_exact(&mut far, 11)
        },
        b"firstsecond"
    );
    r.detach(key(0));
    assert!(r.io.send(key(0), SendBuf::staging(b"x".to_vec(), 1)).is_err(), "detached");
    r.until("detached", |r| r.of(key(0)).detached);
}

fn refuses_what_it_cannot_attach(r: &mut Reactor) {
    let (datagrams, _) = UnixDatagram::pair().expect("pair");
    assert_eq!(r.io.attach(key(0), datagrams.into()).expect_err("datagrams").kind(), ErrorKind::InvalidInput);
    let file = OwnedFd::from(std::fs::File::open("/dev/null").expect("open"));
    assert!(r.io.attach(key(0), file).is_err());
    let (near, _far) = pair();
    assert_eq!(r.io.attach(key(1 << 24), near.into()).expect_err("index").kind(), ErrorKind::InvalidInput);
    let _far = r.connect(key(0));
}

fn takes_unix_sockets(r: &mut Reactor) {
    let (near, mut far) = UnixStream::pair().expect("pair");
    near.set_nonblocking(true).expect("nonblocking");
    r.attach(key(0), near);
    far.write_all(b"ping").expect("write");
    r.until("arrived", |r| r.of(key(0)).received == b"ping");
    r.send(key(0), b"pong");
    r.until("sent", |r| r.of(key(0)).sent.len() == 1);
    let mut got = [0; 4];
    far.read_exact(&mut got).expect("read");
    assert_eq!(&got, b"pong");
    drop(far);
    r.until("the end", |r| r.of(key(0)).closed == Some(None));
    r.finish(key(0));
}

fn a_flood_leaves_time_for_others(r: &mut Reactor) {
    const LOUD: u32 = 100;
    let mut loud: Vec<_> = (0..LOUD).map(|i| r.connect(key(i))).collect();
    let mut quiet = r.connect(key(LOUD));
    let over = Arc::new(AtomicBool::new(false));
    let still = over.clone();
    let writer = std::thread::spawn(move || {
        loud.iter().for_each(|far| far.set_nonblocking(true).expect("nonblocking"));
        while !still.load(Ordering::Relaxed) {
            for far in &mut loud {
                let _ = far.write(&[1; 65536]);
            }
        }
    });
    r.until("the flood", |r| (0..LOUD).all(|i| !r.of(key(i)).received.is_empty()));
    for i in 1..=10 {
        quiet.write_all(b"?").expect("write");
        r.until("heard", |r| r.of(key(LOUD)).received.len() == i);
        let flood: usize =
            (0..LOUD).map(|i| std::mem::take(&mut r.seen.get_mut(&key(i)).expect("seen").received).len()).sum();
        assert!(flood < 256 << 20, "{flood} bytes of the flood before one of the others");
    }
    (0..LOUD).for_each(|i| r.detach(key(i)));
    r.until("detached", |r| (0..LOUD).all(|i| r.of(key(i)).detached));
    over.store(true, Ordering::Relaxed);
    writer.join().expect("writer");
}

fn drops_with_everything_in_flight(r: &mut Reactor) {
    let drops = Arc::new(AtomicUsize::new(0));
    let mut fars: Vec<_> = (0..8).map(|i| r.connect(key(i))).collect();
    r.hold = true;
    for (i, far) in (0..8).zip(&mut fars) {
        far.write_all(b"some bytes").expect("write");
        let bytes = Tracked(vec![i as u8; 32 << 20], drops.clone());
        r.io.send(key(i), SendBuf::shared(Box::new(bytes))).expect("send");
    }
    r.until("received", |r| r.held.len() >= 8);
    assert!((0..8).all(|i| r.of(key(i)).sent.is_empty()));
    // More of each, not submitted any more: a connection, a pause, a resume and a detach.
    let _far = r.connect(key(8));
    r.io.pause(key(0));
    r.io.resume(key(1));
    r.io.detach(key(2));
    let spare = make(Backend::Epoll, &IoConfig::default()).expect("epoll");
    let start = Instant::now();
    drop(std::mem::replace(&mut r.io, spare));
    assert!(start.elapsed() < PATIENCE / 10);
    assert_eq!(drops.load(Ordering::Relaxed), 8, "every buffer is freed");
    r.held.clear();
    for (i, far) in fars.iter_mut().enumerate() {
        let mut got = Vec::new();
        let _ = far.read_to_end(&mut got);
        assert!(got.iter().all(|byte| usize::from(*byte) == i), "freed memory was sent");
    }
}

fn recycling_a_stranger_does_nothing(r: &mut Reactor) {
    assert_eq!(r.io.received(&RecvBuf::new(3, 100)), b"");
    assert_eq!(r.io.received(&RecvBuf::new(u16::MAX, 100)), b"");
    r.io.recycle(RecvBuf::new(3, 100));
    r.io.recycle(RecvBuf::new(u16::MAX, 100));
    let mut far = r.connect(key(0));
    far.write_all(b"as before").expect("write");
    r.until("arrived", |r| r.of(key(0)).received == b"as before");
}
