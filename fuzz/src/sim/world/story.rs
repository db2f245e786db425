//! Simulations in which one thing happens that is wanted, over lines and with clients as the seed says.

use super::{S, World};
use crate::sim::client::behaviour::Behaviour;
use crate::sim::embedder::Manners;
use crate::sim::journal::Rule;
use crate::sim::net::Faults;
use crate::sim::net::dial::Door;
use crate::sim::scenario::Scenario;
use ringback::CallbackOp::{Getattr, Recall, RecallAny};
use ringback::{CallbackKey, CallbackOp};
use ringback_rpc::nfs4::Status;

const MS: u64 = 1_000_000;

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Story {
    /// A thousand recalls of a client that takes one call at a time: it has one session slot, a window of one call, or with
    /// `capped` many of them and a limit of one.
    OneByOne {
        /// There are more slots.
        capped: bool,
    },
    /// A hundred clients read one file, whose recall they all get; one of them is dead.
    DeadReader,
    /// A client with a thousand runs, and one with forty that come behind them.
    Crowd,
    /// Runs of each class, of which the highest always has some.
    Classes,
    /// Sixteen recalls of a client that takes them in one call, and stops at the k-th.
    StopsAt {
        /// Which.
        k: usize,
        /// It asks for it once more, instead of saying that it failed.
        delays: bool,
    },
    /// A thousand sessions, and nothing to send.
    Sessions,
    /// Twenty clients of minor version 0 to whom no connection can be made, and one that answers.
    SilentDoors,
}

/// Runs of the client that is crowded out, and of the one that crowds.
const FEW: usize = 40;
const MANY: usize = 1000;

/// Clients that read one file.
const READERS: usize = 100;

/// Callbacks in one call.
const BATCH: usize = 16;

impl Story {
    /// What the seed says, but for what the story is about.
    pub(crate) fn set(self, scenario: &mut Scenario, minor0: bool) {
        let Faults { send_refused, send_partial, .. } = scenario.faults;
        scenario.faults = Faults { send_refused, send_partial, ..Faults::none() };
        (scenario.manners, scenario.odd, scenario.may_lie, scenario.starve) = (Manners::default(), 0, false, 0);
        (scenario.clients, scenario.tenants, scenario.queue_delay_ns) = (0, 0, None);
        (scenario.lease_ns, scenario.run_deadline_ns, scenario.return_deadline_ns) = (90 * S, 90 * S, 90 * S);
        (scenario.rpc_timeout_ns, scenario.callbacks_max, scenario.batch_max) = (9 * S, 4000, 1);
        (scenario.latency_ns_max, scenario.window_bytes_min) = (scenario.latency_ns_max.min(10 * MS), 1 << 16);
        (scenario.calls_unanswered_max, scenario.unsent_bytes_max, scenario.filling_max) = (256, 1 << 22, 0);
        (scenario.sessions_max, scenario.minor0) = (1, if minor0 { 1000 } else { 0 });
        let slots = match self {
            Story::OneByOne { capped: true } => 16,
            Story::OneByOne { capped: false } | Story::Classes => 1,
            Story::Crowd => 1024,
            _ => 4,
        };
        (scenario.slots_min, scenario.slots_max) = (slots, slots);
        scenario.client_calls_max = u32::from(self == Story::OneByOne { capped: true });
        match self {
            Story::Crowd => scenario.reactors = 1,
            Story::StopsAt { .. } => (scenario.batch_max, scenario.call_limits) = (BATCH as u32, Some((4096, 100))),
            Story::Sessions => scenario.sessions_max = 16,
            _ => {}
        }
    }
}

impl World {
    /// Tells a story instead of playing.
    pub(crate) fn tell(&mut self, story: Story) {
        self.action_ns = None;
        match story {
            Story::OneByOne { .. } => self.one_by_one(),
            Story::DeadReader => self.dead_reader(),
            Story::Crowd => self.crowd(),
            Story::Classes => self.classes(),
            Story::StopsAt { k, delays } => self.stops_at(k, delays),
            Story::Sessions => self.sessions(),
            Story::SilentDoors => self.silent_doors(),
        }
        if !self.journal.has_failed() {
            self.drain();
        }
        if !self.journal.has_failed() {
            self.stop();
        }
    }

    /// A client that is reached, with so many callbacks of each kind. Their cookies.
    fn reached(&mut self, ops: &[(CallbackOp, usize)]) -> (usize, Vec<usize>) {
        let client = self.add_client().expect("nothing fails in a story");
        self.bind_all(client);
        let mut cookies = Vec::new();
        for op in ops.iter().flat_map(|(op, count)| vec![*op; *count]) {
            cookies.extend(self.embedder.insert(self.clients[client].id, client, op, 0));
        }
        (client, cookies)
    }

    /// Every line of it carries callbacks of every session.
    fn bind_all(&mut self, client: usize) {
        let lines: Vec<_> = self.clients[client].lines.iter().map(|(line, _)| *line).collect();
        for session in 0..self.clients[client].sessions.len() {
            lines.iter().for_each(|line| self.bind(client, *line, session));
        }
    }

    /// Time passes: connections are made and bound.
    fn pause(&mut self) {
        let until_ns = self.journal.now_ns() + 10 * S;
        self.run_until(until_ns, |_| false);
    }

    fn ask_for(&mut self, cookies: &[usize]) {
        cookies.iter().for_each(|cookie| self.embedder.try_run(*cookie));
    }

    /// Until so many runs are left, for so long at most.
    fn until_left(&mut self, running: u64, patience_ns: u64, what: &str) {
        let until_ns = self.journal.now_ns() + patience_ns;
        let over = self.run_until(until_ns, |world| world.embedder.reference().running() <= running);
        let left = self.embedder.reference().running();
        self.journal.check(Rule::Ends, over, || format!("{what}: {left} runs are left, {running} are to be"));
    }

    fn one_by_one(&mut self) {
        let (client, cookies) = self.reached(&[(Recall, 1000)]);
        self.pause();
        self.ask_for(&cookies);
        self.until_left(0, 85 * S, "one by one");
        let busiest = self.clients[client].busiest;
        self.journal.check(Rule::Limits, busiest == 1, || format!("{busiest} calls at a time"));
    }

    fn dead_reader(&mut self) {
        let readers: Vec<(usize, usize)> = (0..READERS)
            .map(|_| {
                let (client, cookies) = self.reached(&[(Recall, 1)]);
                (client, cookies[0])
            })
            .collect();
        self.pause();
        let (dead, _) = readers[self.choices.index(READERS)];
        let behaviour = Behaviour { name: "dead", reads: false, ..Behaviour::GOOD };
        self.clients[dead].set_behaviour(behaviour, &mut self.net.borrow_mut());
        let cookies: Vec<_> = readers.iter().map(|(_, cookie)| Some(*cookie)).collect();
        let stranger = CallbackKey::from_bits(0);
        let polls = self.choices.below(2) == 0;
        self.embedder.try_run_many(&cookies, stranger, polls);
        // Before anything could be noticed of the dead one.
        self.until_left(1, 8 * S, "a dead reader");
        for (client, cookie) in &readers {
            if *client != dead {
                self.embedder.returned(*cookie);
            }
        }
        self.until_left(0, 91 * S, "the dead reader itself");
        self.await_groups();
        let told = self.embedder.reference().groups.told_last();
        let right = told == Some([READERS as u32 - 1, 0, 1]);
        self.journal.check(Rule::Groups, right, || format!("the group was settled as {told:?}"));
    }

    fn crowd(&mut self) {
        let (crowd, many) = self.reached(&[(Recall, MANY)]);
        let (_, few) = self.reached(&[(Recall, FEW)]);
        self.pause();
        self.ask_for(&many);
        self.ask_for(&few);
        self.until_left(0, 80 * S, "a crowd");
        let reference = self.embedder.reference();
        let order = &reference.prepared;
        let last = order.iter().rposition(|cookie| reference.callbacks[*cookie].owner != crowd).unwrap_or(MANY);
        // A quantum of the crowd, and not much more.
        self.journal.check(Rule::Limits, last < 400, || format!("the last of {FEW} was number {last} of all"));
    }

    fn classes(&mut self) {
        let (_, cookies) = self.reached(&[(Getattr, 8), (Recall, 60), (RecallAny, 60)]);
        self.pause();
        self.ask_for(&cookies);
        let getattrs = cookies[..8].to_vec();
        let until_ns = self.journal.now_ns() + 85 * S;
        self.run_until(until_ns, |world| {
            let idle = |cookie: &&usize| world.embedder.reference().callbacks[**cookie].is_idle();
            let again: Vec<_> = getattrs.iter().filter(idle).copied().collect();
            let others = world.embedder.reference().running() > (getattrs.len() - again.len()) as u64;
            world.ask_for(if others { &again } else { &[] });
            !others
        });
        self.until_left(0, 5 * S, "classes");
        let reference = self.embedder.reference();
        let ops: Vec<_> = reference.prepared.iter().map(|cookie| reference.callbacks[*cookie].op).collect();
        // How many others come between two of one kind, at most.
        let gap = |op| {
            let at: Vec<usize> = (0..ops.len()).filter(|at| ops[*at] == op).collect();
            at.windows(2).map(|two| two[1] - two[0] - 1).max().unwrap_or(usize::MAX)
        };
        let gaps = [Getattr, Recall, RecallAny].map(gap);
        let first = ops.iter().take(100).filter(|op| **op == Getattr).count();
        // Each is passed over so often, and once more where a lower one has its turn first.
        let right = gaps[0] <= 2 && gaps[1] <= 5 && gaps[2] <= 16 && first > 70;
        self.journal.check(Rule::Limits, right, || {
            format!("of the first hundred {first} were waited for; {gaps:?} others come in between")
        });
    }

    fn stops_at(&mut self, k: usize, delays: bool) {
        let (client, cookies) = self.reached(&[(Recall, BATCH)]);
        let fails_at = (k, if delays { Status::NFS4ERR_DELAY } else { Status::NFS4ERR_BADHANDLE });
        let behaviour = Behaviour { name: "stops", fails_at, ..Behaviour::GOOD };
        self.clients[client].set_behaviour(behaviour, &mut self.net.borrow_mut());
        self.pause();
        self.ask_for(&cookies);
        self.until_left(0, 60 * S, "a batch that stops");
        // What is behind the k-th goes in the next call; and what is to be asked for once more goes alone, later.
        let (mut left, mut calls) = (BATCH, 0);
        while left > 0 {
            let stops = left > 1 && left >= k;
            calls += 1 + usize::from(stops && delays);
            left = if stops { left - k } else { 0 };
        }
        let counts = self.embedder.reference().counts;
        let right = (self.wire.records, counts.executed) == (calls as u64, BATCH as u64);
        self.journal.check(Rule::SequenceIds, right, || {
            format!("{} calls instead of {calls}, {} executed of {BATCH}", self.wire.records, counts.executed)
        });
    }

    fn sessions(&mut self) {
        while self.clients.iter().map(|client| client.sessions.len()).sum::<usize>() < 1000 {
            let (client, _) = self.reached(&[]);
            while self.clients[client].sessions.len() < 16 {
                self.create_session(client);
            }
            self.bind_all(client);
        }
        self.pause();
        let records = self.wire.records;
        self.journal.check(Rule::BoundedWork, records == 0, || format!("{records} records, and nothing to send"));
    }

    fn silent_doors(&mut self) {
        let mut asked = Vec::new();
        for _ in 0..20 {
            let (client, cookies) = self.reached(&[(Recall, 1)]);
            self.set_door(client, Door::Silent);
            asked.extend(cookies);
        }
        let (_, well) = self.reached(&[(Recall, 1)]);
        self.ask_for(&asked);
        self.ask_for(&well);
        let until_ns = self.journal.now_ns() + 85 * S;
        let answered = self.run_until(until_ns, |world| world.embedder.reference().callbacks[well[0]].is_idle());
        self.journal.check(Rule::Ends, answered, || "who answers waits for who does not".to_owned());
        self.until_left(0, 91 * S, "silent doors");
    }
}
