//! Many clients at once.

use crate::bench::*;
use ringback::{Builder, CallbackOp, ClientLimits, Outbound, Remove, Transport, TryRun};
use ringback_rpc::nfs4::Status;
use ringback_rpc::record::RecordReader;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

const READERS: u64 = 10_000;

/// One of many connections; all of them lead to the same thread.
struct Shared(u64, Sender<(u64, Vec<u8>)>);

impl Transport for Shared {
    fn send(&mut self, outbound: Outbound) {
        let _ = self.1.send((self.0, outbound.bytes().to_vec()));
        outbound.complete(Ok(()));
    }
    fn close(&mut self) {}
}

/// The server knows that this client breaks on concurrent recalls; another one is not held back by that.
#[test]
fn t24_a_client_with_a_quirk_gets_a_thousand_recalls_one_by_one() {
    let bench = Bench::with(Builder::new().reactors(1).client_limits(ClientLimits::default().calls_max(2)));
    let (mut line, client, _) = bench.client(16);
    bench.runtime.set_client_limits(client, ClientLimits::default().calls_max(1)).unwrap();
    let (mut other, normal, _) = bench.client(16);
    for cookie in 0..1000 {
        bench.recall(client, cookie);
    }
    let first = line.call();
    line.quiet();
    for cookie in 1000..1003 {
        bench.recall(normal, cookie);
    }
    let two = [other.call(), other.call()];
    other.quiet();
    two.iter().for_each(|call| other.ok(call));
    assert_eq!(other.serve(), 1002);
    line.ok(&first);
    for cookie in 1..1000 {
        let call = line.call();
        assert_eq!((call.cookie(), call.slot), (cookie, 0));
        line.ok(&call);
    }
    bench.until_idle();
    bench.assert_slots_free();
}

/// A rate holds callbacks back and loses none.
#[test]
fn t24_a_rate_spaces_callbacks_out() {
    let bench = Bench::new();
    let (mut line, client, _) = bench.client(16);
    bench.runtime.set_client_limits(client, ClientLimits::default().rate_max(5)).unwrap();
    let begun = Instant::now();
    for cookie in 0..4 {
        bench.recall(client, cookie);
    }
    let cookies: Vec<_> = (0..4).map(|_| line.serve()).collect();
    assert_eq!(cookies, [0, 1, 2, 3]);
    assert!(begun.elapsed() >= Duration::from_millis(600), "never early");
    bench.until_idle();
}

#[test]
fn t25_of_ten_thousand_readers_of_one_file_a_dead_one_delays_nobody() {
    const DEAD: u64 = 4321;
    // No timeout comes to anybody's help within the patience of this test.
    let bench = Bench::with(Builder::new().reactors(2).lease(Duration::from_secs(1_000)));
    let (sender, sends) = channel();
    let mut connections = Vec::new();
    let mut keys = Vec::new();
    for reader in 0..READERS {
        let connection = bench.runtime.add_transport(Box::new(Shared(reader, sender.clone()))).unwrap();
        let client = bench.runtime.add_client(Some(connection)).unwrap();
        let session = bench.runtime.add_session(client, session_config(1, 4)).unwrap();
        bench.runtime.bind(connection, session).unwrap();
        connections.push(connection);
        keys.push(bench.insert(client, CallbackOp::Recall, reader));
    }
    let answered = Arc::new(AtomicU64::new(0));
    let (runtime, count) = (bench.runtime.clone(), Arc::clone(&answered));
    let clients = std::thread::spawn(move || {
        for (reader, bytes) in sends {
            let mut records = RecordReader::new(1 << 20);
            let mut input = &bytes[..];
            while let Some(record) = records.next(&mut input).unwrap() {
                let call = Called::parse(&record);
                assert_eq!(call.cookie(), reader);
                if reader != DEAD {
                    runtime.receive(connections[reader as usize], call.status(Status::NFS4_OK));
                    count.fetch_add(1, SeqCst);
                }
            }
        }
    });
    // The writer's OPEN: one conflict, one call, ten thousand recalls, the dead one's among the first half.
    let group = bench.runtime.try_run_many(&keys, |_, asked| assert_eq!(asked, TryRun::Submitted)).unwrap();
    bench.until("all but one have answered", |b| b.runtime.stats().in_flight == 1);
    assert_eq!(answered.load(SeqCst), READERS - 1);
    for reader in (0..READERS).filter(|reader| *reader != DEAD) {
        bench.assert_ended_once(reader, "Replied");
        assert_eq!(bench.runtime.remove(keys[reader as usize]), Remove::Removed);
    }
    assert_eq!(group.settled(), None, "the writer waits for the dead one, and nobody else does");
    // 16 bytes for each callback that is waited for, in blocks, and the directory of these.
    let memory = bench.runtime.memory().unwrap().groups;
    assert!((READERS as usize * 16..READERS as usize * 16 + 150_000).contains(&memory), "{memory} bytes");
    let report = bench.runtime.drain(Duration::from_millis(50)).unwrap();
    assert_eq!((&report.abandoned[..], report.in_flight), (&[keys[DEAD as usize]][..], 0));
    bench.assert_ended_once(DEAD, "Cancelled { sent: true }");
    let settled = group.settled().expect("a drain settles every group");
    assert_eq!((settled.returned, settled.overdue, settled.failed), (READERS as u32 - 1, 0, 1));
    bench.runtime.shutdown(Duration::ZERO).unwrap();
    drop(sender);
    drop(bench);
    clients.join().unwrap();
}
