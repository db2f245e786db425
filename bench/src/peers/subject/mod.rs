//! One sender under load, in a process of its own, with a swarm in another.
//!
//! The sender's work is done by its threads; this one watches: it lets the load warm up, reads what the process has used
//! and done, waits for the window to pass, and reads again. Then the load is stopped, what is outstanding is answered,
//! and the swarm must have counted as many recalls as the sender.

mod async_client;
mod echo;
mod latency;
mod mio_loop;
mod ringback;
mod tokio_net;
mod tokio_ring;

pub use latency::latency;

use super::allocator;
use super::child::Child;
use super::job::{Figure, Load, Sample, Subject, Submit};
use super::swarm;
use crate::storm::resources::CpuTime;
use ::ringback::Runtime;
use rustix::time::{ClockId, clock_gettime};
use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long the load runs before it is measured, in windows.
const WARM_UP_WINDOWS: f64 = 0.3;
/// How long the end of a load may take: answers of what is outstanding.
const END_MAX: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// What a sender's threads have done so far, written by them and read by the one that watches.
#[derive(Debug, Default)]
pub struct Gauge {
    /// Callbacks that the client answered with NFS4_OK.
    pub completed: AtomicU64,
    /// Callbacks that ended in another way.
    pub failed: AtomicU64,
    /// Sends.
    pub sends: AtomicU64,
    /// Nothing new is to be sent.
    pub stop: AtomicBool,
}

/// Adds to a counter that one thread writes: no locked instruction is needed.
fn add(counter: &AtomicU64, n: u64) {
    counter.store(counter.load(Relaxed) + n, Relaxed);
}

impl Gauge {
    fn stopped(&self) -> bool {
        self.stop.load(Relaxed)
    }
}

/// A sender that is at work.
enum Sender {
    /// Threads of its own.
    Loop(JoinHandle<Result<(), String>>),
    /// A runtime's threads, and perhaps one that submits.
    Ringback(Runtime, Option<JoinHandle<()>>),
}

impl Sender {
    fn has_ended(&self) -> bool {
        matches!(self, Sender::Loop(thread) if thread.is_finished())
    }
}

/// Connected sockets, in the order of the swarm's clients, and the swarm.
struct Swarm {
    sockets: Vec<TcpStream>,
    process: Child,
}

/// Measures a load.
pub fn load(load: &Load, window: Duration) -> Result<Sample, String> {
    // With one thread each, sender and swarm have a CPU each, as far as there are two.
    let cpus = allowed_cpus();
    let one_thread = load.reactors == 1 && load.submit == Submit::SameThread;
    let pinned = one_thread && cpus.len() > 1;
    let Swarm { sockets, mut process } = connect(load, pinned.then(|| cpus[1]))?;
    if pinned {
        pin(cpus[0]);
    }
    let gauge = Arc::new(Gauge::default());
    let sender = start(load, sockets, &gauge)?;
    let sample = watch(load, window, &gauge, &sender);
    gauge.stop.store(true, Relaxed);
    end(sender, &gauge)?;
    let sample = sample?;
    let tally: swarm::Tally = process.answer(END_MAX)?;
    compare(&gauge, &tally)?;
    Ok(sample)
}

/// No figure counts unless what was sent has been received.
fn compare(gauge: &Gauge, tally: &swarm::Tally) -> Result<(), String> {
    let (completed, failed) = (gauge.completed.load(Relaxed), gauge.failed.load(Relaxed));
    if failed > 0 || tally.wrong > 0 || tally.recalls != completed {
        return Err(format!(
            "the counts differ: {completed} callbacks answered and {failed} failed, but the swarm had {} recalls and {} \
             wrong calls",
            tally.recalls, tally.wrong
        ));
    }
    Ok(())
}

fn connect(load: &Load, cpu: Option<usize>) -> Result<Swarm, String> {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).map_err(|e| format!("no listener: {e}"))?;
    let sender = listener.local_addr().map_err(|e| format!("no listener: {e}"))?;
    let config = swarm::Config {
        sender,
        connections: load.connections,
        slots: load.slots,
        any_sequence: load.subject == Subject::Echo,
        cpu,
    };
    let process = Child::swarm(&config)?;
    let mut sockets: Vec<Option<TcpStream>> = (0..load.connections).map(|_| None).collect();
    for _ in 0..load.connections {
        let failed = |e: std::io::Error| format!("a client could not connect: {e}");
        let (mut socket, _) = listener.accept().map_err(failed)?;
        socket.set_nodelay(true).map_err(failed)?;
        let mut index = [0; 4];
        socket.read_exact(&mut index).map_err(failed)?;
        *sockets.get_mut(u32::from_be_bytes(index) as usize).ok_or("a client has a number too high")? = Some(socket);
    }
    let sockets = sockets.into_iter().collect::<Option<Vec<_>>>().ok_or("two clients have one number")?;
    Ok(Swarm { sockets, process })
}

fn start(load: &Load, sockets: Vec<TcpStream>, gauge: &Arc<Gauge>) -> Result<Sender, String> {
    let gauge = Arc::clone(gauge);
    let load = *load;
    let run: fn(Load, Vec<TcpStream>, Arc<Gauge>) -> Result<(), String> = match load.subject {
        Subject::Ringback | Subject::RingbackEpoll => return ringback::start(&load, sockets, gauge),
        Subject::AsyncTask | Subject::AsyncBare | Subject::SendPerRpc => tokio_net::run,
        Subject::TokioUring => tokio_ring::run,
        Subject::MioLoop => mio_loop::run,
        Subject::Echo => echo::run,
    };
    Ok(Sender::Loop(std::thread::spawn(move || run(load, sockets, gauge))))
}

/// What there is to read of a process at work.
#[derive(Clone, Copy, Debug)]
struct Reading {
    at: Instant,
    cpu_ns: u64,
    split: CpuTime,
    completed: u64,
    syscalls: Option<u64>,
    sends: u64,
    bytes: Option<u64>,
    wakes: Option<u64>,
    allocations: u64,
}

impl Reading {
    fn take(gauge: &Gauge, sender: &Sender) -> Reading {
        let stats = match sender {
            Sender::Ringback(runtime, _) => Some(runtime.stats()),
            Sender::Loop(_) => None,
        };
        Reading {
            at: Instant::now(),
            cpu_ns: process_cpu_ns(),
            split: CpuTime::now(),
            completed: stats.map_or(gauge.completed.load(Relaxed), |s| s.replied),
            syscalls: stats.map(|s| s.syscalls),
            sends: stats.map_or(gauge.sends.load(Relaxed), |s| s.sends),
            bytes: stats.map(|s| s.sent_bytes),
            wakes: stats.map(|s| s.wakes),
            allocations: allocator::counted(),
        }
    }

    /// What went by since an earlier one, for each callback.
    fn since(&self, earlier: &Reading) -> Result<Sample, String> {
        let callbacks = self.completed - earlier.completed;
        if callbacks == 0 {
            return Err("no callback was answered while it was measured".to_owned());
        }
        let split = self.split.since(earlier.split);
        let cpu = (self.cpu_ns - earlier.cpu_ns) as f64;
        // The clock is exact; the kernel samples how the time splits.
        let user = cpu * split.user_ns as f64 / split.total_ns().max(1) as f64;
        let seconds = self.at.duration_since(earlier.at).as_secs_f64();
        let each = |n: f64| n / callbacks as f64;
        let grown = |now: Option<u64>, then: Option<u64>| Some(each((now? - then?) as f64));
        let mut sample = Sample::new();
        sample.insert(Figure::Cpu, each(cpu));
        sample.insert(Figure::UserCpu, each(user));
        sample.insert(Figure::Sends, each((self.sends - earlier.sends) as f64));
        sample.insert(Figure::Allocations, each((self.allocations - earlier.allocations) as f64));
        sample.insert(Figure::Rate, callbacks as f64 / seconds);
        let counted = [
            (Figure::Syscalls, grown(self.syscalls, earlier.syscalls)),
            (Figure::Bytes, grown(self.bytes, earlier.bytes)),
            (Figure::Wakes, grown(self.wakes, earlier.wakes)),
        ];
        sample.extend(counted.into_iter().filter_map(|(figure, value)| Some((figure, value?))));
        Ok(sample)
    }
}

fn watch(load: &Load, window: Duration, gauge: &Gauge, sender: &Sender) -> Result<Sample, String> {
    let warm = window.mul_f64(WARM_UP_WINDOWS);
    std::thread::sleep(warm);
    // Where the machine is busy, or there are many connections: until the load has gone round a few times.
    let rounds = 3 * u64::from(load.connections) * u64::from(load.outstanding);
    let begun = Instant::now();
    // A thread that has ended too early says why in the end.
    while Reading::take(gauge, sender).completed < rounds && begun.elapsed() < END_MAX && !sender.has_ended() {
        std::thread::sleep(LOOK_EVERY);
    }
    if load.count_allocations {
        allocator::count();
    }
    let before = Reading::take(gauge, sender);
    std::thread::sleep(window);
    // A busy machine may have answered none in a short window.
    while Reading::take(gauge, sender).completed == before.completed && !sender.has_ended() {
        if before.at.elapsed() > END_MAX {
            break;
        }
        std::thread::sleep(LOOK_EVERY);
    }
    Reading::take(gauge, sender).since(&before)
}

/// Waits until what is outstanding has been answered, and closes the connections.
fn end(sender: Sender, gauge: &Gauge) -> Result<(), String> {
    match sender {
        Sender::Loop(thread) => thread.join().map_err(|_| "the sender's thread panicked".to_owned())?,
        Sender::Ringback(runtime, submitter) => {
            if let Some(submitter) = submitter {
                submitter.thread().unpark();
                submitter.join().map_err(|_| "the submitter panicked".to_owned())?;
            }
            let begun = Instant::now();
            while runtime.stats().in_flight > 0 && begun.elapsed() < END_MAX {
                std::thread::sleep(LOOK_EVERY);
            }
            gauge.completed.store(runtime.stats().replied, Relaxed);
            runtime.shutdown(Duration::ZERO).map(drop).map_err(|e| format!("the runtime cannot end: {e}"))
        }
    }
}

/// CPU time of the process, all threads, to the nanosecond.
pub fn process_cpu_ns() -> u64 {
    nanoseconds(ClockId::ProcessCPUTime)
}

/// CPU time of this thread.
pub fn thread_cpu_ns() -> u64 {
    nanoseconds(ClockId::ThreadCPUTime)
}

fn nanoseconds(clock: ClockId) -> u64 {
    let now = clock_gettime(clock);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// The CPUs that this process may use.
pub fn allowed_cpus() -> Vec<usize> {
    let Ok(set) = rustix::thread::sched_getaffinity(None) else { return Vec::new() };
    (0..rustix::thread::CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect()
}

/// Keeps this thread, and those that it starts, on a CPU. Where that is not allowed, they are not kept.
pub fn pin(cpu: usize) {
    let mut set = rustix::thread::CpuSet::new();
    set.set(cpu);
    let _ = rustix::thread::sched_setaffinity(None, &set);
}
