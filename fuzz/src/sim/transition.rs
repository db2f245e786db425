//! What may happen next, to the simulated file server, its clients and their lines.

use super::client::behaviour::Behaviour;
use super::coverage::Kind;
use super::fore::Wish;
use super::world::World;
use ringback::{CallbackKey, CallbackOp, ClientState};
use std::sync::Arc;

/// Something that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Callbacks are asked to run, some of them more than once.
    Run,
    /// Callbacks are inserted.
    Insert,
    /// Callbacks are removed, whatever they are doing.
    Remove,
    /// The runtime is asked about a key that it never gave out.
    Stranger,
    /// A client opens a line and binds it.
    Connect,
    /// A client binds a line that it has, to a session that it has.
    Bind,
    /// A client closes a line.
    Close,
    /// A client resets a line.
    Reset,
    /// A client shuts its sending side.
    Shut,
    /// The server closes a connection.
    ServerClose,
    /// A line stops delivering, or delivers again.
    Freeze,
    /// A client creates a session.
    Create,
    /// A client destroys a session; the server learns of it then, or a little later.
    Destroy,
    /// The server learns of sessions that were destroyed.
    Remember,
    /// BACKCHANNEL_CTL.
    Control,
    /// A client changes its behaviour.
    Behave,
    /// A client would like to see more or fewer slots used.
    Target,
    /// A client makes its slot table smaller or larger.
    Resize,
    /// The embedder announces the state of a client.
    Announce,
    /// A client renews its lease, and is told how its callback path is.
    Renew,
    /// Somebody waits for the end of a run, or does not wait any longer.
    Wait,
    /// Runs are cancelled.
    Cancel,
    /// What was recalled comes back.
    Return,
    /// A client makes fore-channel calls.
    Ask,
    /// Fore-channel calls that were put off are answered.
    Answer,
    /// A client is drained, and removed afterwards.
    DrainClient,
    /// A session is drained, and removed afterwards.
    DrainSession,
    /// A client goes, and a new incarnation comes.
    Replace,
    /// A client moves to another reactor, or stays where it is.
    Move,
    /// Settings change.
    Tune,
    /// Callbacks of several clients are asked for together, or somebody does not wait for such a group any longer.
    Group,
}

impl Action {
    /// The client does it alone, and the server learns of it when it reads.
    fn is_of_client(self) -> bool {
        use Action::*;
        matches!(self, Close | Reset | Shut | Freeze | Behave | Target | Resize | Ask)
    }

    /// All of them, and how likely each one is.
    pub(crate) const ALL: [(Action, u64); 31] = [
        (Action::Run, 100),
        (Action::Insert, 20),
        (Action::Remove, 5),
        (Action::Stranger, 1),
        (Action::Connect, 8),
        (Action::Bind, 6),
        (Action::Close, 3),
        (Action::Reset, 3),
        (Action::Shut, 1),
        (Action::ServerClose, 2),
        (Action::Freeze, 4),
        (Action::Create, 4),
        (Action::Destroy, 3),
        (Action::Remember, 5),
        (Action::Control, 4),
        (Action::Behave, 8),
        (Action::Target, 2),
        (Action::Resize, 10),
        (Action::Announce, 2),
        (Action::Renew, 10),
        (Action::Wait, 10),
        (Action::Cancel, 4),
        (Action::Return, 10),
        (Action::Ask, 10),
        (Action::Answer, 10),
        (Action::DrainClient, 1),
        (Action::DrainSession, 2),
        (Action::Replace, 1),
        (Action::Move, 6),
        (Action::Tune, 2),
        (Action::Group, 10),
    ];
}

const OPS: [CallbackOp; 14] = [
    CallbackOp::Recall,
    CallbackOp::Recall,
    CallbackOp::Recall,
    CallbackOp::Recall,
    CallbackOp::Getattr,
    CallbackOp::LayoutRecall,
    CallbackOp::Notify,
    CallbackOp::PushDeleg,
    CallbackOp::RecallAny,
    CallbackOp::RecallSlot,
    CallbackOp::NotifyLock,
    CallbackOp::NotifyDeviceId,
    CallbackOp::Offload,
    CallbackOp::RecallableObjAvail,
];

impl World {
    /// Something happens.
    pub(crate) fn act(&mut self) {
        let action = Action::ALL[self.choices.weighted(&self.scenario.weights)].0;
        let Some(client) = self.some_client() else { return };
        if self.is_left_alone() && !action.is_of_client() {
            return;
        }
        if self.clients[client].is_minor0() && self.act_minor0(action, client) {
            return;
        }
        match action {
            Action::Run => {
                self.come_back(client);
                self.run_some(client);
            }
            Action::Insert => {
                let count = self.burst(64);
                self.insert(client, count);
            }
            Action::Remove => self.remove_some(),
            Action::Stranger => {
                let bits = self.choices.next() >> self.choices.pick(&[0, 20, 40]);
                self.embedder.try_stranger(bits);
            }
            Action::Renew => self.renew(client),
            Action::Wait => self.wait_some(client),
            Action::Cancel => {
                let embedder = Arc::clone(&self.embedder);
                self.for_some(client, 16, |cookie| embedder.cancel(cookie));
            }
            Action::Return => {
                let embedder = Arc::clone(&self.embedder);
                self.for_some(client, 64, |cookie| embedder.returned(cookie));
            }
            Action::Ask => self.ask_some(client),
            Action::Answer => self.fore.answer_deferred(&mut self.choices, false),
            Action::DrainClient => self.drain_one(client, None),
            Action::DrainSession => {
                if let Some(session) = self.some_session(client) {
                    self.drain_one(client, Some(session));
                }
            }
            Action::Replace => self.replace(client),
            Action::Move => self.move_client(client),
            Action::Tune => self.tune(),
            Action::Group => self.group_some(client),
            Action::Connect | Action::Bind | Action::Close | Action::Reset => self.act_on_line(action, client),
            Action::Shut | Action::ServerClose | Action::Freeze => self.act_on_line(action, client),
            _ => self.act_on_client(action, client),
        }
    }

    /// Something happens to a line of a client.
    fn act_on_line(&mut self, action: Action, client: usize) {
        match action {
            Action::Connect => {
                let quality = self.scenario.quality(&mut self.choices);
                let line = self.connect(client, quality);
                self.bind_some(client, line);
            }
            Action::Bind => {
                let line = self.some_line(client);
                self.bind_some(client, line);
            }
            Action::Close | Action::Reset => {
                if let Some(line) = self.some_line(client) {
                    self.journal.note(|| format!("client {client}: line {line}: {action:?}"), 40);
                    self.net.borrow_mut().client_close(line, action == Action::Reset);
                    self.clients[client].lines.retain(|(id, _)| *id != line);
                }
            }
            Action::Shut => {
                if let Some(line) = self.some_line(client) {
                    self.journal.note(|| format!("client {client}: shuts line {line}"), 41);
                    self.net.borrow_mut().client_shut(line);
                }
            }
            Action::ServerClose => self.server_close(client),
            Action::Freeze => {
                if let Some(line) = self.some_line(client) {
                    let frozen = &mut self.net.borrow_mut().lines[line].frozen;
                    *frozen = !*frozen;
                    let frozen = *frozen;
                    if frozen {
                        self.journal.reach(Kind::LineFrozen);
                    }
                    self.journal.note(|| format!("line {line}: frozen: {frozen}"), 42);
                }
            }
            _ => {}
        }
    }

    /// A client or a session of it changes.
    fn act_on_client(&mut self, action: Action, client: usize) {
        match action {
            Action::Create => {
                self.create_session(client);
                let line = self.some_line(client);
                self.bind_some(client, line);
            }
            Action::Destroy => self.destroy_some(client),
            Action::Remember => self.remove_destroyed(client),
            Action::Control => self.control_some(client),
            Action::Behave => {
                let good = self.choices.below(3) == 0;
                let other = Behaviour::draw(&mut self.choices, self.scenario.may_lie, self.scenario.liars);
                let behaviour = if good { Behaviour::GOOD } else { other };
                self.clients[client].set_behaviour(behaviour, &mut self.net.borrow_mut());
            }
            Action::Target => self.set_target(client),
            Action::Resize => self.resize(client),
            Action::Announce => {
                use ClientState::{Active, Courtesy, Expired};
                let back = self.clients[client].is_idle() || self.choices.below(2) == 0;
                let state = if back { Active } else { self.choices.pick(&[Courtesy, Courtesy, Expired]) };
                self.announce(client, state);
            }
            _ => {}
        }
    }

    /// How often an action does what it does.
    pub(crate) fn burst(&mut self, max: u64) -> u64 {
        self.choices.log_between(1, max.min(self.scenario.burst_max))
    }

    fn some_client(&mut self) -> Option<usize> {
        let live: Vec<usize> = self.clients.iter().filter(|c| !c.removed).map(|c| c.index).collect();
        self.choices.any(&live).copied()
    }

    pub(crate) fn some_line(&mut self, client: usize) -> Option<usize> {
        let lines: Vec<usize> = self.clients[client].lines.iter().map(|(id, _)| *id).collect();
        self.choices.any(&lines).copied()
    }

    pub(crate) fn some_session(&mut self, client: usize) -> Option<usize> {
        let sessions = &self.clients[client].sessions;
        let live: Vec<usize> = (0..sessions.len()).filter(|at| !sessions[*at].destroyed).collect();
        self.choices.any(&live).copied()
    }

    /// Most clients that have lost their line or their session, or were asleep for too long, come back.
    fn come_back(&mut self, client: usize) {
        if self.choices.below(4) == 0 {
            return;
        }
        if self.clients[client].is_minor0() {
            return self.come_back_minor0(client);
        }
        if self.clients[client].is_idle() {
            self.announce(client, ClientState::Active);
        }
        if self.clients[client].sessions.iter().all(|s| s.destroyed) {
            self.create_session(client);
        }
        let lines = &self.clients[client].lines;
        let net = self.net.borrow();
        let alone = lines.iter().all(|(line, _)| net.is_history(*line));
        drop(net);
        if alone {
            let quality = self.scenario.quality(&mut self.choices);
            let line = self.connect(client, quality);
            self.bind_some(client, line);
        }
    }

    /// Asks for runs of callbacks of one client, or of any.
    fn run_some(&mut self, client: usize) {
        let (idle, all): (Vec<usize>, usize) = {
            let reference = self.embedder.reference();
            let own = reference.callbacks.iter().enumerate().filter(|(_, c)| c.owner == client && c.is_idle());
            (own.map(|(cookie, _)| cookie).collect(), reference.callbacks.len())
        };
        for _ in 0..self.burst(128) {
            // Callbacks that run, that are going and that are gone are asked for too.
            if self.choices.below(8) == 0 && all > 0 {
                let cookie = self.choices.index(all);
                self.embedder.try_run(cookie);
            } else if let Some(cookie) = self.choices.any(&idle) {
                self.embedder.try_run(*cookie);
            }
        }
    }

    pub(crate) fn insert(&mut self, client: usize, count: u64) {
        for _ in 0..count {
            // Of minor version 0, with a few that it has not.
            let minor0 = self.clients[client].is_minor0() && self.choices.below(16) > 0;
            let op = self.choices.pick(if minor0 { &OPS[..5] } else { &OPS[..] });
            let filling = self.choices.below(self.scenario.filling_max + 1) as usize;
            if self.embedder.insert(self.clients[client].id, client, op, filling).is_none() {
                break;
            }
        }
    }

    /// Does something about some callbacks, most of them of one client.
    fn for_some(&mut self, client: usize, count_max: u64, act: impl Fn(usize)) {
        let (own, all) = {
            let reference = self.embedder.reference();
            let own = reference.callbacks.iter().enumerate().filter(|(_, c)| c.owner == client && c.exists);
            (own.map(|(cookie, _)| cookie).collect::<Vec<_>>(), reference.callbacks.len())
        };
        for _ in 0..self.burst(count_max) {
            if self.choices.below(8) == 0 && all > 0 {
                act(self.choices.index(all));
            } else if let Some(cookie) = self.choices.any(&own) {
                act(*cookie);
            }
        }
    }

    fn wait_some(&mut self, client: usize) {
        if self.choices.below(4) == 0 {
            let at = self.choices.index(4);
            self.embedder.waiters().give_up(at);
        }
        let (embedder, ask) = (Arc::clone(&self.embedder), self.choices.below(2) == 0);
        self.for_some(client, 8, |cookie| embedder.wait(cookie, ask));
    }

    /// An opener finds recalls in its way, most of them: idle ones and others, also what is gone by now.
    fn group_some(&mut self, client: usize) {
        if self.choices.below(4) == 0 {
            let at = self.choices.index(4);
            self.embedder.reference().groups.give_up(at);
        }
        let (own, recalls, all) = {
            let reference = self.embedder.reference();
            let there = reference.callbacks.iter().enumerate().filter(|(_, c)| c.exists);
            let own: Vec<usize> = there.clone().filter(|(_, c)| c.owner == client).map(|(cookie, _)| cookie).collect();
            let recalls = there.filter(|(_, c)| c.op == CallbackOp::Recall).map(|(cookie, _)| cookie);
            (own, recalls.collect::<Vec<_>>(), reference.callbacks.len())
        };
        let bits = self.choices.next() >> self.choices.pick(&[0, 20, 40]);
        let stranger = CallbackKey::from_bits(bits);
        let known = self.embedder.reference().knows(stranger);
        let mut cookies = Vec::new();
        for _ in 0..self.burst(64) {
            match self.choices.below(8) {
                0 if all > 0 => cookies.push(Some(self.choices.index(all))),
                1 => cookies.extend(self.choices.any(&own).map(|cookie| Some(*cookie))),
                2 if !known => cookies.push(None),
                _ => cookies.extend(self.choices.any(&recalls).map(|cookie| Some(*cookie))),
            }
        }
        let polls = self.choices.below(4) > 0;
        self.embedder.try_run_many(&cookies, stranger, polls);
    }

    fn ask_some(&mut self, client: usize) {
        let Some(line) = self.some_line(client) else { return };
        if self.net.borrow().address_of(line).is_some() {
            return;
        }
        for _ in 0..self.burst(32) {
            let wish = match self.choices.below(16) {
                0 => Wish::Drop,
                1..=3 => Wish::Bind,
                4..=9 => Wish::Defer,
                _ => Wish::Inline,
            };
            let session = self.some_session(client);
            self.clients[client].ask(line, wish, session, &mut self.net.borrow_mut());
        }
    }

    fn remove_some(&mut self) {
        let all = self.embedder.reference().callbacks.len();
        for _ in 0..self.burst(32) {
            if all > 0 {
                let cookie = self.choices.index(all);
                self.embedder.remove(cookie);
            }
        }
    }
}
