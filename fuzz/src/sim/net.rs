//! The simulated network: lines between a client and a reactor that delay, split, freeze, close and reset.

pub(crate) mod dial;
mod handover;
mod socket;

use super::choices::Choices;
use super::coverage::Kind;
use super::journal::{Journal, Rule};
use dial::{Dial, Listener};
use ringback::simulator::{ConnKey, SendBuf};
use socket::Far;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

/// A line, by its number.
pub(crate) type LineId = usize;

/// How bytes that have arrived are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Split {
    /// Not at all.
    Whole,
    /// At every byte.
    Every,
    /// Anywhere.
    Anywhere,
}

/// How one line carries bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quality {
    pub latency_ns: u64,
    pub jitter_ns: u64,
    pub split: Split,
    /// Bytes on their way to the client beyond which the server's kernel takes no more.
    pub window_bytes: usize,
}

/// How a direction ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Fin,
    Reset,
}

/// One direction of a line.
#[derive(Debug, Default)]
struct Pipe {
    /// When each piece arrives, and its bytes.
    pieces: VecDeque<(u64, VecDeque<u8>)>,
    bytes: usize,
    last_due_ns: u64,
    end: Option<(u64, End)>,
}

impl Pipe {
    fn push(&mut self, due_ns: u64, bytes: &[u8]) {
        // A stream keeps its order.
        self.last_due_ns = self.last_due_ns.max(due_ns);
        self.bytes += bytes.len();
        self.pieces.push_back((self.last_due_ns, bytes.iter().copied().collect()));
    }

    fn finish(&mut self, due_ns: u64, end: End) {
        self.last_due_ns = self.last_due_ns.max(due_ns);
        if self.end.is_none_or(|(_, before)| before == End::Fin) {
            self.end = Some((self.last_due_ns, end));
        }
    }

    fn clear(&mut self) {
        self.pieces.clear();
        self.bytes = 0;
    }

    fn arrived(&self, now_ns: u64) -> bool {
        self.pieces.front().is_some_and(|(due, _)| *due <= now_ns)
    }

    /// How it has ended, once everything before was read; a reset does not wait for that.
    fn ended(&self, now_ns: u64) -> Option<End> {
        let (due, end) = self.end?;
        (due <= now_ns && (end == End::Reset || self.bytes == 0)).then_some(end)
    }

    fn take(&mut self, now_ns: u64, max: usize, split: Split, choices: &mut Choices) -> Vec<u8> {
        let max = match split {
            Split::Whole => max,
            Split::Every => 1,
            Split::Anywhere => choices.log_between(1, max as u64) as usize,
        };
        let mut taken = Vec::new();
        while taken.len() < max && self.arrived(now_ns) {
            let Some((_, piece)) = self.pieces.front_mut() else { break };
            let count = piece.len().min(max - taken.len());
            taken.extend(piece.drain(..count));
            if piece.is_empty() {
                self.pieces.pop_front();
            }
        }
        self.bytes -= taken.len();
        taken
    }

    fn next_due_ns(&self) -> Option<u64> {
        self.pieces.front().map(|(due, _)| *due).or(self.end.map(|(due, _)| due))
    }
}

/// The server's end of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The descriptor was handed over, and is on its way to the reactor.
    HandedOver,
    /// The reactor connects.
    Dialling,
    Attached,
    /// It is to come out of the back end, and stay open.
    Lifting,
    Detaching,
    Gone,
}

struct Sending {
    buf: SendBuf,
    taken: usize,
    /// When the completion is seen; `None`: the kernel has not taken all of it.
    done_ns: Option<u64>,
    failed: bool,
}

pub(crate) struct Line {
    pub quality: Quality,
    /// Delivers nothing, either way, and says nothing.
    pub frozen: bool,
    /// Whether the client reads.
    pub reads: bool,
    client_open: bool,
    client_shut: bool,
    stage: Stage,
    reactor: usize,
    key: Option<ConnKey>,
    descriptor: Option<OwnedFd>,
    /// The other end of it, to see whether it was closed.
    far: Option<Far>,
    dial: Option<Dial>,
    paused: bool,
    closed_told: bool,
    sending: Option<Sending>,
    /// The last send was refused: the reactor has something that it could not hand over.
    refused: bool,
    gone_ns: u64,
    to_client: Pipe,
    to_server: Pipe,
}

/// What a reactor is told about a line.
pub(crate) enum Happening {
    Connected(io::Result<()>),
    Received(Vec<u8>),
    Sent(SendBuf, io::Result<usize>),
    Closed(Option<io::Error>),
    Detached,
    Lifted(OwnedFd),
}

/// What fails for no reason of the network.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults {
    /// Sends that are refused, of a thousand.
    pub send_refused: u64,
    /// Every so many fallible steps fail; 0: none.
    pub every_nth: u64,
    pub attach_failed: u64,
    /// Sends that complete before all of it was taken, of a thousand that cannot complete at once.
    pub send_partial: u64,
    pub attempts: u64,
}

impl Faults {
    pub(crate) fn none() -> Self {
        Faults::default()
    }
}

/// All lines.
pub(crate) struct Net {
    journal: Journal,
    pub choices: Choices,
    pub faults: Faults,
    pub lines: Vec<Line>,
    by_descriptor: HashMap<u64, LineId>,
    /// Lines that some side still has, to look no further.
    live: Vec<LineId>,
    /// What kernels took from reactors since it was looked at last.
    pub tapped: Vec<(LineId, Vec<u8>)>,
    /// Callback services, by their addresses.
    pub listeners: BTreeMap<SocketAddr, Listener>,
    /// Lines that reactors have made, and the clients that do not know of them yet.
    pub accepted: Vec<(usize, LineId)>,
    /// Two processes may have the same descriptors.
    pub handing_over: bool,
}

impl Net {
    pub(crate) fn new(journal: Journal, choices: Choices, faults: Faults) -> Self {
        let (lines, by_descriptor, live, tapped, listeners, accepted) = Default::default();
        let handing_over = false;
        Net { journal, choices, faults, lines, by_descriptor, live, tapped, listeners, accepted, handing_over }
    }

    fn now_ns(&self) -> u64 {
        self.journal.now_ns()
    }

    fn due_ns(&mut self, line: LineId) -> u64 {
        let quality = self.lines[line].quality;
        let jitter_ns = self.choices.between(0, quality.jitter_ns);
        if jitter_ns > 0 {
            self.journal.reach(Kind::BytesDelayed);
        }
        self.now_ns() + quality.latency_ns + jitter_ns
    }

    // --- the client's side ---------------------------------------------------------------------------------------

    /// A client connects: the line, and the server's descriptor of it.
    pub(crate) fn connect(&mut self, quality: Quality) -> (LineId, OwnedFd) {
        let (far, descriptor) = socket::pair();
        let (number, descriptor) = socket::identity(descriptor);
        let id = self.lines.len();
        self.by_descriptor.insert(number, id);
        self.live.push(id);
        self.lines.push(Line {
            quality,
            frozen: false,
            reads: true,
            client_open: true,
            client_shut: false,
            stage: Stage::HandedOver,
            reactor: 0,
            key: None,
            descriptor: None,
            far: Some(far),
            dial: None,
            paused: false,
            closed_told: false,
            sending: None,
            refused: false,
            gone_ns: 0,
            to_client: Pipe::default(),
            to_server: Pipe::default(),
        });
        (id, descriptor)
    }

    /// The server has closed, or is closing, its end: what still arrives on the line is history.
    pub(crate) fn is_history(&self, line: LineId) -> bool {
        matches!(self.lines[line].stage, Stage::Detaching | Stage::Gone)
    }

    /// Both sides have the line, and both directions of it work.
    pub(crate) fn is_whole(&self, line: LineId) -> bool {
        let line = &self.lines[line];
        line.client_open && !line.client_shut && line.stage == Stage::Attached && !line.closed_told
    }

    /// Whether all that was sent on these lines was read, and by one and the same reactor.
    pub(crate) fn have_arrived_at_one(&self, lines: &[LineId]) -> bool {
        let mut open = lines.iter().filter(|id| !self.is_history(**id)).map(|id| &self.lines[*id]).peekable();
        let reactor = open.peek().map(|line| line.reactor);
        open.all(|line| line.to_server.bytes == 0 && !line.paused && Some(line.reactor) == reactor)
    }

    /// Whether the client has something to read.
    pub(crate) fn client_ready(&self, line: LineId) -> bool {
        let now_ns = self.now_ns();
        let line = &self.lines[line];
        line.client_open
            && !line.frozen
            && line.reads
            && (line.to_client.arrived(now_ns) || line.to_client.ended(now_ns).is_some())
    }

    /// What the client reads: bytes, or `None` at the end.
    pub(crate) fn client_read(&mut self, id: LineId) -> Option<Vec<u8>> {
        let now_ns = self.now_ns();
        let line = &mut self.lines[id];
        if line.to_client.ended(now_ns).is_some() {
            return None;
        }
        let bytes = line.to_client.take(now_ns, 1 << 16, line.quality.split, &mut self.choices);
        if line.to_client.arrived(now_ns) {
            self.journal.reach(Kind::BytesCut);
        }
        self.pump(id);
        Some(bytes)
    }

    pub(crate) fn client_write(&mut self, id: LineId, bytes: &[u8]) {
        let due_ns = self.due_ns(id);
        let line = &mut self.lines[id];
        if line.client_open && !line.client_shut && line.stage != Stage::Gone {
            line.to_server.push(due_ns, bytes);
        }
    }

    /// The client sends no more; it still reads.
    pub(crate) fn client_shut(&mut self, id: LineId) {
        let due_ns = self.due_ns(id);
        let line = &mut self.lines[id];
        if line.client_open && !line.client_shut {
            line.client_shut = true;
            self.journal.reach(Kind::LineHalfClosed);
            line.to_server.finish(due_ns, End::Fin);
        }
    }

    /// The client closes the line, in order or with a reset that overtakes what was under way.
    pub(crate) fn client_close(&mut self, id: LineId, reset: bool) {
        let due_ns = self.due_ns(id);
        let line = &mut self.lines[id];
        if !line.client_open {
            return;
        }
        line.client_open = false;
        self.journal.reach(if reset { Kind::LineReset } else { Kind::LineClosed });
        line.to_client.clear();
        if reset {
            line.to_server.clear();
            line.to_server.finish(due_ns, End::Reset);
        } else if !line.client_shut {
            line.to_server.finish(due_ns, End::Fin);
        }
        self.pump(id);
    }

    // --- the server's side ---------------------------------------------------------------------------------------

    /// A reactor takes a descriptor over. `None`: it failed.
    pub(crate) fn attach(&mut self, reactor: usize, key: ConnKey, descriptor: OwnedFd) -> Option<LineId> {
        let (number, descriptor) = socket::identity(descriptor);
        let id = self.by_descriptor.remove(&number)?;
        let fails = self.choices.per_mille(self.faults.attach_failed);
        let line = &mut self.lines[id];
        (line.reactor, line.key) = (reactor, Some(key));
        if fails {
            self.journal.reach(Kind::AttachFailed);
            (line.stage, line.far) = (Stage::Gone, None);
            line.to_client.finish(0, End::Reset);
            return None;
        }
        line.stage = Stage::Attached;
        line.descriptor = Some(descriptor);
        Some(id)
    }

    pub(crate) fn detach(&mut self, id: LineId) {
        let due_ns = self.due_ns(id);
        let delay_ns = self.choices.pick(&[0, 0, 1000, 1_000_000]);
        let reset = self.choices.per_mille(300);
        let now_ns = self.now_ns();
        let line = &mut self.lines[id];
        line.stage = Stage::Detaching;
        line.gone_ns = now_ns + delay_ns;
        line.to_server.clear();
        if reset {
            // What was not read yet is lost with it.
            line.to_client.clear();
        }
        line.to_client.finish(due_ns, if reset { End::Reset } else { End::Fin });
        if let Some(sending) = &mut line.sending
            && sending.done_ns.is_none()
        {
            (sending.done_ns, sending.failed) = (Some(now_ns), true);
        }
    }

    pub(crate) fn pause(&mut self, id: LineId, paused: bool) {
        if paused {
            self.journal.reach(Kind::ReceivingPaused);
        }
        self.lines[id].paused = paused;
    }

    /// Whether a step that may fail does, by the plan of the scenario.
    pub(crate) fn step_fails(&mut self) -> bool {
        self.faults.attempts += 1;
        self.faults.every_nth > 0 && self.faults.attempts.is_multiple_of(self.faults.every_nth)
    }

    /// A reactor sends; the buffer comes back if that is refused.
    pub(crate) fn send(&mut self, id: LineId, buf: SendBuf) -> Result<(), SendBuf> {
        let refused = self.step_fails() || self.choices.per_mille(self.faults.send_refused);
        let line = &mut self.lines[id];
        if line.sending.is_some() {
            self.journal.fail(Rule::Seam, format!("a second send on line {id} while one is in flight"));
            return Err(buf);
        }
        line.refused = refused;
        if refused {
            self.journal.reach(Kind::SendRefused);
            self.journal.note(|| format!("line {id}: send refused"), id as u64);
            return Err(buf);
        }
        line.sending = Some(Sending { buf, taken: 0, done_ns: None, failed: false });
        self.pump(id);
        Ok(())
    }

    /// Moves bytes of the send in flight into the line, as far as there is room.
    fn pump(&mut self, id: LineId) {
        let due_ns = self.due_ns(id);
        let now_ns = self.now_ns();
        let delay_ns = self.choices.pick(&[0, 0, 1000, 20_000]);
        let partial = self.choices.per_mille(self.faults.send_partial);
        let line = &mut self.lines[id];
        let Some(sending) = line.sending.as_mut().filter(|s| s.done_ns.is_none()) else { return };
        let broken = line.to_server.end.is_some_and(|(due, end)| end == End::Reset && due <= now_ns);
        if broken {
            self.journal.reach(Kind::SendFailed);
            (sending.done_ns, sending.failed) = (Some(now_ns), true);
            return;
        }
        let room = line.quality.window_bytes.saturating_sub(line.to_client.bytes);
        let count = room.min(sending.buf.unsent().len());
        if count < sending.buf.unsent().len() {
            self.journal.reach(Kind::SendBufferFull);
        }
        if count > 0 {
            let bytes = &sending.buf.unsent()[..count];
            self.tapped.push((id, bytes.to_vec()));
            if line.client_open {
                line.to_client.push(due_ns, bytes);
            } else {
                // Nobody is there any more, which the server learns by a reset.
                line.to_server.finish(due_ns, End::Reset);
            }
            sending.buf.advance(count);
            sending.taken += count;
        }
        if sending.buf.unsent().is_empty() || (partial && sending.taken > 0) {
            sending.done_ns = Some(now_ns + delay_ns);
            if !sending.buf.unsent().is_empty() {
                self.journal.reach(Kind::SendPartial);
            }
        }
    }

    /// Neither a send in flight nor one that was refused: what the reactor encoded for the line has left it.
    pub(crate) fn is_quiet(&self, id: LineId) -> bool {
        let line = &self.lines[id];
        line.sending.is_none() && !line.refused
    }

    pub(crate) fn reactor_of(&self, id: LineId) -> Option<usize> {
        let line = &self.lines[id];
        (line.stage == Stage::Attached).then_some(line.reactor)
    }

    pub(crate) fn key_of(&self, id: LineId) -> Option<ConnKey> {
        self.lines[id].key
    }

    fn is_ready(&self, id: LineId, now_ns: u64) -> bool {
        let line = &self.lines[id];
        let sent = line.sending.as_ref().is_some_and(|s| s.done_ns.is_some_and(|at| at <= now_ns));
        match line.stage {
            Stage::Lifting => true,
            Stage::Detaching => sent || (line.sending.is_none() && line.gone_ns <= now_ns),
            Stage::Attached => {
                let heard = !line.frozen && !line.paused && !line.closed_told;
                sent || (heard && (line.to_server.arrived(now_ns) || line.to_server.ended(now_ns).is_some()))
                    || (!line.frozen && line.sending.is_some() && !sent && self.is_broken(id, now_ns))
            }
            Stage::Dialling => !line.frozen && line.dial.is_some_and(|dial| dial.due_ns <= now_ns),
            Stage::HandedOver | Stage::Gone => false,
        }
    }

    fn is_broken(&self, id: LineId, now_ns: u64) -> bool {
        let line = &self.lines[id];
        line.to_server.end.is_some_and(|(due, end)| end == End::Reset && due <= now_ns)
            && line.sending.as_ref().is_some_and(|s| s.done_ns.is_none())
    }

    /// Whether a reactor has something to see.
    pub(crate) fn is_awake(&self, reactor: usize) -> bool {
        let now_ns = self.now_ns();
        self.live.iter().any(|id| self.lines[*id].reactor == reactor && self.is_ready(*id, now_ns))
    }

    /// Something that a reactor sees now, on whichever line.
    pub(crate) fn next_happening(&mut self, reactor: usize, room: Option<usize>) -> Option<(LineId, Happening)> {
        let now_ns = self.now_ns();
        let ready = |net: &Net, id: LineId| net.lines[id].reactor == reactor && net.is_ready(id, now_ns);
        let count = self.live.iter().filter(|id| ready(self, **id)).count();
        if count == 0 {
            return None;
        }
        let nth = self.choices.index(count);
        let id = *self.live.iter().filter(|id| ready(self, **id)).nth(nth)?;
        Some((id, self.happen(id, room)?))
    }

    fn happen(&mut self, id: LineId, room: Option<usize>) -> Option<Happening> {
        let now_ns = self.now_ns();
        if self.is_broken(id, now_ns) {
            self.pump(id);
        }
        match self.lines[id].stage {
            Stage::Dialling => return self.dialled(id),
            Stage::Lifting => return self.lifted(id, room),
            _ => {}
        }
        let line = &mut self.lines[id];
        if let Some(sending) = line.sending.take_if(|s| s.done_ns.is_some_and(|at| at <= now_ns)) {
            let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
            let result = if sending.failed { Err(gone()) } else { Ok(sending.taken) };
            return Some(Happening::Sent(sending.buf, result));
        }
        if line.stage == Stage::Detaching {
            line.stage = Stage::Gone;
            line.descriptor = None;
            self.check_closed(id);
            return Some(Happening::Detached);
        }
        if let Some(end) = line.to_server.ended(now_ns) {
            line.closed_told = true;
            let error = (end == End::Reset).then(|| io::Error::from(io::ErrorKind::ConnectionReset));
            return Some(Happening::Closed(error));
        }
        let bytes = line.to_server.take(now_ns, room?, line.quality.split, &mut self.choices);
        if line.to_server.arrived(now_ns) {
            self.journal.reach(Kind::BytesCut);
        }
        (!bytes.is_empty()).then_some(Happening::Received(bytes))
    }

    // --- time ----------------------------------------------------------------------------------------------------

    /// When something on a line is due next, of what can be seen at all: reactors that stand still see nothing.
    pub(crate) fn next_due_ns(&mut self, is_still: impl Fn(usize) -> bool) -> Option<u64> {
        let lines = &self.lines;
        self.live.retain(|id| lines[*id].stage != Stage::Gone || lines[*id].client_open);
        let due_ns = |id: &LineId| line_due_ns(&self.lines[*id], is_still(self.lines[*id].reactor));
        self.live.iter().filter_map(due_ns).min()
    }

    /// Lines that some side still has.
    pub(crate) fn live(&self) -> impl Iterator<Item = LineId> {
        self.live.iter().copied()
    }

    /// Descriptors that a reactor still has.
    pub(crate) fn attached_count(&self) -> usize {
        self.lines.iter().filter(|l| l.descriptor.is_some()).count()
    }
}

fn line_due_ns(line: &Line, is_still: bool) -> Option<u64> {
    let mut due = None::<u64>;
    let mut add = |at: Option<u64>| due = due.into_iter().chain(at).min();
    if !is_still {
        add(line.sending.as_ref().and_then(|s| s.done_ns));
    }
    match line.stage {
        _ if is_still => {}
        Stage::Dialling if !line.frozen => add(line.dial.map(|dial| dial.due_ns).filter(|due| *due < u64::MAX)),
        Stage::Detaching if line.sending.is_none() => add(Some(line.gone_ns)),
        Stage::Attached if !line.frozen => {
            if !line.paused && !line.closed_told {
                add(line.to_server.next_due_ns());
            }
            if line.sending.as_ref().is_some_and(|s| s.done_ns.is_none()) {
                add(line.to_server.end.filter(|(_, end)| *end == End::Reset).map(|(due, _)| due));
            }
        }
        _ => {}
    }
    if line.client_open && line.reads && !line.frozen {
        add(line.to_client.next_due_ns());
    }
    due
}
