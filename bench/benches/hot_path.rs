//! Instructions of the hot path, counted by valgrind: a regression check that noise cannot touch.
//!
//! A real reactor runs over a back end that answers each send by the next turn, so that what is counted is the runtime and
//! the core, the embedder's hooks and the mirror that answers, and no kernel.
//!
//!     cargo bench --bench hot_path              # count, and compare with instructions.txt
//!     cargo bench --bench hot_path -- --write   # count, and write instructions.txt
//!     hot_path --run WORK COUNT                 # the work itself, for callgrind and perf
//!
//! Exit status: 0 if nothing has grown beyond the tolerance, 1 if something has, 77 if it cannot be counted here.

use ringback::simulator::{ConnKey, Io, IoCounters, IoEvent, RecvBuf, SendBuf, Simulation, Wait, Wake};
use ringback::{Builder, Call, CallbackKey, CallbackOp, Done, ForeChannel, Hooks, Outcome, Run, Runtime, TryRun};
use ringback_bench::peers::wire::{self, Called, Template};
use ringback_rpc::xdr;
use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

/// Few connections with many session slots each: what is done for each callback.
const FEW: (u32, u32) = (64, 32);
/// Many with few: what is done once for all callbacks of a connection weighs more.
const MANY: (u32, u32) = (1024, 8);
/// Connections that the mirror answers in one turn, as the back ends do.
const ANSWERED_PER_TURN: usize = 32;
/// What a count may grow by. It is exact for one compiler; a new one may differ by more.
const TOLERANCE: f64 = 0.03;
/// The count of the second run is this much larger; the difference of their instructions is that of so many.
const COUNT: u64 = 20_000;
const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instructions.txt");
const SKIPPED: u8 = 77;

/// Does this many of something.
type Work = fn(u64);

/// What is counted, and how often a test does it.
const WORKS: [(&str, Work); 6] = [
    ("callback", callback),
    ("callback_many", callback_many),
    ("callback_measured", callback_measured),
    ("callback_recorded", callback_recorded),
    ("batched", batched),
    ("insert_remove", insert_remove),
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["--run", name, count] => match (WORKS.iter().find(|w| w.0 == *name), count.parse()) {
            (Some((_, work)), Ok(count)) => {
                work(count);
                ExitCode::SUCCESS
            }
            _ => fail(&format!("--run needs one of {}, and a count", WORKS.map(|work| work.0).join(", "))),
        },
        ["--count", name, ..] if WORKS.iter().any(|work| work.0 == *name) => match each(name) {
            Ok(each) => {
                println!("{each:.0}");
                ExitCode::SUCCESS
            }
            Err(why) => fail(&why),
        },
        args if args.contains(&"--bench") => check(args.contains(&"--write")),
        // As a test: that the work is done.
        _ => {
            WORKS.iter().for_each(|(_, work)| work(10_000));
            ExitCode::SUCCESS
        }
    }
}

fn fail(why: &str) -> ExitCode {
    eprintln!("hot_path: {why}");
    ExitCode::FAILURE
}

/// Counts everything, and compares.
fn check(write: bool) -> ExitCode {
    let found = Command::new("valgrind").arg("--version").output();
    if !found.is_ok_and(|output| output.status.success()) {
        println!("skipped: there is no valgrind; install it, or run .ci/run tools");
        return ExitCode::from(SKIPPED);
    }
    let committed = std::fs::read_to_string(FILE).unwrap_or_default();
    let (mut text, mut grown) = (format!("compiler {}\n", compiler()), false);
    for (name, _) in WORKS {
        let each = match each(name) {
            Ok(each) => each,
            Err(why) => return fail(&why),
        };
        text += &format!("{name} {each:.0}\n");
        let before =
            committed.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse::<f64>().ok());
        let change = before.map(|before| each / before - 1.0);
        let shown = change.map_or("not counted before".to_owned(), |c| format!("{:+.1} %", 100.0 * c));
        println!("{name:<20}{each:>8.0} instructions  {shown}");
        grown |= change.is_none_or(|change| change > TOLERANCE);
    }
    if write {
        return match std::fs::write(FILE, text) {
            Ok(()) => ExitCode::SUCCESS,
            Err(e) => fail(&format!("{FILE}: {e}")),
        };
    }
    if !committed.starts_with(&format!("compiler {}\n", compiler())) {
        println!("skipped: the committed counts are those of another compiler; write those of this one with --write");
        return ExitCode::from(SKIPPED);
    }
    if grown {
        fail("the hot path has grown; if that is worth it, write the new counts with --write")
    } else {
        ExitCode::SUCCESS
    }
}

/// Instructions of one.
fn each(name: &str) -> Result<f64, String> {
    let (once, twice) = (instructions(name, COUNT)?, instructions(name, 2 * COUNT)?);
    Ok((twice - once) as f64 / COUNT as f64)
}

fn compiler() -> String {
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let output = Command::new(rustc).arg("--version").output();
    output.map_or_else(|_| "unknown".to_owned(), |o| String::from_utf8_lossy(&o.stdout).trim().to_owned())
}

fn instructions(name: &str, count: u64) -> Result<u64, String> {
    let exe = std::env::current_exe().map_err(|e| format!("where this program is: {e}"))?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(exe)
        .args(["--run", name, &count.to_string()])
        .output()
        .map_err(|e| format!("valgrind: {e}"))?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    let collected = stderr.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok());
    collected.filter(|_| output.status.success()).ok_or_else(|| format!("valgrind did not count: {stderr}"))
}

/// One CB_RECALL in each call.
fn callback(count: u64) {
    recall(Builder::new(), count, FEW, 2);
}

/// The same, with many connections.
fn callback_many(count: u64) {
    recall(Builder::new(), count, MANY, 2);
}

/// The same, and it is measured how long each stage takes.
fn callback_measured(count: u64) {
    recall(Builder::new().latency(true), count, FEW, 2);
}

/// The same, with a flight recorder.
fn callback_recorded(count: u64) {
    recall(Builder::new().flight_records(4096), count, FEW, 2);
}

/// Fifteen in each call.
fn batched(count: u64) {
    recall(Builder::new(), count, FEW, 16);
}

/// An entry comes and goes.
fn insert_remove(count: u64) {
    let (simulation, _) = simulation(Builder::new(), FEW, 2, count);
    let client = simulation.runtime.add_client(None).expect("there is room");
    for cookie in 0..count {
        let key = simulation.runtime.insert(client, CallbackOp::Recall, cookie).expect("there is room");
        let _ = simulation.runtime.remove(key);
    }
}

struct Embedder {
    templates: Vec<Template>,
    keys: OnceLock<Vec<CallbackKey>>,
    runtime: OnceLock<Runtime>,
    next: Vec<AtomicUsize>,
    each: usize,
    done: AtomicU64,
    failed: AtomicU64,
    count: u64,
}

impl Hooks for Embedder {
    fn encode(&self, run: &Run, args: &mut xdr::Writer<'_>) -> xdr::Result<()> {
        self.templates[run.cookie as usize / self.each].encode_recall(run.cookie, args)
    }

    fn done(&self, _: &Run, outcome: &Outcome<'_>) -> Done {
        let replied = matches!(outcome, Outcome::Replied { status, .. } if status.is_ok());
        let counter = if replied { &self.done } else { &self.failed };
        counter.store(counter.load(Relaxed) + 1, Relaxed);
        Done::Finish
    }

    fn drop_reference(&self, cookie: u64) {
        if self.done.load(Relaxed) < self.count {
            self.submit(cookie as usize / self.each);
        }
    }
}

impl Embedder {
    /// The client's next delegation, of twice as many as are ever outstanding.
    fn submit(&self, client: usize) {
        let (Some(keys), Some(runtime)) = (self.keys.get(), self.runtime.get()) else { return };
        let next = self.next[client].load(Relaxed);
        self.next[client].store((next + 1) % self.each, Relaxed);
        assert_eq!(runtime.try_run(keys[client * self.each + next]), TryRun::Submitted);
    }
}

impl ForeChannel for Embedder {
    fn call(&self, _: Call<'_>) {}
}

fn simulation(
    builder: Builder,
    (connections, slots): (u32, u32),
    operations: u32,
    count: u64,
) -> (Simulation<Mirror>, Arc<Embedder>) {
    let each = 2 * (slots * (operations - 1)) as usize;
    let embedder = Arc::new(Embedder {
        templates: (0..connections).map(Template::new).collect(),
        keys: OnceLock::new(),
        runtime: OnceLock::new(),
        next: (0..connections).map(|_| AtomicUsize::new(0)).collect(),
        each,
        done: AtomicU64::new(0),
        failed: AtomicU64::new(0),
        count,
    });
    let hooks = Arc::clone(&embedder);
    let mirror = Mirror { slots, ..Mirror::default() };
    let simulation = Simulation::new(builder, Box::new(|_| true), hooks.clone() as _, hooks as _, vec![mirror]);
    (simulation.expect("the defaults are in range"), embedder)
}

fn recall(builder: Builder, count: u64, (connections, slots): (u32, u32), operations: u32) {
    let (mut simulation, embedder) = simulation(builder, (connections, slots), operations, count);
    let runtime = simulation.runtime.clone();
    // The mirror takes any descriptor for a connection, and uses none.
    let mut keys = Vec::new();
    for client in 0..connections as usize {
        let (socket, _) = UnixStream::pair().expect("a socket");
        let connection = runtime.add_connection(socket).expect("there is room");
        let id = runtime.add_client(Some(connection)).expect("there is room");
        let config = wire::session_config(client as u32, slots, operations);
        let session = runtime.add_session(id, config).expect("there is room");
        runtime.bind(connection, session).expect("the client is there");
        for number in 0..embedder.each {
            let cookie = (client * embedder.each + number) as u64;
            keys.push(runtime.insert(id, CallbackOp::Recall, cookie).expect("there is room"));
        }
    }
    assert!(embedder.keys.set(keys).is_ok() && embedder.runtime.set(runtime.clone()).is_ok());
    (0..connections as usize).for_each(|client| (0..embedder.each / 2).for_each(|_| embedder.submit(client)));
    let reactor = &mut simulation.reactors[0];
    // The statistics are a walk over all clients, so they are not asked before it may be over.
    while embedder.done.load(Relaxed) < count || runtime.stats().in_flight > 0 {
        let wait = reactor.park();
        reactor.turn(wait).expect("the mirror does not fail");
    }
    let done = embedder.done.load(Relaxed);
    assert!(done >= count && embedder.failed.load(Relaxed) == 0, "{done} of {count}");
    assert_eq!(runtime.stats().replied, done);
}

/// A back end that answers: each send is over in the next turn, and its calls are answered in that one or, if there are many,
/// in one of those after it.
#[derive(Default)]
struct Mirror {
    /// Of each session.
    slots: u32,
    lines: Vec<Line>,
    /// Connections that have sent since the last turn.
    sent: Vec<ConnKey>,
    /// Connections that have calls to be answered, the oldest first.
    asked: VecDeque<ConnKey>,
    /// Buffers for replies: as few as are in use at once, which a processor's cache holds, like receive buffers.
    spare: Vec<Vec<u8>>,
    now_ns: u64,
    counters: IoCounters,
}

struct Line {
    template: Template,
    buf: Option<SendBuf>,
    calls: Vec<Called>,
    /// What it has answered, until that is recycled.
    replies: Vec<u8>,
}

struct NoBell;

impl Wake for NoBell {
    fn wake(&self) {}
}

impl Io for Mirror {
    fn name(&self) -> &'static str {
        "mirror"
    }

    fn now_ns(&self) -> u64 {
        self.now_ns
    }

    fn waker(&self) -> Arc<dyn Wake> {
        Arc::new(NoBell)
    }

    fn attach(&mut self, conn: ConnKey, _: OwnedFd) -> io::Result<()> {
        assert_eq!(conn.index as usize, self.lines.len(), "one after the other");
        let template = Template::new(conn.index);
        self.lines.push(Line { template, buf: None, calls: Vec::new(), replies: Vec::new() });
        Ok(())
    }

    fn detach(&mut self, _: ConnKey) {}

    fn lift(&mut self, _: ConnKey) {}
    fn pause(&mut self, _: ConnKey) {}

    fn resume(&mut self, _: ConnKey) {}

    fn send(&mut self, conn: ConnKey, buf: SendBuf) -> Result<(), SendBuf> {
        let line = &mut self.lines[conn.index as usize];
        let mut rest = buf.unsent();
        while let Some(record) = wire::record_bytes(rest).and_then(|len| rest.get(..len)) {
            rest = &rest[record.len()..];
            line.calls.push(line.template.check(record).expect("a call of this session"));
        }
        assert!(rest.is_empty() && line.buf.is_none(), "whole records, one send at a time");
        line.buf = Some(buf);
        self.sent.push(conn);
        Ok(())
    }

    fn turn(&mut self, _: Wait, events: &mut Vec<IoEvent>) -> io::Result<()> {
        self.now_ns += 1_000;
        for conn in self.sent.drain(..) {
            if let Some(mut buf) = self.lines[conn.index as usize].buf.take() {
                let len = buf.unsent().len();
                buf.advance(len);
                events.push(IoEvent::Sent { conn, buf, result: Ok(len) });
                self.asked.push_back(conn);
            }
        }
        let answered = self.asked.len().min(ANSWERED_PER_TURN);
        for conn in self.asked.drain(..answered) {
            let line = &mut self.lines[conn.index as usize];
            line.replies = self.spare.pop().unwrap_or_default();
            for called in line.calls.drain(..) {
                line.template.reply(&called, self.slots - 1, &mut line.replies);
            }
            let buf = RecvBuf::new(conn.index as u16, line.replies.len() as u32);
            events.push(IoEvent::Received { conn, buf });
        }
        Ok(())
    }

    fn received(&self, buf: &RecvBuf) -> &[u8] {
        &self.lines[usize::from(buf.id())].replies
    }

    fn recycle(&mut self, buf: RecvBuf) {
        let mut replies = std::mem::take(&mut self.lines[usize::from(buf.id())].replies);
        replies.clear();
        self.spare.push(replies);
    }

    fn counters(&self) -> IoCounters {
        self.counters
    }
}
