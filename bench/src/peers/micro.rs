//! Measurements without a client: the unit costs that others are compared with, and what an entry costs in time and
//! memory.

use super::job::{Figure, Sample};
use super::numbers::Numbers;
use super::subject::{allowed_cpus, pin, thread_cpu_ns};
use super::wire;
use ringback::{
    Backend, Builder, Call, CallbackKey, CallbackOp, ClientId, ClientState, Done, ForeChannel, Hooks, Outcome, Run,
    Runtime, TryRun,
};
use ringback_rpc::xdr;
use std::hint::black_box;
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering::*};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The chain of loads: far more than any cache.
pub const CHASE_BYTES: u64 = 512 << 20;
const LINE_BYTES: usize = 64;
const CHASE_LOADS: usize = 2_000_000;
const NULL_CALLS: usize = 5_000;
/// Short blocks, of which the median is taken: what else the machine does falls on few of them.
const BLOCKS: usize = 301;
/// Entries submitted while the reactor is held: few enough to stay in the nearest cache.
const SUBMITTED: usize = 256;
const WAIT_MAX: Duration = Duration::from_secs(20);

fn own(value: f64) -> Sample {
    Sample::from([(Figure::Own, value)])
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// CPU time of getppid(2), ns.
pub fn null_call() -> Sample {
    let block = || {
        let begun = thread_cpu_ns();
        (0..NULL_CALLS).for_each(|_| _ = black_box(rustix::process::getppid()));
        (thread_cpu_ns() - begun) as f64 / NULL_CALLS as f64
    };
    own(median((0..BLOCKS).map(|_| block()).collect()))
}

/// Hooks that do nothing, but can be held up in `done`.
#[derive(Default)]
struct Gate {
    held: Mutex<bool>,
    moved: Condvar,
    /// Whether a reactor waits at the gate.
    waiting: AtomicU64,
}

/// The cookie of the callback that stops at the gate.
const STOPS: u64 = u64::MAX;

impl Gate {
    fn set(&self, held: bool) {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = held;
        self.moved.notify_all();
    }
}

impl Hooks for Gate {
    fn encode(&self, _: &Run, _: &mut xdr::Writer<'_>) -> xdr::Result<()> {
        Ok(())
    }

    fn done(&self, run: &Run, _: &Outcome<'_>) -> Done {
        if run.cookie == STOPS {
            let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
            self.waiting.store(1, SeqCst);
            while *held {
                held = self.moved.wait(held).unwrap_or_else(PoisonError::into_inner);
            }
            self.waiting.store(0, SeqCst);
        }
        Done::Finish
    }
}

impl ForeChannel for Gate {
    fn call(&self, _: Call<'_>) {}
}

/// A runtime without connections, and a client whose callbacks end at once: it is in courtesy.
fn runtime(entries: u32, gate: &Arc<Gate>) -> Result<(Runtime, ClientId), String> {
    let runtime = Builder::new()
        .reactors(1)
        .backend(Backend::Epoll)
        .callbacks_max(entries)
        .build(Arc::clone(gate) as _, Arc::clone(gate) as _)
        .map_err(|e| format!("the runtime cannot be started: {e}"))?;
    let registered =
        runtime.add_client(None).and_then(|c| runtime.set_client_state(c, ClientState::Courtesy).map(|()| c));
    registered.map(|client| (runtime, client)).map_err(|e| format!("the client cannot be registered: {e}"))
}

fn insert(runtime: &Runtime, client: ClientId, cookie: u64) -> Result<CallbackKey, String> {
    runtime.insert(client, CallbackOp::Recall, cookie).map_err(|e| format!("an entry cannot be inserted: {e}"))
}

fn until(what: &str, f: impl Fn() -> bool) -> Result<(), String> {
    let begun = Instant::now();
    while !f() {
        if begun.elapsed() > WAIT_MAX {
            return Err(format!("still not: {what}"));
        }
        std::thread::yield_now();
    }
    Ok(())
}

/// `try_run` until the callback is queued, in uncontended compare-and-swaps. The reactor is held in a hook meanwhile, so
/// that it neither sleeps nor competes, and shares a CPU with the caller, so that the entries stay in the cache.
pub fn submit() -> Result<Sample, String> {
    if let Some(cpu) = allowed_cpus().first() {
        pin(*cpu);
    }
    let gate = Arc::new(Gate::default());
    let (runtime, client) = runtime(SUBMITTED as u32 + 1, &gate)?;
    let stopper = insert(&runtime, client, STOPS)?;
    let keys = (0..SUBMITTED as u64).map(|n| insert(&runtime, client, n)).collect::<Result<Vec<_>, _>>()?;
    let (mut submits, mut swaps) = (Vec::new(), Vec::new());
    for _ in 0..BLOCKS {
        gate.set(true);
        if runtime.try_run(stopper) != TryRun::Submitted {
            return Err("the callback that stops the reactor was not accepted".to_owned());
        }
        until("the reactor is held", || gate.waiting.load(SeqCst) == 1)?;
        // What the last round has done to the entries is fetched outside of the measurement.
        for key in &keys {
            let stale = CallbackKey { generation: key.generation ^ 1, ..*key };
            let _ = black_box(runtime.try_run(stale));
        }
        swaps.push(compare_and_swap());
        let begun = Instant::now();
        let accepted = keys.iter().filter(|key| runtime.try_run(**key) == TryRun::Submitted).count();
        submits.push(begun.elapsed().as_nanos() as f64 / SUBMITTED as f64);
        gate.set(false);
        if accepted != SUBMITTED {
            return Err(format!("{accepted} of {SUBMITTED} callbacks were accepted"));
        }
        until("all runs are over", || runtime.stats().in_flight == 0)?;
    }
    Ok(own(median(submits) / median(swaps)))
}

/// One uncontended compare-and-swap on a word in the cache, ns.
fn compare_and_swap() -> f64 {
    const SWAPS: u64 = 1_000;
    let word = black_box(AtomicU64::new(0));
    let begun = Instant::now();
    for n in 0..SWAPS {
        _ = black_box(word.compare_exchange(n, n + 1, AcqRel, Acquire));
    }
    begun.elapsed().as_nanos() as f64 / SWAPS as f64
}

/// The allocation of an entry where so many have come and gone in any order, in random loads from memory.
pub fn churn(entries: u32) -> Result<Sample, String> {
    let gate = Arc::new(Gate::default());
    let (runtime, client) = runtime(entries, &gate)?;
    let mut keys = (0..entries.into()).map(|n| insert(&runtime, client, n)).collect::<Result<Vec<_>, _>>()?;
    let mut numbers = Numbers::new(1);
    numbers.shuffle(&mut keys);
    let half = keys.len() / 2;
    keys.drain(half..).for_each(|key| _ = runtime.remove(key));
    // The rest is churned one by one as well: every free list ends up in no order at all.
    for key in &mut keys {
        _ = runtime.remove(*key);
        *key = insert(&runtime, client, 0)?;
    }
    let begun = thread_cpu_ns();
    for n in 0..half as u64 {
        black_box(insert(&runtime, client, n)?);
    }
    let each = (thread_cpu_ns() - begun) as f64 / half as f64;
    Ok(own(each / random_load()))
}

/// One load from memory that waits for the one before, ns: along a cycle through all lines in random order.
fn random_load() -> f64 {
    #[derive(Clone)]
    #[repr(align(64))]
    struct Line(u32);
    const _: () = assert!(size_of::<Line>() == LINE_BYTES);
    let count = CHASE_BYTES as usize / LINE_BYTES;
    let mut lines: Vec<Line> = (0..count as u32).map(Line).collect();
    // Sattolo's shuffle: one cycle through all.
    let mut numbers = Numbers::new(2);
    for at in (1..count).rev() {
        let other = numbers.below(at);
        let (a, b) = (lines[at].0, lines[other].0);
        lines[at].0 = b;
        lines[other].0 = a;
    }
    let mut at = 0;
    let begun = thread_cpu_ns();
    for _ in 0..CHASE_LOADS {
        at = lines[at as usize].0;
    }
    black_box(at);
    (thread_cpu_ns() - begun) as f64 / CHASE_LOADS as f64
}

/// Memory that is resident because of idle entries, bytes for each: as the kernel counts the process.
pub fn idle(entries: u32) -> Result<Sample, String> {
    let gate = Arc::new(Gate::default());
    let (runtime, client) = runtime(entries, &gate)?;
    let before = resident_bytes()?;
    for n in 0..u64::from(entries) {
        black_box(insert(&runtime, client, n)?);
    }
    Ok(own((resident_bytes()?.saturating_sub(before)) as f64 / f64::from(entries)))
}

/// Memory that is resident because of clients, each with a session and a connection; what the kernel has for their sockets
/// is not in it.
pub fn clients(clients: u32) -> Result<Sample, String> {
    const SLOTS: u32 = 16;
    let gate = Arc::new(Gate::default());
    let failed = |e: ringback::Error| format!("a client cannot be registered: {e}");
    let listener = TcpListener::bind("127.0.0.1:0").map_err(|e| format!("no listener: {e}"))?;
    let address = listener.local_addr().map_err(|e| format!("no listener: {e}"))?;
    let pair = |_| TcpStream::connect(address).and_then(|socket| Ok((socket, listener.accept()?.0)));
    let pairs: std::io::Result<Vec<_>> = (0..clients).map(pair).collect();
    // The clients' ends stay open.
    let (sockets, _ends): (Vec<_>, Vec<_>) = pairs.map_err(|e| format!("no connection: {e}"))?.into_iter().unzip();
    let runtime = Builder::new()
        .reactors(1)
        .clients_max(clients as usize)
        .build(Arc::clone(&gate) as _, gate as _)
        .map_err(|e| format!("the runtime cannot be started: {e}"))?;
    let before = resident_bytes()?;
    for (number, socket) in sockets.into_iter().enumerate() {
        let connection = runtime.add_connection(socket).map_err(failed)?;
        let client = runtime.add_client(Some(connection)).map_err(failed)?;
        let session = runtime.add_session(client, wire::session_config(number as u32, SLOTS, 2)).map_err(failed)?;
        runtime.bind(connection, session).map_err(failed)?;
    }
    // Answered when the reactor has done all that.
    runtime.census().map_err(failed)?;
    Ok(own((resident_bytes()?.saturating_sub(before)) as f64 / f64::from(clients)))
}

fn resident_bytes() -> Result<u64, String> {
    let text = std::fs::read_to_string("/proc/self/statm").map_err(|e| format!("/proc/self/statm: {e}"))?;
    let pages: Option<u64> = text.split_whitespace().nth(1).and_then(|pages| pages.parse().ok());
    let pages = pages.ok_or("/proc/self/statm has no second number")?;
    Ok(pages * rustix::param::page_size() as u64)
}

/// Why ringback has no io_uring here.
pub fn no_uring() -> Option<String> {
    let gate = Arc::new(Gate::default());
    let built = Builder::new().reactors(1).backend(Backend::Uring).build(Arc::clone(&gate) as _, gate);
    built.err().map(|e| e.to_string())
}
