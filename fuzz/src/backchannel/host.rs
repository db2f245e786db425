//! The driver of the core: a table of callbacks that checks how the core treats them.

use ringback_rpc::backchannel::{ConnToken, Event, Host, Outcome, Requeue, Sending, Token};
use ringback_rpc::nfs4::callback::CallbackOp;
use ringback_rpc::xdr::{Reader, Result, Writer, XdrError, XdrErrorKind};

/// Callbacks in the table.
pub(super) const TOKENS: usize = 24;

const OPS: [CallbackOp; 6] = [
    CallbackOp::Recall,
    CallbackOp::Getattr,
    CallbackOp::Offload,
    CallbackOp::RecallAny,
    CallbackOp::RecallSlot,
    CallbackOp::LayoutRecall,
];

/// The operation of a callback.
pub(super) fn op_of(token: Token) -> CallbackOp {
    OPS[token.0 as usize % OPS.len()]
}

/// What the embedder will do in the next run of a callback.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Manner {
    pub refuses: bool,
    pub fails: bool,
    /// Words that fill up the arguments.
    pub filling: u32,
    /// `done` asks for another transmission so many times.
    pub again: u8,
}

#[derive(Clone, Debug, Default)]
struct Entry {
    link: Option<Token>,
    note: u8,
    started_ns: u64,
    /// Which run it is, the first is 1.
    run: u32,
    running: bool,
    requeue: bool,
    prepared: bool,
    manner: Manner,
}

/// See the [module](self).
pub(super) struct Table {
    entries: Vec<Entry>,
    pub running: u64,
    pub ended: usize,
    /// Connections that the core wants closed.
    pub close: Vec<ConnToken>,
}

impl Table {
    pub(super) fn new() -> Self {
        Table { entries: vec![Entry::default(); TOKENS], running: 0, ended: 0, close: Vec::new() }
    }

    /// A run begins. `None`: the callback runs already.
    pub(super) fn accept(&mut self, token: Token, now_ns: u64, manner: Manner) -> Option<Token> {
        let entry = &mut self.entries[token.0 as usize];
        if entry.running {
            return None;
        }
        *entry = Entry { run: entry.run + 1, started_ns: now_ns, running: true, manner, ..Entry::default() };
        self.running += 1;
        Some(token)
    }

    fn at(&mut self, token: Token) -> &mut Entry {
        let entry = &mut self.entries[token.0 as usize];
        assert!(entry.running, "{token:?} is not in the core");
        entry
    }

    /// Whether the arguments of this run may go out now.
    fn is_out(&self, token: Token, run: u32) -> bool {
        self.entries.get(token.0 as usize).is_some_and(|e| e.running && e.prepared && e.run == run)
    }

    /// Reads an operation: whose arguments they are, and that its run is under way.
    pub(super) fn read_args(&self, r: &mut Reader<'_>) -> Result<Token> {
        let op = r.u32("argop")?;
        let (token, run) = (Token(r.u32("token")?), r.u32("run")?);
        assert!(self.is_out(token, run), "{token:?} goes out in run {run}, which is not under way");
        assert_eq!(op, op_of(token) as u32);
        for word in 0..r.u32("filling")? {
            assert_eq!(r.u32("filling")?, word);
        }
        Ok(token)
    }

    /// When the run began that has lasted longest.
    pub(super) fn oldest_ns(&self) -> Option<u64> {
        self.entries.iter().filter(|e| e.running).map(|e| e.started_ns).min()
    }
}

impl Host for Table {
    type Known = ();

    fn link(&self, token: Token) -> Option<Token> {
        self.entries[token.0 as usize].link
    }

    fn set_link(&mut self, token: Token, next: Option<Token>) {
        self.at(token).link = next;
    }

    fn note(&self, token: Token) -> u8 {
        self.entries[token.0 as usize].note
    }

    fn set_note(&mut self, token: Token, note: u8) {
        self.at(token).note = note;
    }

    fn op(&self, token: Token) -> CallbackOp {
        op_of(token)
    }

    fn started_ns(&self, token: Token) -> u64 {
        self.entries[token.0 as usize].started_ns
    }

    fn look(&self, token: Token) -> Sending<()> {
        Sending { token, op: self.op(token), started_ns: self.started_ns(token), known: () }
    }

    fn take_requeue(&mut self, run: &Sending<()>) -> bool {
        std::mem::take(&mut self.at(run.token).requeue)
    }

    fn prepare(&mut self, &Sending { token, .. }: &Sending<()>) -> bool {
        let entry = self.at(token);
        assert!(!entry.prepared, "prepare ran again for {token:?}");
        entry.prepared = true;
        !entry.manner.refuses
    }

    fn encode(&mut self, &Sending { token, .. }: &Sending<()>, args: &mut Writer<'_>) -> Result<()> {
        let entry = self.at(token);
        assert!(entry.prepared && !entry.manner.refuses, "{token:?} was not prepared");
        if entry.manner.fails {
            return Err(XdrError { what: "a failing encoder", offset: 0, kind: XdrErrorKind::BadValue { value: 0 } });
        }
        args.u32(token.0)?;
        args.u32(entry.run)?;
        args.u32(entry.manner.filling)?;
        (0..entry.manner.filling).try_for_each(|word| args.u32(word))
    }

    fn done(&mut self, token: Token, outcome: &Outcome<'_>) -> Option<u64> {
        let entry = self.at(token);
        let refused = entry.prepared && entry.manner.refuses;
        assert_eq!(*outcome == Outcome::Refused, refused, "{token:?} ends as {outcome:?}");
        let replied = matches!(outcome, Outcome::Replied { .. } | Outcome::DeliveredUnknown | Outcome::Fault(_));
        assert!(entry.prepared || !replied, "{token:?} was never sent, and ends as {outcome:?}");
        if outcome.may_requeue() && entry.manner.again > 0 {
            entry.manner.again -= 1;
            return Some(u64::from(entry.manner.again) * 100_000_000);
        }
        entry.running = false;
        self.running -= 1;
        self.ended += 1;
        None
    }

    fn requeued(&mut self, token: Token, why: Requeue) {
        let entry = self.at(token);
        assert!(!entry.requeue, "{token:?}: REQUEUE was set already, and now {why:?}");
        entry.requeue = true;
    }

    fn event(&mut self, event: Event) {
        if let Event::CloseConnection(conn) = event {
            self.close.push(conn);
        }
    }
}
