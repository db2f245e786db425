//! What an operator sees: the numbers of a client and of a reactor belong together, and say what has happened.

#![cfg(not(loom))]

mod common;

use common::*;
use ringback::{
    Builder, ClientReport, Done, Ending, FlightStep, Hooks, LatencyStage, Outcome, OutcomeKind, PathState, Prepare,
    ReactorReport, Requeue, Run, Runtime, Snapshot, TryRun,
};
use ringback_rpc::nfs4::Status;
use ringback_rpc::xdr::{self, Writer};
use std::collections::{BTreeMap, HashSet};
use std::net::TcpStream;
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

const RUNS: u64 = 200;

/// Every number that can be had in two ways is had in both.
fn assert_coherent(snapshot: &Snapshot) {
    for client in &snapshot.clients {
        let ClientReport { counters, census, sessions, .. } = client;
        let waiting = census.queued + census.delayed + census.sent;
        assert_eq!(counters.started, counters.completed + waiting, "{client:?}");
        let endings: u64 = OutcomeKind::ALL.iter().map(|kind| counters.ended(*kind)).sum();
        let requeues: u64 = Requeue::ALL.iter().map(|why| counters.requeued_for(*why)).sum();
        assert_eq!((endings, requeues), (counters.completed, counters.requeued));
        assert_eq!(census.slots, sessions.iter().map(|session| u64::from(session.slots)).sum::<u64>());
    }
    for reactor in &snapshot.reactors {
        let ReactorReport { stats, counters, endings, census, .. } = reactor;
        let same = [
            (stats.completed, counters.completed),
            (stats.requeued, counters.requeued),
            (stats.resent, counters.resent),
            (stats.calls_sent, counters.calls_sent),
            (stats.callbacks_sent, counters.callbacks_sent),
            (stats.resynchronised, counters.resynchronised),
            (stats.completed, endings.iter().map(|(_, count)| count).sum()),
            (counters.started, counters.completed + census.queued + census.delayed + census.sent),
        ];
        same.iter().for_each(|(a, b)| assert_eq!(a, b, "{reactor:?}"));
    }
}

fn of(runtime: &Runtime) -> (ReactorReport, ClientReport) {
    let Snapshot { mut reactors, mut clients, .. } = runtime.snapshot(0).unwrap();
    (reactors.remove(0), clients.remove(0))
}

/// Answers until the connection ends: NFS4ERR_DELAY to every tenth cookie once, NFS4ERR_BAD_STATEID to cookie 7.
fn answer(mut stream: TcpStream) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let (mut slots, mut delayed) = (SlotIds::default(), HashSet::new());
        while let Some(call) = read_record(&mut stream) {
            let status = |cookie: u64| match cookie {
                7 => Status::NFS4ERR_BAD_STATEID,
                n if n % 10 == 0 && delayed.insert(n) => Status::NFS4ERR_DELAY,
                _ => Status::NFS4_OK,
            };
            let (_, reply) = answer_recalls(&call, &mut slots, status);
            write_record(&mut stream, &reply);
        }
    })
}

#[test]
fn the_numbers_of_a_client_and_of_a_reactor_belong_together() {
    for mode in modes() {
        let hooks = Arc::new(Counting::default());
        let builder = Builder::new().backend(mode.backend).reactors(1);
        let runtime = builder.build(Arc::clone(&hooks) as _, Arc::new(Deaf)).unwrap();
        let (server, stream) = pair();
        let thread = answer(stream);
        let connection = mode.add_connection(&runtime, server).unwrap();
        let client = runtime.add_client(Some(connection)).unwrap();
        let session = runtime.add_session(client, session_config(1, 4)).unwrap();
        for key in insert_all(&runtime, client, 0..RUNS) {
            assert_eq!(runtime.try_run(key), TryRun::Submitted);
        }
        eventually("all are parked", || of(&runtime).1.census.parked == RUNS);
        runtime.bind(connection, session).unwrap();
        while hooks.released() < RUNS as u32 {
            assert_coherent(&runtime.snapshot(3).unwrap());
        }
        let (reactor, report) = of(&runtime);
        assert_eq!((report.path, report.census.parked, report.census.free), (PathState::Up, 0, 4));
        let counters = report.counters;
        assert_eq!((counters.started, counters.completed, counters.delays), (RUNS, RUNS, RUNS / 10));
        assert_eq!((counters.ended(OutcomeKind::Ok), counters.ended(OutcomeKind::Failed)), (RUNS - 1, 1));
        assert_eq!(counters.requeued_for(Requeue::Delay), RUNS / 10);
        let only = runtime.inspect_client(client, 0).unwrap();
        assert_eq!(
            (&only, Some(reactor.stats.started)),
            (&report, runtime.reactor_stats(0).map(|stats| stats.started))
        );
        let endings = [(Ending::Replied(Status::NFS4_OK), RUNS - 1), (Ending::Replied(Status::NFS4ERR_BAD_STATEID), 1)];
        assert_eq!(reactor.endings, endings);
        // A client that is gone leaves its numbers with the reactor.
        runtime.remove_client(client).unwrap();
        eventually("the client is forgotten", || runtime.inspect(0).unwrap().is_empty());
        assert_eq!(runtime.inspect_client(client, 0), Err(ringback::Error::NoSuchClient));
        let snapshot = runtime.snapshot(0).unwrap();
        assert_coherent(&snapshot);
        assert_eq!(snapshot.reactors[0].counters, counters);
        runtime.shutdown(Duration::from_secs(5)).unwrap();
        thread.join().unwrap();
    }
}

#[test]
fn what_no_client_answers_is_counted_as_such() {
    let hooks = Arc::new(Counting::default());
    let builder = Builder::new().reactors(1).lease(Duration::from_secs(1)).run_deadline(Duration::from_millis(100));
    let runtime = builder.build(Arc::clone(&hooks) as _, Arc::new(Deaf)).unwrap();
    let (server, stream) = pair();
    let connection = runtime.add_connection(server).unwrap();
    let client = runtime.add_client(Some(connection)).unwrap();
    let session = runtime.add_session(client, session_config(1, 2)).unwrap();
    runtime.bind(connection, session).unwrap();
    for key in insert_all(&runtime, client, 0..5) {
        assert_eq!(runtime.try_run(key), TryRun::Submitted);
    }
    eventually("all have timed out", || hooks.released() == 5);
    let (reactor, report) = of(&runtime);
    let timed_out = |kind| report.counters.ended(kind);
    assert_eq!((timed_out(OutcomeKind::TimedOut), timed_out(OutcomeKind::TimedOutUnsent)), (2, 3));
    assert_eq!((report.census.quarantined, reactor.stats.timed_out), (2, 5));
    assert_coherent(&runtime.snapshot(0).unwrap());
    drop(stream);
    runtime.shutdown(Duration::ZERO).unwrap();
}

/// A small reader of Prometheus' text format, which is stricter than Prometheus: the samples by name and labels, and the
/// type of each metric.
fn read_metrics(text: &str) -> (BTreeMap<String, f64>, BTreeMap<String, String>) {
    let (mut samples, mut types) = (BTreeMap::new(), BTreeMap::new());
    let (mut metric, mut helped) = (String::new(), HashSet::new());
    assert!(text.ends_with('\n'));
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            assert!(!help.is_empty() && helped.insert(name.to_owned()), "{line}: HELP comes once");
            metric = name.to_owned();
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert_eq!(name, metric, "TYPE follows HELP, and the samples follow");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            assert!(types.insert(name.to_owned(), kind.to_owned()).is_none());
        } else {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            let of_histogram = ["_bucket", "_sum", "_count"].iter().any(|end| name.strip_suffix(end) == Some(&*metric));
            assert!(name == metric || of_histogram && types[&metric] == "histogram", "{line} is a sample of {metric}");
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{line}");
            assert!(labels.ends_with('}') && !labels.contains('\n'), "{line}");
            assert!(samples.insert(series.to_owned(), value.parse().unwrap()).is_none(), "{line} comes twice");
        }
    }
    (samples, types)
}

#[test]
fn metrics_follow_the_rules_of_the_format() {
    let hooks = Arc::new(Counting::default());
    let runtime = Builder::new().reactors(2).build(Arc::clone(&hooks) as _, Arc::new(Deaf)).unwrap();
    for _ in 0..5 {
        let client = runtime.add_client(None).unwrap();
        for key in insert_all(&runtime, client, 0..3) {
            assert_eq!(runtime.try_run(key), TryRun::Submitted);
        }
    }
    eventually("all are parked", || runtime.census().unwrap().parked == 15);
    let snapshot = runtime.snapshot(1).unwrap();
    // What is not allowed in the value of a label is escaped.
    let text = snapshot.to_prometheus(4, |client| format!("a\\b\"c\nd{:x}", client.to_bits()));
    assert!(text.contains("client=\"a\\\\b\\\"c\\nd"), "{text}");
    let (samples, types) = read_metrics(&text);
    let value = |series: &str| samples[series];
    assert_eq!(value("ringback_started_total{reactor=\"0\"}") + value("ringback_started_total{reactor=\"1\"}"), 15.0);
    assert_eq!((types["ringback_in_flight"].as_str(), types["ringback_runs"].as_str()), ("gauge", "gauge"));
    let named = |name: &str| {
        let of_it = samples.iter().filter(|(series, _)| series.starts_with(name));
        of_it.map(|(_, value)| *value).collect::<Vec<_>>()
    };
    assert_eq!(named("ringback_client_parked{"), [3.0; 4], "no more clients than were asked for");
    let none = snapshot.to_prometheus(0, |_| String::new());
    assert!(!none.contains("_client_") && none.contains("ringback_in_flight"));
    runtime.shutdown(Duration::ZERO).unwrap();
}

/// Whatever can be counted is told of in the book, by its name.
#[test]
fn every_counter_is_documented() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/src/operations.md")).unwrap();
    let told: HashSet<_> = page.split('`').skip(1).step_by(2).collect();
    let hooks = Arc::new(Counting::default());
    let runtime = Builder::new().reactors(1).latency(true).build(Arc::clone(&hooks) as _, Arc::new(Deaf)).unwrap();
    runtime.add_client(None).unwrap();
    let (_, types) = read_metrics(&runtime.snapshot(1).unwrap().to_prometheus(1, |_| "client".to_owned()));
    runtime.shutdown(Duration::ZERO).unwrap();
    let metrics = types.keys().map(|name| {
        let name = name.trim_start_matches("ringback_").trim_start_matches("client_");
        name.trim_end_matches("_total").to_owned()
    });
    let kinds = OutcomeKind::ALL.iter().map(|kind| kind.name()).chain(Requeue::ALL.iter().map(|why| why.name()));
    let kinds = kinds.chain(LatencyStage::ALL.iter().map(|stage| stage.name()));
    let kinds = kinds.chain(FlightStep::ALL.iter().flat_map(|step| [step.name(), step.event()]));
    let missing: Vec<_> =
        metrics.chain(kinds.map(str::to_owned)).filter(|name| !told.contains(name.as_str())).collect();
    assert!(missing.is_empty(), "docs/src/operations.md does not tell of {missing:?}");
}

/// A client with one session on one connection, and callbacks for it.
fn one_client(runtime: &Runtime, slots: u32, cookies: std::ops::Range<u64>) -> (TcpStream, Vec<ringback::CallbackKey>) {
    let (server, stream) = pair();
    let connection = runtime.add_connection(server).unwrap();
    let client = runtime.add_client(Some(connection)).unwrap();
    let session = runtime.add_session(client, session_config(1, slots)).unwrap();
    runtime.bind(connection, session).unwrap();
    (stream, insert_all(runtime, client, cookies))
}

#[test]
fn latencies_tell_where_the_time_went() {
    const SLOW: Duration = Duration::from_millis(30);
    let hooks = Arc::new(Counting::default());
    let runtime = Builder::new().reactors(1).latency(true).build(Arc::clone(&hooks) as _, Arc::new(Deaf)).unwrap();
    let (mut stream, keys) = one_client(&runtime, 1, 0..3);
    keys.iter().for_each(|key| assert_eq!(runtime.try_run(*key), TryRun::Submitted));
    let mut slots = SlotIds::default();
    for _ in 0..3 {
        let call = read_record(&mut stream).unwrap();
        std::thread::sleep(SLOW);
        write_record(&mut stream, &answer_recall(&call, &mut slots, Status::NFS4_OK).1);
    }
    eventually("all are released", || hooks.released() == 3);
    let snapshot = runtime.snapshot(0).unwrap();
    let all = snapshot.latencies();
    let of = |stage| all.iter().find(|l| (l.class(), l.stage()) == ("recall", stage)).unwrap();
    assert!(LatencyStage::ALL.iter().all(|stage| of(*stage).count() == 3));
    assert_eq!(all.iter().map(|latency| latency.count()).sum::<u64>(), 12, "other classes have none");
    // One slot: each waits for those before it, and is answered after a while.
    assert!(of(LatencyStage::Wire).quantile(0.0) >= SLOW * 9 / 10, "{:?}", of(LatencyStage::Wire));
    assert!(of(LatencyStage::Unsent).max() >= 2 * SLOW * 9 / 10 && of(LatencyStage::Done).max() >= 3 * SLOW * 9 / 10);
    assert!(of(LatencyStage::Done).sum() >= of(LatencyStage::Wire).sum());
    let (samples, types) = read_metrics(&snapshot.to_prometheus(0, |_| String::new()));
    assert_eq!(types["ringback_latency_seconds"], "histogram");
    let mut before = 0.0;
    for le in ["0.0001", "0.001", "0.01", "0.1", "1", "60", "+Inf"] {
        let count = samples[&format!("ringback_latency_seconds_bucket{{class=\"recall\",stage=\"wire\",le=\"{le}\"}}")];
        assert!(count >= before, "buckets are cumulative");
        before = count;
    }
    assert_eq!(before, samples["ringback_latency_seconds_count{class=\"recall\",stage=\"wire\"}"]);
    runtime.shutdown(Duration::from_secs(5)).unwrap();
    // Nobody pays for what was not asked for.
    let runtime = Builder::new().reactors(1).build(Arc::clone(&hooks) as _, Arc::new(Deaf)).unwrap();
    assert!(runtime.snapshot(0).unwrap().latencies().is_empty() && runtime.flight_record().entries.is_empty());
}

#[test]
fn the_flight_recorder_tells_the_life_of_a_callback() {
    let hooks = Arc::new(Counting::default());
    let builder = Builder::new().reactors(1).flight_records(100);
    let runtime = builder.build(Arc::clone(&hooks) as _, Arc::new(Deaf)).unwrap();
    let (mut stream, keys) = one_client(&runtime, 2, 5..6);
    assert_eq!(runtime.try_run(keys[0]), TryRun::Submitted);
    let call = read_record(&mut stream).unwrap();
    write_record(&mut stream, &answer_recall(&call, &mut SlotIds::default(), Status::NFS4ERR_BAD_STATEID).1);
    eventually("it is released", || hooks.released() == 1);
    drop(stream);
    let steps = || runtime.flight_record().entries.into_iter().map(|e| (e.step(), e.detail())).collect::<Vec<_>>();
    use ringback::FlightStep::*;
    let expected = [
        (Path, Some("up")),
        (Bound, None),
        (Queued, None),
        (Sent, None),
        (Answered, Some("NFS4_OK")),
        (SlotFreed, None),
        (Done, Some("NFS4ERR_BAD_STATEID")),
        (Released, None),
        (Lost, None),
        (Path, Some("down")),
    ];
    eventually("the connection is lost", || steps().len() == expected.len());
    assert_eq!(steps(), expected);
    let record = runtime.flight_record();
    let sent = record.entries.iter().find(|e| e.step() == Sent).unwrap();
    let xid = u32::from_be_bytes(call[..4].try_into().unwrap());
    assert_eq!((sent.key(), sent.reactor(), sent.call().map(|c| (c.1, c.2))), (Some(keys[0]), 0, Some((0, xid))));
    assert!(record.entries.iter().all(|e| e.at_ns() <= record.now_ns && e.client().is_some()));
    let lines = record.to_json_lines();
    assert!(lines.starts_with("{\"ringback_flight\":1,\"now_ns\":"), "{lines}");
    assert!(lines.contains(",\"op\":\"CB_RECALL\",\"detail\":\"NFS4ERR_BAD_STATEID\"}\n"), "{lines}");
    runtime.shutdown(Duration::ZERO).unwrap();
    assert!(steps().contains(&(Draining, None)), "it can be read when all is over");
}

#[test]
fn the_flight_record_of_a_reactor_that_hangs_can_be_read() {
    let hooks = Arc::new(Stuck::default());
    let builder = Builder::new().reactors(1).flight_records(16);
    let runtime = builder.build(Arc::clone(&hooks) as _, Arc::new(Deaf)).unwrap();
    let (_stream, keys) = one_client(&runtime, 1, 0..1);
    assert_eq!(runtime.try_run(keys[0]), TryRun::Submitted);
    let last = || runtime.flight_record().entries.last().map(|entry| (entry.step(), entry.key()));
    eventually("it hangs in a hook", || last() == Some((FlightStep::Queued, Some(keys[0]))));
    assert_eq!(runtime.drain(Duration::ZERO).unwrap().in_flight, 1, "a drain does not end");
    assert_eq!(last(), Some((FlightStep::Queued, Some(keys[0]))), "this is why");
    drop(hooks.held.lock().unwrap().take());
    eventually("it goes on", || runtime.stats().in_flight == 0);
}

/// An embedder whose `prepare` does not return before it is allowed to.
struct Stuck {
    held: Mutex<Option<mpsc::Sender<()>>>,
    until: Mutex<mpsc::Receiver<()>>,
}

impl Default for Stuck {
    fn default() -> Self {
        let (held, until) = mpsc::channel();
        Stuck { held: Mutex::new(Some(held)), until: Mutex::new(until) }
    }
}

impl Hooks for Stuck {
    fn prepare(&self, _: &Run) -> Prepare {
        // Ends when the sender is dropped.
        let _ = self.until.lock().unwrap().recv();
        Prepare::Refuse
    }

    fn encode(&self, _: &Run, _: &mut Writer<'_>) -> xdr::Result<()> {
        unreachable!("nothing is sent")
    }

    fn done(&self, _: &Run, _: &Outcome<'_>) -> Done {
        Done::Finish
    }
}
