//! How a world ends: all is well again, and nothing may be missing.

use super::{S, World};
use crate::sim::client::behaviour::Behaviour;
use crate::sim::coverage::Kind;
use crate::sim::fore::Question;
use crate::sim::journal::Rule;
use crate::sim::net::{Faults, LineId};
use crate::sim::plant::Plant;
use crate::sim::scenario::Scenario;
use ringback::ClientState;
use ringback::simulator::Drain;
use std::sync::Mutex;
use std::sync::atomic::Ordering::Relaxed;

/// More lines that are half open, and a client that comes back may find that it has too many connections.
const HALF_OPEN_MAX: usize = 32;

impl World {
    /// All is well again: every run must end by itself, and every session slot must be found.
    pub(super) fn heal(&mut self) {
        self.journal.note(|| "all is well again".to_owned(), 60);
        self.embedder.calm_down();
        self.fore.set_prompt();
        self.scenario.odd = 0;
        self.fed.store(true, Relaxed);
        self.net.borrow_mut().faults = Faults::none();
        for client in 0..self.clients.len() {
            self.heal_client(client);
        }
        // Until the server has noticed which lines are gone. Those that are silent for a lease give way to new ones.
        let half_open = self.net.borrow().lines.iter().filter(|line| line.frozen).count();
        let notices_ns = if half_open > HALF_OPEN_MAX { self.scenario.lease_ns + S } else { S };
        let noticed_ns = self.journal.now_ns() + notices_ns;
        self.run_until(noticed_ns, |_| false);
        for client in 0..self.clients.len() {
            self.reconnect(client);
        }
        let deadline_ns = self.scenario.run_deadline_ns;
        let until_ns = self.journal.now_ns() + 2 * deadline_ns + 5 * S;
        let over = self.run_until(until_ns, |world| {
            world.fore.answer_deferred(&mut world.choices, true);
            world.embedder.reference().running() == 0 && world.drains.is_empty()
        });
        let running = self.embedder.reference().running();
        self.journal.check(Rule::Ends, over, || format!("{running} runs have not ended, though all is well"));
        // Slots whose call was given up are asked about until the client has told where they stand.
        let until_ns = self.journal.now_ns() + 20 * self.scenario.rpc_timeout_ns + 60 * S;
        self.run_until(until_ns, |world| {
            let census = world.census();
            world.fore.answer_deferred(&mut world.choices, true);
            let slots = census.slots == world.slots_expected() && census.free == census.slots;
            slots && world.unanswered().is_empty()
        });
        let unanswered = self.unanswered();
        self.journal.check(Rule::Fore, unanswered.is_empty(), || format!("calls were never answered: {unanswered:?}"));
        self.await_groups();
        self.embedder.reference().check_overdue();
        self.embedder.reference().check_moves();
        self.check_census();
        self.check_counts();
        if let Some(runtime) = self.embedder.runtime() {
            self.embedder.reference().tenants.check_rest(&runtime.tenants());
        }
    }

    /// Fore-channel calls that are to be answered.
    fn unanswered(&self) -> Vec<(LineId, Question)> {
        let net = self.net.borrow();
        self.clients.iter().flat_map(|c| c.unanswered(&net)).collect()
    }

    /// What was recalled comes back or is overdue, and then no group waits any longer.
    pub(super) fn await_groups(&mut self) {
        let until_ns = self.journal.now_ns() + self.scenario.return_deadline_ns + 5 * S;
        self.run_until(until_ns, |world| world.embedder.reference().groups.is_empty());
        self.check_groups("all is well");
    }

    fn check_groups(&self, when: &str) {
        let mut reference = self.embedder.reference();
        reference.groups.look();
        let none = reference.groups.is_empty();
        self.journal.check(Rule::Groups, none, || format!("{when}, and a group waits: {:?}", reference.groups));
    }

    fn heal_client(&mut self, client: usize) {
        let lines: Vec<LineId> = self.clients[client].lines.iter().map(|(id, _)| *id).collect();
        self.clients[client].set_behaviour(Behaviour::GOOD, &mut self.net.borrow_mut());
        self.clients[client].hurry();
        for line in lines {
            let line = &mut self.net.borrow_mut().lines[line];
            (line.frozen, line.quality) = (false, Scenario::perfect());
        }
        if self.clients[client].removed {
            return;
        }
        self.announce(client, ClientState::Active);
        for session in 0..self.clients[client].sessions.len() {
            let spoilt = self.clients[client].sessions[session].tainted;
            if spoilt && !self.clients[client].sessions[session].destroyed {
                self.destroy(client, session);
            }
        }
        self.remove_destroyed(client);
        if self.clients[client].is_minor0() {
            return self.heal_minor0(client);
        }
        if self.clients[client].sessions.iter().all(|s| s.destroyed) {
            self.create_session(client);
        }
        while self.clients[client].lines.len() >= 4 {
            let (line, _) = self.clients[client].lines.remove(0);
            self.net.borrow_mut().client_close(line, true);
        }
    }

    fn reconnect(&mut self, client: usize) {
        if self.clients[client].removed {
            return;
        }
        if let Some(line) = self.connect(client, Scenario::perfect()) {
            for session in 0..self.clients[client].sessions.len() {
                self.bind(client, line, session);
            }
        }
    }

    /// Slots of the sessions that the server knows.
    fn slots_expected(&self) -> u64 {
        let clients = || self.clients.iter().filter(|c| !c.removed);
        let sessions = clients().flat_map(|c| &c.sessions).filter(|s| !s.removed);
        let windows = clients().filter_map(|c| Some(u64::from(c.path()?.window)));
        sessions.map(|s| u64::from(s.slot_count())).chain(windows).sum()
    }

    fn check_census(&mut self) {
        let (census, slots) = (self.census(), self.slots_expected());
        let known = self.clients.iter().filter(|c| !c.removed).flat_map(|c| &c.sessions).filter(|s| !s.removed);
        let given_up: u64 = known.map(|s| s.slots_given_up()).sum();
        // Of which a call was sent twice when the client gave it up, that is not used again.
        let fine = census.slots == slots && census.free + census.retired == slots && census.retired <= given_up;
        self.journal.check(Rule::Slots, fine, || {
            format!("all is well, and of {slots} slots, of which {given_up} have been given up: {census:?}")
        });
    }

    /// No more runs; what runs ends by the deadline.
    pub(super) fn drain(&mut self) {
        let Some(runtime) = self.embedder.runtime() else { return };
        let deadline_ns = self.journal.now_ns() + self.scenario.drain_patience_ns;
        self.journal.note(|| format!("drain until {deadline_ns}"), 61);
        self.journal.reach(Kind::DrainRuntime);
        self.embedder.reference().begin_runtime_drain();
        let drain = Drain::begin(&runtime, deadline_ns);
        let report = Mutex::new(None);
        let over = self.run_until(deadline_ns + 2 * S, |world| {
            let mut report = report.lock().expect("nothing panics under this lock");
            *report = drain.poll();
            // Requests come while it drains.
            if world.choices.below(8) == 0 {
                world.request_late();
            }
            report.is_some()
        });
        self.journal.check(Rule::Ends, over, || "the drain does not end".to_owned());
        let Some(mut report) = report.into_inner().expect("nothing panics under this lock") else { return };
        if self.plant == Plant::HideAbandoned {
            report.abandoned.pop();
        }
        if !report.abandoned.is_empty() {
            self.journal.reach(Kind::Abandoned);
        }
        self.embedder.reference().drained(&report);
        self.check_groups("the runtime is drained");
        self.check_counts();
    }

    fn request_late(&mut self) {
        let count = self.embedder.reference().callbacks.len();
        if count > 0 {
            let cookie = self.choices.index(count);
            self.embedder.try_run(cookie);
        }
    }

    /// Everything comes back.
    pub(super) fn stop(&mut self) {
        self.embedder.calm_down();
        self.fed.store(true, Relaxed);
        let count = self.embedder.reference().callbacks.len();
        for cookie in 0..count {
            self.embedder.remove(cookie);
        }
        self.embedder.reference().check_rest();
        self.lift_limits();
        self.check_table();
        self.embedder.set_runtime(None);
        self.fore.set_runtime(None);
        self.journal.note(|| "stop".to_owned(), 62);
        let until_ns = self.journal.now_ns() + 5 * S;
        let over = self
            .run_until(until_ns, |world| world.desks.iter().all(|d| d.handle.is_over()) && world.carriers.is_empty());
        self.journal.check(Rule::Ends, over, || "a reactor does not stop, or does not close a transport".to_owned());
        self.embedder.look_at_waiters();
        self.embedder.reference().groups.look();
        let waiting = self.embedder.waiters().is_empty();
        self.journal.check(Rule::Waiters, waiting, || "somebody waits for ever".to_owned());
        let attached = self.net.borrow().attached_count();
        self.journal.check(Rule::Leak, attached == 0, || format!("{attached} connections are not closed"));
    }

    /// Every entry of the table of callbacks can be used again.
    fn check_table(&mut self) {
        let Some(client) = self.clients.iter().rfind(|c| !c.removed).map(|c| c.index) else { return };
        let max = self.scenario.callbacks_max;
        let left = max - self.embedder.reference().existing();
        if max <= 500 {
            let before = self.embedder.reference().existing();
            self.insert(client, u64::from(left) + 1);
            let inserted = self.embedder.reference().existing() - before;
            self.journal.check(Rule::Leak, inserted == left, || format!("{inserted} of {left} entries were free"));
        }
    }
}
