//! The flight recorder: what happened last to callbacks and their paths, in a ring of each reactor whose memory is taken when
//! the runtime is built. The reactor writes, and anyone may read at any time, whatever the reactor is doing or is stuck in:
//! each record has a number that is 0 while it is written, so that a reader can tell a whole record from a torn one.
//!
//! The same steps are events of `tracing` where the feature is on, under the names of Linux nfsd's trace points where they
//! mean the same.

use crate::callback::CallbackKey;
use crate::completion::Ending;
use crate::io::monotonic_ns;
use crate::keys::{ClientId, ConnectionId};
use crate::runtime::Runtime;
use ringback_rpc::backchannel::{PathFaultKind, PathState, Requeue};
use ringback_rpc::nfs4::Status;
use ringback_rpc::nfs4::callback::CallbackOp;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering::*, fence};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Most records of one reactor.
pub(crate) const FLIGHT_RECORDS_MAX: usize = 1 << 24;
/// Words of a record, its number included.
const WORDS: usize = 6;
/// The version of the lines that [`FlightRecord::to_json_lines`] writes.
const VERSION: u32 = 1;

macro_rules! steps {
    ($($(#[$doc:meta])* $step:ident = $code:literal, $name:literal, $event:literal;)*) => {
        /// What happened.
        ///
        /// # Examples
        ///
        /// ```
        /// use ringback::FlightStep;
        ///
        /// assert_eq!((FlightStep::Queued.name(), FlightStep::Queued.event()), ("queued", "nfsd_cb_queue"));
        /// ```
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum FlightStep {
            $($(#[$doc])* $step = $code,)*
        }

        impl FlightStep {
            /// All of them.
            pub const ALL: &'static [FlightStep] = &[$(FlightStep::$step,)*];

            /// A word for it.
            pub const fn name(self) -> &'static str {
                match self {
                    $(FlightStep::$step => $name,)*
                }
            }

            /// The name of its event in `tracing`.
            pub const fn event(self) -> &'static str {
                match self {
                    $(FlightStep::$step => $event,)*
                }
            }
        }

        #[cfg(feature = "tracing")]
        fn trace(raw: &Raw) {
            let (client, key, op) = (raw.client, raw.key, op_name(raw.op));
            let (detail, session, slot, xid) = (detail(raw.step, raw.code), raw.session, raw.slot, raw.xid);
            match raw.step {
                $(FlightStep::$step => tracing::event!(
                    name: $event, target: "ringback", tracing::Level::DEBUG,
                    client, key, op, detail, session, slot, xid
                ),)*
            }
        }
    };
}

steps! {
    /// The home reactor has taken up an accepted run.
    Queued = 1, "queued", "nfsd_cb_queue";
    /// A call with it was written for a connection: that of the first run of a batch.
    Sent = 2, "sent", "nfsd_cb_rpc_prepare";
    /// A call was written once more with the same bytes, for another connection.
    Resent = 3, "resent", "ringback_cb_resent";
    /// A lone CB_SEQUENCE asks where a session slot stands.
    Resynchronising = 4, "resynchronising", "ringback_cb_resynchronising";
    /// The client has answered a call: the status of CB_SEQUENCE.
    Answered = 5, "answered", "nfsd_cb_seq_status";
    /// The run was put back on its queue: why.
    Requeued = 6, "requeued", "nfsd_cb_restart";
    /// The run is decided, and `done` has said that it is finished: how it ended.
    Done = 7, "done", "nfsd_cb_rpc_done";
    /// The run was released: it is over.
    Released = 8, "released", "nfsd_cb_destroy";
    /// The state of the client's callback path changed: the new one.
    Path = 9, "path", "nfsd_cb_new_state";
    /// A connection of the client is gone.
    Lost = 10, "lost", "nfsd_cb_lost";
    /// Nothing came back on a connection: it is closed.
    Condemned = 11, "condemned", "ringback_cb_condemned";
    /// The client says that a connection does not carry a session's backchannel.
    Unbound = 12, "unbound", "ringback_cb_unbound";
    /// Every connection of a session answered NFS4ERR_BADSESSION.
    SessionLost = 13, "session_lost", "ringback_cb_session_lost";
    /// A session's backchannel does not follow the protocol: how.
    SessionFault = 14, "session_fault", "ringback_cb_session_fault";
    /// A connection carries a session's backchannel from now on.
    Bound = 15, "bound", "nfsd_cb_bc_update";
    /// The client was removed.
    Shutdown = 16, "shutdown", "nfsd_cb_shutdown";
    /// All runs are to end.
    Draining = 17, "draining", "ringback_cb_draining";
    /// The session slot of a call is free for the next one.
    SlotFreed = 18, "slot_freed", "nfsd_cb_free_slot";
    /// The client leaves for another reactor.
    Moved = 19, "moved", "ringback_cb_moved";
}

impl FlightStep {
    const fn is_about_call(self) -> bool {
        use FlightStep::{Answered, Resent, Resynchronising, Sent, SlotFreed};
        matches!(self, Sent | Resent | Resynchronising | Answered | SlotFreed)
    }
}

/// A step as it is recorded. What does not apply is 0.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Raw {
    pub step: FlightStep,
    pub op: u8,
    /// What [`detail`] makes words of.
    pub code: u8,
    pub client: u64,
    pub key: u64,
    /// The serial of the session, or the bits of the connection.
    pub session: u64,
    pub slot: u32,
    pub xid: u32,
}

impl Raw {
    pub fn new(step: FlightStep, client: ClientId) -> Self {
        Raw { step, op: 0, code: 0, client: client.to_bits(), key: 0, session: 0, slot: 0, xid: 0 }
    }

    pub fn of_run(step: FlightStep, run: &crate::Run) -> Self {
        Raw { op: run.op as u8, key: run.key.to_bits(), ..Raw::new(step, run.client) }
    }
}

/// The ring of one reactor, which alone writes.
#[derive(Debug)]
pub(crate) struct FlightRing {
    words: Box<[AtomicU64]>,
    /// Records written so far.
    next: AtomicU64,
}

impl FlightRing {
    /// A ring of this many records at least; 0: none.
    pub fn new(records: usize) -> Option<Self> {
        let words = records.checked_next_power_of_two()? * WORDS;
        let words = (0..words).map(|_| AtomicU64::new(0)).collect();
        (records > 0).then_some(FlightRing { words, next: AtomicU64::new(0) })
    }

    fn place(&self, number: u64) -> Option<&[AtomicU64; WORDS]> {
        let at = (number as usize & (self.words.len() / WORDS - 1)) * WORDS;
        self.words.get(at..at + WORDS)?.try_into().ok()
    }

    pub fn push(&self, at_ns: u64, raw: &Raw) {
        let number = self.next.load(Relaxed);
        let Some([tag, at, key, client, session, rest]) = self.place(number) else { return };
        tag.store(0, Relaxed);
        fence(Release); // before what follows; partner: `read`
        at.store(at_ns, Relaxed);
        key.store(raw.key, Relaxed);
        client.store(raw.client, Relaxed);
        // A serial and an xid share a word: no runtime makes 4 G sessions.
        let shared = if raw.step.is_about_call() { raw.session << 32 | u64::from(raw.xid) } else { raw.session };
        session.store(shared, Relaxed);
        let packed = u64::from(raw.slot) << 32 | u64::from(raw.code) << 16 | u64::from(raw.op) << 8;
        rest.store(packed | raw.step as u64, Relaxed);
        tag.store(number + 1, Release);
        self.next.store(number + 1, Release);
    }

    /// A record, if it is there and whole.
    fn read(&self, reactor: usize, number: u64) -> Option<FlightEntry> {
        let place = self.place(number)?;
        if place[0].load(Acquire) != number + 1 {
            return None;
        }
        let [_, at_ns, key, client, session, rest] = place.each_ref().map(|word| word.load(Relaxed));
        fence(Acquire); // after what precedes; partner: `push`
        if place[0].load(Relaxed) != number + 1 {
            return None;
        }
        let step = *FlightStep::ALL.iter().find(|step| **step as u8 == rest as u8)?;
        Some(FlightEntry { at_ns, reactor, number, step, client, key, session, rest })
    }

    fn entries(&self, reactor: usize) -> impl Iterator<Item = FlightEntry> {
        let end = self.next.load(Acquire);
        let begin = end.saturating_sub((self.words.len() / WORDS) as u64);
        (begin..end).filter_map(move |number| self.read(reactor, number))
    }
}

/// One step of a [`FlightRecord`].
///
/// # Examples
///
/// ```
/// use ringback::{CallbackKey, FlightEntry, Runtime};
///
/// /// What happened last to one callback.
/// fn last(runtime: &Runtime, key: CallbackKey) -> Option<FlightEntry> {
///     runtime.flight_record().entries.into_iter().rfind(|entry| entry.key() == Some(key))
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlightEntry {
    at_ns: u64,
    reactor: usize,
    number: u64,
    step: FlightStep,
    client: u64,
    key: u64,
    session: u64,
    rest: u64,
}

impl FlightEntry {
    /// When, on the clock of [`FlightRecord::now_ns`].
    pub fn at_ns(&self) -> u64 {
        self.at_ns
    }

    /// The reactor that recorded it.
    pub fn reactor(&self) -> usize {
        self.reactor
    }

    /// Its number among all that the reactor has recorded since it was built.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// What happened.
    pub fn step(&self) -> FlightStep {
        self.step
    }

    /// To the callbacks of which client.
    pub fn client(&self) -> Option<ClientId> {
        (self.client != 0).then(|| ClientId::from_bits(self.client))
    }

    /// To which callback.
    pub fn key(&self) -> Option<CallbackKey> {
        (self.key != 0).then(|| CallbackKey::from_bits(self.key))
    }

    /// Which operation that is.
    pub fn op(&self) -> Option<CallbackOp> {
        CallbackOp::try_from(u32::from((self.rest >> 8) as u8)).ok()
    }

    /// The status, reason or state that belongs to the step, in a word.
    pub fn detail(&self) -> Option<&'static str> {
        Some(detail(self.step, (self.rest >> 16) as u8)).filter(|detail| !detail.is_empty())
    }

    /// The connection, of a step that is about one.
    pub fn connection(&self) -> Option<ConnectionId> {
        let about =
            matches!(self.step, FlightStep::Lost | FlightStep::Condemned | FlightStep::Unbound | FlightStep::Bound);
        about.then(|| ConnectionId::from_bits(self.session))
    }

    /// The session by its serial, the session slot and the xid, of a step that is about a call.
    pub fn call(&self) -> Option<(u64, u32, u32)> {
        self.step.is_about_call().then_some((self.session >> 32, (self.rest >> 32) as u32, self.session as u32))
    }

    /// The session by its serial, of a step that is about one and not about a call.
    fn session(&self) -> Option<u64> {
        matches!(self.step, FlightStep::SessionLost | FlightStep::SessionFault).then_some(self.session)
    }

    fn write_json(&self, out: &mut String) {
        let FlightEntry { at_ns, reactor, number, step, .. } = self;
        // Numbers, and words without anything to escape. A string takes whatever comes.
        let _ =
            write!(out, "{{\"at_ns\":{at_ns},\"reactor\":{reactor},\"number\":{number},\"step\":\"{}\"", step.name());
        let mut put = |name: &str, value: Option<String>| {
            let _ = value.map(|value| write!(out, ",\"{name}\":{value}"));
        };
        put("client", self.client().map(|client| format!("\"{:x}\"", client.to_bits())));
        put("key", self.key().map(|key| format!("\"{:x}\"", key.to_bits())));
        put("op", self.op().map(|op| format!("\"{op}\"")));
        put("detail", self.detail().map(|detail| format!("\"{detail}\"")));
        put("connection", self.connection().map(|connection| format!("\"{:x}\"", connection.to_bits())));
        put("session", self.session().or(self.call().map(|call| call.0)).map(|session| session.to_string()));
        put("slot", self.call().map(|call| call.1.to_string()));
        put("xid", self.call().map(|call| call.2.to_string()));
        out.push_str("}\n");
    }
}

#[cfg(feature = "tracing")]
fn op_name(op: u8) -> &'static str {
    CallbackOp::try_from(u32::from(op)).map_or("", CallbackOp::name)
}

/// The word for what was recorded beside a step.
fn detail(step: FlightStep, code: u8) -> &'static str {
    let at = usize::from(code);
    match step {
        FlightStep::Done => Ending::from_code(code).name(),
        FlightStep::Requeued => Requeue::ALL.get(at).map_or("", |why| why.name()),
        FlightStep::Path => PathState::ALL.get(at).map_or("", |state| state.name()),
        FlightStep::SessionFault => PathFaultKind::ALL.get(at).map_or("", |fault| fault.name()),
        FlightStep::Answered => match Status::ALL.get(at) {
            Some(status) => status.name().unwrap_or(""),
            None => PathFaultKind::ALL.get(at - Status::ALL.len()).map_or("", |fault| fault.name()),
        },
        _ => "",
    }
}

/// The code of an answer: its status, or behind all of these what is wrong with it.
pub(crate) fn answer_code(status: Result<Status, PathFaultKind>) -> u8 {
    match status {
        Ok(status) => Ending::Replied(status).to_code(),
        Err(fault) => (Status::ALL.len() + fault as usize) as u8,
    }
}

/// What happened last, as [`Builder::flight_records`](crate::Builder::flight_records) has it kept.
///
/// # Examples
///
/// ```
/// use ringback::{Error, Runtime};
/// use std::time::Duration;
///
/// /// Ends the runtime; if that did not end well, the file tells why.
/// fn end(runtime: &Runtime) -> Result<(), Error> {
///     let report = runtime.shutdown(Duration::from_secs(5))?;
///     if report.in_flight > 0 || !report.abandoned.is_empty() {
///         let lines = runtime.flight_record().to_json_lines();
///         if let Err(error) = std::fs::write("flight-record", lines) {
///             eprintln!("flight-record: {error}");
///         }
///     }
///     Ok(())
/// }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FlightRecord {
    /// The monotonic clock when it was read.
    pub now_ns: u64,
    /// The time of day at the same moment, since 1970.
    pub unix: Duration,
    /// The steps, in the order of time.
    pub entries: Vec<FlightEntry>,
}

impl FlightRecord {
    /// Lines of JSON: one about the record, `{"ringback_flight":1,"now_ns":...,"unix_ms":...}`, where 1 is the version of this
    /// form, then one for each step. `ringback flight FILE` shows them in words.
    pub fn to_json_lines(&self) -> String {
        let FlightRecord { now_ns, unix, entries } = self;
        let unix_ms = unix.as_millis();
        let mut lines = format!("{{\"ringback_flight\":{VERSION},\"now_ns\":{now_ns},\"unix_ms\":{unix_ms}}}\n");
        entries.iter().for_each(|entry| entry.write_json(&mut lines));
        lines
    }
}

impl Runtime {
    /// What happened last on each reactor. Waits for nobody: also for when a reactor hangs in a hook, or a drain does not end,
    /// and from hooks. Nothing if the runtime was built without
    /// [`flight_records`](crate::Builder::flight_records).
    pub fn flight_record(&self) -> FlightRecord {
        let ports = self.shared().reactors.iter().enumerate();
        let rings = ports.filter_map(|(reactor, port)| Some((reactor, port.flight.as_ref()?)));
        let mut entries: Vec<_> = rings.flat_map(|(reactor, ring)| ring.entries(reactor)).collect();
        entries.sort_by_key(|entry| (entry.at_ns, entry.reactor, entry.number));
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        FlightRecord { now_ns: monotonic_ns(), unix, entries }
    }
}

/// Whether some subscriber of `tracing` takes events of the level of ours: a load of one word. The subscriber is asked about
/// each of them.
#[inline]
pub(crate) fn is_traced() -> bool {
    #[cfg(feature = "tracing")]
    return tracing::Level::DEBUG <= tracing::level_filters::STATIC_MAX_LEVEL
        && tracing::Level::DEBUG <= tracing::level_filters::LevelFilter::current();
    #[cfg(not(feature = "tracing"))]
    false
}

/// Records a step, and traces it. Not inlined: where nothing is recorded the question whether to must cost no more than that.
#[cold]
#[inline(never)]
pub(crate) fn note(ring: Option<&FlightRing>, at_ns: u64, raw: impl FnOnce() -> Raw) {
    let raw = raw();
    #[cfg(feature = "tracing")]
    trace(&raw);
    if let Some(ring) = ring {
        ring.push(at_ns, &raw);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::sync::atomic::AtomicBool;

    fn raw(number: u64) -> Raw {
        Raw {
            key: number,
            session: number,
            slot: number as u32,
            ..Raw::new(FlightStep::Queued, ClientId::from_bits(number))
        }
    }

    #[test]
    fn the_last_records_are_kept() {
        assert!(FlightRing::new(0).is_none());
        let ring = FlightRing::new(3).unwrap();
        for number in 1..=10 {
            ring.push(number, &raw(number));
        }
        let numbers: Vec<_> = ring.entries(0).map(|entry| (entry.number, entry.at_ns)).collect();
        assert_eq!(numbers, [(6, 7), (7, 8), (8, 9), (9, 10)], "a power of two of them");
    }

    /// A record that is being overwritten while it is read is left out; none is made of two.
    #[test]
    fn a_reader_sees_whole_records_alone() {
        let (ring, stop) = (FlightRing::new(8).unwrap(), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for number in 1.. {
                    ring.push(number, &raw(number));
                    if stop.load(Relaxed) {
                        return;
                    }
                }
            });
            let mut seen = 0;
            while seen < 20_000 {
                for entry in ring.entries(0) {
                    let n = entry.number + 1;
                    let parts = [entry.at_ns, entry.key, entry.client, entry.session];
                    assert_eq!((parts, entry.rest >> 32), ([n; 4], n & 0xffff_ffff), "torn");
                    seen += 1;
                }
            }
            stop.store(true, Relaxed);
        });
    }

    #[test]
    fn each_step_and_each_detail_has_a_name() {
        let names: HashSet<_> = FlightStep::ALL.iter().map(|step| step.name()).collect();
        let events: HashSet<_> = FlightStep::ALL.iter().map(|step| step.event()).collect();
        assert_eq!((names.len(), events.len()), (FlightStep::ALL.len(), FlightStep::ALL.len()));
        let statuses = Status::ALL.iter().map(|status| (Ok(*status), status.name().unwrap()));
        let faults = PathFaultKind::ALL.iter().map(|fault| (Err(*fault), fault.name()));
        for (answer, name) in statuses.chain(faults) {
            assert_eq!(detail(FlightStep::Answered, answer_code(answer)), name);
        }
        assert_eq!(detail(FlightStep::Requeued, Requeue::BatchTorn as u8), "batch_torn");
        assert_eq!(detail(FlightStep::Requeued, u8::MAX), "", "what another version may have written");
    }
}
