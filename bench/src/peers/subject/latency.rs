//! One recall at a time, on a system that has gone to sleep before each.

use super::super::child::Child;
use super::super::job::{Figure, Load, Sample, Subject};
use super::super::swarm;
use super::super::wire::{self, Template};
use super::{END_MAX, Gauge, Swarm, ringback as runtime, tokio_net};
use hdrhistogram::Histogram;
use ringback::{Call, CallbackKey, CallbackOp, Done, ForeChannel, Hooks, Outcome, Run, Runtime, TryRun};
use ringback_rpc::nfs4::Status;
use ringback_rpc::xdr;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::*};
use std::thread::Thread;
use std::time::{Duration, Instant};

/// Between two recalls: long enough for all threads to go to sleep.
const PAUSE: Duration = Duration::from_micros(400);
/// The first ones find nothing warm.
const WARM_UP: usize = 50;
const LATENCY_NS_MAX: u64 = 60_000_000_000;
const FAILED: u64 = u64::MAX;

/// Where the thread that asked is told how long it took.
struct Bell {
    asker: Thread,
    begun: Instant,
    /// When the recall was asked for, ns since `begun`.
    asked_ns: AtomicU64,
    /// How long it took; 0: it is not over.
    took_ns: AtomicU64,
}

impl Bell {
    fn ring(&self, fine: bool) {
        let took = (self.begun.elapsed().as_nanos() as u64).saturating_sub(self.asked_ns.load(Relaxed)).max(1);
        self.took_ns.store(if fine { took } else { FAILED }, Release);
        self.asker.unpark();
    }
}

/// One recall by one of the subjects.
enum Asker {
    Ringback(Runtime, CallbackKey),
    Tokio(tokio::runtime::Handle, Arc<super::async_client::Client>, Arc<tokio::sync::Notify>),
}

/// Measures recalls for about as long as `window`.
pub fn latency(subject: Subject, window: Duration) -> Result<Sample, String> {
    let Swarm { mut sockets, mut process } = super::connect(&Load::new(subject, 1, 1), None)?;
    let socket = sockets.pop().ok_or("there is one client")?;
    let bell = Arc::new(Bell {
        asker: std::thread::current(),
        begun: Instant::now(),
        asked_ns: AtomicU64::new(0),
        took_ns: AtomicU64::new(0),
    });
    let asker = match subject {
        Subject::Ringback | Subject::RingbackEpoll => ringback(subject, socket, Arc::clone(&bell))?,
        Subject::AsyncTask | Subject::AsyncBare => tokio(subject, socket)?,
        _ => return Err(format!("latency is not measured for {}", subject.name())),
    };
    let latencies = asker.measure(&bell, window)?;
    asker.end()?;
    check(&mut process, latencies.len() + WARM_UP as u64)?;
    Ok(Sample::from([
        (Figure::P50, latencies.value_at_quantile(0.5) as f64),
        (Figure::P99, latencies.value_at_quantile(0.99) as f64),
    ]))
}

fn check(process: &mut Child, recalls: u64) -> Result<(), String> {
    let tally: swarm::Tally = process.answer(END_MAX)?;
    if (tally.recalls, tally.wrong) != (recalls, 0) {
        return Err(format!("{recalls} recalls were answered, but the swarm counted {tally:?}"));
    }
    Ok(())
}

impl Asker {
    fn measure(&self, bell: &Arc<Bell>, window: Duration) -> Result<Histogram<u64>, String> {
        let mut latencies =
            Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3).map_err(|e| format!("no histogram: {e}"))?;
        (0..WARM_UP).try_for_each(|number| self.recall(bell, number).map(drop))?;
        let begun = Instant::now();
        while begun.elapsed() < window || latencies.is_empty() {
            latencies.saturating_record(self.recall(bell, WARM_UP + latencies.len() as usize)?);
        }
        Ok(latencies)
    }

    fn recall(&self, bell: &Arc<Bell>, number: usize) -> Result<u64, String> {
        std::thread::sleep(PAUSE);
        bell.took_ns.store(0, Relaxed);
        bell.asked_ns.store(bell.begun.elapsed().as_nanos() as u64, Relaxed);
        match self {
            Asker::Ringback(runtime, key) => {
                // Its last run has rung in `done`, and may not be over yet.
                while !matches!(runtime.try_run(*key), TryRun::Submitted | TryRun::Rearmed) {
                    std::thread::yield_now();
                }
            }
            Asker::Tokio(handle, client, _) => {
                let (client, bell) = (Arc::clone(client), Arc::clone(bell));
                handle.spawn(async move { bell.ring(client.recall(number as u64).await) });
            }
        }
        let asked = Instant::now();
        loop {
            match bell.took_ns.load(Acquire) {
                0 if asked.elapsed() > END_MAX => return Err("a recall was not answered".to_owned()),
                0 => std::thread::park_timeout(END_MAX),
                FAILED => return Err("a recall failed".to_owned()),
                took => return Ok(took),
            }
        }
    }

    fn end(self) -> Result<(), String> {
        match self {
            Asker::Ringback(runtime, _) => {
                runtime.shutdown(Duration::ZERO).map(drop).map_err(|e| format!("the runtime cannot end: {e}"))
            }
            Asker::Tokio(_, _, end) => {
                end.notify_one();
                Ok(())
            }
        }
    }
}

struct Ringer(Arc<Bell>, Template);

impl Hooks for Ringer {
    fn encode(&self, run: &Run, args: &mut xdr::Writer<'_>) -> xdr::Result<()> {
        self.1.encode_recall(run.cookie, args)
    }

    fn done(&self, _: &Run, outcome: &Outcome<'_>) -> Done {
        self.0.ring(matches!(outcome, Outcome::Replied { status: Status::NFS4_OK, .. }));
        Done::Finish
    }
}

struct NoCalls;

impl ForeChannel for NoCalls {
    fn call(&self, _: Call<'_>) {}
}

fn ringback(subject: Subject, socket: TcpStream, bell: Arc<Bell>) -> Result<Asker, String> {
    let runtime = runtime::builder(subject)
        .reactors(1)
        .build(Arc::new(Ringer(bell, Template::new(0))), Arc::new(NoCalls))
        .map_err(|e| format!("the runtime cannot be started: {e}"))?;
    let client = runtime::register(&runtime, socket, wire::session_config(0, 1, 2))
        .map_err(|e| format!("the client cannot be registered: {e}"))?;
    let key = runtime.insert(client, CallbackOp::Recall, 0).map_err(|e| format!("no delegation: {e}"))?;
    Ok(Asker::Ringback(runtime, key))
}

/// The runtime ends, and closes the connection, when it is told to.
fn tokio(subject: Subject, socket: TcpStream) -> Result<Asker, String> {
    let runtime = tokio_net::runtime(subject).map_err(|e| format!("tokio: {e}"))?;
    let handle = runtime.handle().clone();
    let client = {
        let _inside = handle.enter();
        tokio_net::client(subject, 0, 1, socket, &Arc::new(Gauge::default())).map_err(|e| format!("tokio: {e}"))?
    };
    let end = Arc::new(tokio::sync::Notify::new());
    let ending = Arc::clone(&end);
    std::thread::spawn(move || runtime.block_on(ending.notified()));
    Ok(Asker::Tokio(handle, client, end))
}
