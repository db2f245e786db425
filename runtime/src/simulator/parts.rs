//! Parts of a reactor, one by one, for the micro-benchmarks in `bench/`.

use crate::callback::{CallbackKey, CallbackSlab, Claim, Finish, Inbox, InsertError, Removal};
use crate::reactor::Timers;
use ringback_rpc::nfs4::callback::CallbackOp;

/// Callback entries and the queue that takes them to their reactor.
pub struct Entries {
    slab: CallbackSlab,
    inbox: Inbox,
}

impl Entries {
    /// Room for so many.
    pub fn new(entries_max: u32) -> Self {
        Entries { slab: CallbackSlab::new(entries_max, 1), inbox: Inbox::new() }
    }

    /// Makes a CB_RECALL.
    pub fn insert(&self, cookie: u64) -> Result<CallbackKey, InsertError> {
        self.slab.insert(0, 0, CallbackOp::Recall as u8, cookie)
    }

    /// Removes an idle one. `false`: it is not there, or not idle.
    pub fn remove(&self, key: CallbackKey) -> bool {
        let is_free = self.slab[key.index].word().remove(key.generation) == Removal::FreeNow;
        if is_free {
            self.slab.free(key.index);
        }
        is_free
    }

    /// What the state word goes through in one run: won, taken off its queue, settled, finished. `false`: it was not won.
    pub fn run(&self, key: CallbackKey) -> bool {
        let word = self.slab[key.index].word();
        if self.slab[key.index].try_run(key.generation) != Claim::Submit {
            return false;
        }
        let _ = word.take_requeue();
        let _ = word.settle();
        matches!(word.finish(true), Finish::Idle { .. })
    }

    /// Queues one that is not queued.
    pub fn push(&self, key: CallbackKey) {
        self.inbox.push(&self.slab, key.index);
    }

    /// Takes all that are queued, in their order. How many those were.
    pub fn drain(&self) -> usize {
        let mut chain = self.inbox.take_all(&self.slab);
        std::iter::from_fn(|| chain.pop(&self.slab)).count()
    }
}

/// The timers of a reactor.
pub struct TimerWheel(Timers);

impl TimerWheel {
    /// A wheel without timers.
    pub fn new(now_ns: u64) -> Self {
        TimerWheel(Timers::new(now_ns))
    }

    /// Has `id` fire at that time, or earlier if it was armed for earlier.
    pub fn arm(&mut self, id: u32, at_ns: u64) {
        self.0.arm(id, at_ns);
    }

    /// Moves to that time and appends the ids whose time has come.
    pub fn expire(&mut self, now_ns: u64, fired: &mut Vec<u32>) {
        self.0.expire(now_ns, fired);
    }
}
