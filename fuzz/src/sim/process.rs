//! One process: the hooks are called by the one that serves, and by no other.

use super::embedder::Embedder;
use super::fore::Fore;
use super::journal::{Journal, Rule};
use ringback::{Call, ConnectionId, Done, Event, ForeChannel, Hooks, Outcome, Prepare, ReferringCalls, Restored, Run};
use ringback_rpc::xdr::{Result, Writer};
use std::sync::Arc;

/// See the [module](self).
pub(crate) struct Process {
    pub number: u32,
    pub journal: Journal,
    pub embedder: Arc<Embedder>,
    pub fore: Arc<Fore>,
}

impl Process {
    fn calls(&self, hook: &'static str) {
        let serving = self.embedder.serving();
        self.journal.check(Rule::OneOwner, self.number == serving, || {
            format!("process {} calls {hook}, and process {serving} serves", self.number)
        });
    }
}

impl Hooks for Process {
    fn acquire(&self, cookie: u64) {
        self.calls("acquire");
        self.embedder.acquire(cookie);
    }

    fn prepare(&self, run: &Run) -> Prepare {
        self.calls("prepare");
        self.embedder.prepare(run)
    }

    fn referring_calls(&self, run: &Run, calls: &mut ReferringCalls<'_>) {
        self.calls("referring_calls");
        self.embedder.referring_calls(run, calls);
    }

    fn encode(&self, run: &Run, args: &mut Writer<'_>) -> Result<()> {
        self.calls("encode");
        self.embedder.encode(run, args)
    }

    fn done(&self, run: &Run, outcome: &Outcome<'_>) -> Done {
        self.calls("done");
        self.embedder.done(run, outcome)
    }

    fn release(&self, run: &Run) {
        self.calls("release");
        self.embedder.release(run);
    }

    fn drop_reference(&self, cookie: u64) {
        self.calls("drop_reference");
        self.embedder.drop_reference(cookie);
    }

    fn event(&self, event: &Event) {
        // Of what the old process has left undone it tells when it has let go.
        if let Event::LeftUndone { call, .. } = event {
            return self.journal.note(|| format!("process {} has left undone: {call}", self.number), 34);
        }
        self.calls("event");
        self.embedder.event(event);
    }

    /// What the embedder has itself: how many callbacks it has ever had.
    fn checkpoint(&self, own: &mut Vec<u8>) {
        self.calls("checkpoint");
        let callbacks = self.embedder.reference().callbacks.len() as u64;
        own.extend_from_slice(&callbacks.to_be_bytes());
    }

    fn restored(&self, callback: &Restored) -> Option<u64> {
        let serving = self.embedder.serving();
        // That the other one has crashed meanwhile it is yet to learn.
        let is_next = self.number == (serving & (Embedder::CRASHED - 1)) + 1;
        self.journal.check(Rule::OneOwner, is_next, || {
            format!("process {} restores {callback:?}, and process {serving} serves", self.number)
        });
        self.embedder.restored(callback);
        Some(callback.cookie)
    }
}

impl ForeChannel for Process {
    fn call(&self, call: Call<'_>) {
        self.calls("call");
        self.fore.call(call);
    }

    fn closed(&self, connection: ConnectionId) {
        self.calls("closed");
        self.fore.closed(connection);
    }
}
