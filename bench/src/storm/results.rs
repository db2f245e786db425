//! What a run found: the numbers of both halves, before they are compared ([`verdict`](super::verdict)) or shown.

use super::cli::Options;
use super::resources::CpuTime;
use hdrhistogram::Histogram;
use ringback::CallbackKey;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Everything that a run found.
#[derive(Clone, Debug)]
pub struct Results {
    /// What was asked for.
    pub options: Options,
    /// The kernel's release.
    pub kernel: String,
    /// The server half, if it ran here.
    pub server: Option<ServerResults>,
    /// The swarm half, if it ran here or in a child and lived to tell.
    pub swarm: Option<SwarmTally>,
    /// From the start of the command to its end.
    pub wall: Duration,
    /// Ctrl-C ended the run early.
    pub interrupted: bool,
    /// What does not add up; empty is the good end.
    pub discrepancies: Vec<String>,
}

/// What the runtime and the file server counted, and what was measured around them.
#[derive(Clone, Debug, Default)]
pub struct ServerResults {
    /// The back end that ran.
    pub backend: String,
    /// Why that one.
    pub backend_reason: String,
    /// Where reactors are pinned to, one line for each.
    pub placement: Vec<String>,
    /// Delegations that the file server granted.
    pub granted: u64,
    /// `try_run`s accepted.
    pub accepted: u64,
    /// Runs that the reactors took up.
    pub started: u64,
    /// Runs completed, with whatever outcome.
    pub completed: u64,
    /// Runs released.
    pub released: u64,
    /// Runs in flight at the end.
    pub in_flight: u64,
    /// Session slots not free at the end that no reply can free any more.
    pub slots_leaked: u64,
    /// How long each upgrade took.
    pub upgrades: Vec<Duration>,
    /// What the drain at the end ended.
    pub drained: Drained,
    /// Completions by outcome, as the hooks saw them.
    pub outcomes: Outcomes,
    /// Delegations that came back.
    pub returned: u64,
    /// From the first start to the last completion.
    pub recall: Duration,
    /// CPU of this process over the recall phase.
    pub cpu: CpuTime,
    /// The reactors' work over the recall phase.
    pub work: ReactorWork,
    /// Resident bytes that the runtime owns, after the grant phase.
    pub idle_bytes: u64,
    /// Callbacks inserted when `idle_bytes` was read.
    pub idle_callbacks: u64,
    /// Most resident memory of this process.
    pub peak_rss_bytes: u64,
    /// Latencies and rate.
    pub measured: Measured,
    /// How long each stage took, if that was asked for.
    pub stages: Vec<Stage>,
}

/// How long callbacks of one class took in one stage, in microseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Stage {
    /// The class of the operations.
    pub class: String,
    /// The stage: one of the runtime's, or `late`: from when a callback should have been started until it was.
    pub stage: String,
    /// How many callbacks.
    pub count: u64,
    /// Median.
    pub p50: u64,
    /// 99th percentile.
    pub p99: u64,
    /// 99.9th percentile.
    pub p999: u64,
    /// The longest.
    pub max: u64,
}

impl Stage {
    /// From a histogram.
    pub fn of(class: &str, stage: &str, h: &Histogram<u64>) -> Stage {
        let at = |q| h.value_at_quantile(q);
        let (class, stage) = (class.to_owned(), stage.to_owned());
        Stage { class, stage, count: h.len(), p50: at(0.5), p99: at(0.99), p999: at(0.999), max: h.max() }
    }
}

/// What a drain ended, as it says and as the hooks saw it.
#[derive(Clone, Debug, Default)]
pub struct Drained {
    /// How long it took.
    pub took: Duration,
    /// Reported: sent, and not answered in time.
    pub abandoned: Vec<CallbackKey>,
    /// Reported: ended before they were sent.
    pub unsent: Vec<CallbackKey>,
    /// What the hooks were told to be cancelled meanwhile.
    pub cancelled: Vec<CallbackKey>,
}

/// What the reactors did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReactorWork {
    /// System calls.
    pub syscalls: u64,
    /// SENDs.
    pub sends: u64,
    /// Bytes sent.
    pub sent_bytes: u64,
    /// Receive completions.
    pub receives: u64,
    /// Wake-ups.
    pub wakes: u64,
    /// CB_COMPOUNDs sent, resends apart.
    pub calls: u64,
}

impl ReactorWork {
    /// What was done since an earlier reading.
    pub fn since(self, earlier: ReactorWork) -> ReactorWork {
        ReactorWork {
            syscalls: self.syscalls.saturating_sub(earlier.syscalls),
            sends: self.sends.saturating_sub(earlier.sends),
            sent_bytes: self.sent_bytes.saturating_sub(earlier.sent_bytes),
            receives: self.receives.saturating_sub(earlier.receives),
            wakes: self.wakes.saturating_sub(earlier.wakes),
            calls: self.calls.saturating_sub(earlier.calls),
        }
    }
}

/// Completions by outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcomes {
    /// Answered NFS4_OK.
    pub ok: u64,
    /// Answered with an error.
    pub error: u64,
    /// The deadline passed.
    pub timed_out: u64,
    /// Of those that timed out, the ones that had been sent.
    pub timed_out_sent: u64,
    /// Nothing was left to be sent: the delegation came back first.
    pub refused: u64,
    /// No path to the client.
    pub path_down: u64,
    /// The client was in courtesy.
    pub courtesy: u64,
    /// Cancelled, by a drain or with the client.
    pub cancelled: u64,
    /// Delivered, result unknown.
    pub delivered_unknown: u64,
    /// The path is at fault.
    pub fault: u64,
}

impl Outcomes {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.answered() + self.timed_out + self.refused + self.path_down + self.courtesy + self.cancelled + self.fault
    }

    /// Those that the client took.
    pub fn answered(&self) -> u64 {
        self.ok + self.error + self.delivered_unknown
    }

    /// Adds another count to this one.
    pub fn add(&mut self, other: &Outcomes) {
        self.ok += other.ok;
        self.error += other.error;
        self.timed_out += other.timed_out;
        self.timed_out_sent += other.timed_out_sent;
        self.refused += other.refused;
        self.path_down += other.path_down;
        self.courtesy += other.courtesy;
        self.cancelled += other.cancelled;
        self.delivered_unknown += other.delivered_unknown;
        self.fault += other.fault;
    }
}

/// Latencies and completions over time.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Latency of answered callbacks of live clients, us.
    pub latency: Histogram<u64>,
    /// The same by interval: since the start of the recall phase, length, histogram.
    pub intervals: Vec<(Duration, Duration, Histogram<u64>)>,
    /// Completions so far, by time since the start of the recall phase; begins with (0, 0).
    pub progress: Vec<(Duration, u64)>,
    /// When the last answer was there: what ends later ends by its deadline.
    pub last_answer: Duration,
}

impl Default for Measured {
    fn default() -> Self {
        Measured {
            latency: histogram(),
            intervals: Vec::new(),
            progress: vec![(Duration::ZERO, 0)],
            last_answer: Duration::ZERO,
        }
    }
}

/// An empty histogram of microseconds: 1 us to 1 hour, three digits, in 200 KiB.
pub fn histogram() -> Histogram<u64> {
    const MICROSECONDS_MAX: u64 = 3_600_000_000;
    const DIGITS: u8 = 3;
    // The bounds are constants within what the histogram takes (its documentation: high at least twice low, digits <= 5).
    Histogram::new_with_bounds(1, MICROSECONDS_MAX, DIGITS).unwrap_or_else(|e| unreachable!("fixed bounds: {e}"))
}

/// What the swarm counted: it trusts nobody.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SwarmTally {
    /// Delegations granted to it.
    pub granted: u64,
    /// OPENs that succeeded without a delegation.
    pub not_granted: u64,
    /// Delegations granted with a stateid that was held already.
    pub granted_twice: u64,
    /// Delegations for which at least one CB_RECALL was executed.
    pub recalled: u64,
    /// CB_RECALLs executed; a resend that its slot table answers is none.
    pub received: u64,
    /// CB_RECALLs executed for a delegation that had been recalled before, where nothing the client did asked for it.
    pub doubled: u64,
    /// CB_RECALLs executed once more because the client had told that the first one's reply is lost.
    pub repeated: u64,
    /// Records that could not be decoded.
    pub malformed: u64,
    /// Callbacks against the session's rules, with a wrong credential or program, or with one that was replaced; replies to
    /// nothing.
    pub against_rules: u64,
    /// Callbacks with a credential that is not the one that goes with their program.
    pub other_credential: u64,
    /// CB_RECALLs for what was never granted.
    pub unknown: u64,
    /// Delegations of clients that are neither dead nor told to answer DELAY for which no CB_RECALL arrived.
    pub missed_live: u64,
    /// Delegations returned.
    pub returned: u64,
    /// Delegations of live clients that were recalled and not returned.
    pub kept_live: u64,
    /// Answers NFS4ERR_DELAY.
    pub delayed: u64,
    /// CB_COMPOUNDs executed, of one CB_RECALL or more.
    pub callbacks: u64,
    /// Resends that the slot tables recognised.
    pub resends: u64,
    /// Connections that were cut on purpose.
    pub cuts: u64,
    /// Times that a client had program and credential of its callbacks replaced: after each cut.
    pub controls: u64,
    /// Connections that the server closed, or that broke.
    pub connections_lost: u64,
    /// Opens for write that made the server recall.
    pub triggered: u64,
    /// Clients that gave up, and why.
    pub failures: Vec<String>,
    /// CPU over the whole run.
    pub cpu: CpuTime,
    /// CPU over the recall phase.
    pub recall_cpu: CpuTime,
    /// Most resident memory.
    pub peak_rss_bytes: u64,
}

impl ServerResults {
    /// The longest time in which an upgrade let nothing be sent and received.
    pub fn pause_max(&self) -> Duration {
        self.upgrades.iter().max().copied().unwrap_or_default()
    }

    /// Callbacks completed per second of the recall phase.
    pub fn callbacks_per_s(&self) -> f64 {
        ratio(self.completed as f64, self.recall.as_secs_f64())
    }

    /// Callbacks answered per second until the last answer: what clients that answer get while others do not.
    pub fn answered_per_s(&self) -> f64 {
        ratio(self.outcomes.answered() as f64, self.measured.last_answer.as_secs_f64())
    }

    /// `amount` for each completed callback.
    pub fn per_callback(&self, amount: u64) -> f64 {
        ratio(amount as f64, self.completed as f64)
    }

    /// Resident bytes of the runtime for each idle delegation.
    pub fn idle_bytes_per_delegation(&self) -> f64 {
        ratio(self.idle_bytes as f64, self.idle_callbacks as f64)
    }
}

impl SwarmTally {
    /// CPU of the swarm over the recall phase, for each recall that it took.
    pub fn cpu_ns_per_recall(&self) -> f64 {
        ratio(self.recall_cpu.total_ns() as f64, self.received as f64)
    }
}

fn ratio(a: f64, b: f64) -> f64 {
    if b > 0.0 { a / b } else { 0.0 }
}
