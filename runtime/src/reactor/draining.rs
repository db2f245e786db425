//! Ending runs on request: one, those of a session, of a client, or all; and reporting what was given up.

use super::Reactor;
use super::home::Home;
use crate::callback::CallbackKey;
use crate::drain::{Cancelled, DrainJob};
use crate::io::Io;
use crate::keys::{ClientId, SessionKey};
use ringback_rpc::backchannel::{self, Token};
use std::collections::VecDeque;
use std::sync::Arc;

/// How often a run is looked for that is asked to be cancelled. It is in the core unless it has just been started anew,
/// and then it comes with the next turn.
const CANCEL_ATTEMPTS_MAX: u8 = 3;

/// Runs cancelled in one turn: each may cost a walk through the queues of its client, and others must have their turn.
const CANCELS_PER_TURN: usize = 16;

/// What a drain under way on this reactor will report.
pub(super) struct Draining {
    /// Who waits for it: one that begins meanwhile is told the same. Empty: reported.
    pub jobs: Vec<Arc<DrainJob>>,
    ended: Cancelled,
}

impl Draining {
    pub fn new(job: Arc<DrainJob>) -> Self {
        Draining { jobs: vec![job], ended: Cancelled::default() }
    }

    /// A run was cancelled.
    pub fn count(&mut self, key: CallbackKey, sent: bool) {
        let which = if sent { &mut self.ended.abandoned } else { &mut self.ended.unsent };
        which.push(key);
    }

    pub fn report(&mut self) {
        let ended = Arc::new(std::mem::take(&mut self.ended));
        for job in self.jobs.drain(..) {
            job.reactor_done(Arc::clone(&ended));
        }
    }
}

impl Drop for Draining {
    /// It is over; or the reactor ends, by a panic perhaps, and nobody shall wait for it.
    fn drop(&mut self) {
        self.report();
    }
}

/// A drain of a client, or of one of its sessions.
pub(super) struct ClientDrain {
    pub session: Option<SessionKey>,
    deadline_ns: u64,
    pub report: Draining,
}

impl ClientDrain {
    /// Whether it ends what is cancelled now, for the sake of `ending` if that is a session.
    pub fn covers(&self, ending: Option<SessionKey>) -> bool {
        self.session.is_none() || self.session == ending
    }
}

/// Runs that are to be cancelled.
#[derive(Default)]
pub(super) struct Cancels {
    asked: Vec<(CallbackKey, u8)>,
    /// Those of which all that was submitted before is with the cores, or will be by the end of this turn.
    due: VecDeque<(CallbackKey, u8)>,
}

impl Cancels {
    pub fn ask(&mut self, key: CallbackKey) {
        self.asked.push((key, 1));
    }

    /// All that was submitted so far has been taken off the inbox.
    pub fn inbox_taken(&mut self) {
        self.due.extend(self.asked.drain(..));
    }

    pub fn is_empty(&self) -> bool {
        self.asked.is_empty() && self.due.is_empty()
    }
}

impl<I: Io> Reactor<I> {
    /// Cancels what is due, when all that was taken off the inbox has been handed to the cores.
    pub(super) fn run_cancels(&mut self) {
        let now_ns = self.home.now_ns;
        for _ in 0..CANCELS_PER_TURN {
            let Some((key, attempt)) = self.cancels.due.pop_front() else { return };
            let Some(entry) = self.home.shared.slab.get(key.index) else { continue };
            // Read before the transition that confirms the generation.
            let client = entry.client();
            if !entry.word().is_cancelled(key.generation) {
                continue;
            }
            let cancel =
                self.home.act(client, |client, host| client.backchannel.cancel(now_ns, Token(key.index), host));
            if cancel == Some(false) && attempt < CANCEL_ATTEMPTS_MAX {
                self.cancels.asked.push((key, attempt + 1));
            }
        }
    }

    pub(super) fn begin_drain(&mut self, job: Arc<DrainJob>) {
        let deadline_ns = job.deadline_ns;
        match &mut self.home.drain {
            Some(drain) if !drain.jobs.is_empty() => drain.jobs.push(job),
            _ => self.home.drain = Some(Draining::new(job)),
        }
        self.home.drain_all(deadline_ns);
    }

    /// Reports to a drain when nothing is in flight any more. The core gives up what is out at the deadline.
    pub(super) fn advance_drain(&mut self) {
        let unreported = self.home.drain.as_ref().is_some_and(|d| !d.jobs.is_empty());
        if unreported
            && !self.home.is_busy()
            && let Some(drain) = &mut self.home.drain
        {
            drain.report();
        }
    }
}

impl Home {
    /// Ends all runs: what is not sent at once, what is sent when it is answered or at the deadline.
    pub fn drain_all(&mut self, deadline_ns: u64) {
        let now_ns = self.now_ns;
        self.drain_deadline_ns = Some(deadline_ns);
        for client in 0..self.clients.len() as u32 {
            self.act(client, |client, host| client.backchannel.drain(now_ns, deadline_ns, host));
        }
    }

    /// Ends the runs of one client, or with `session` those that are out on one session, on which nothing new is sent.
    pub fn drain_client(&mut self, client: ClientId, session: Option<SessionKey>, job: Arc<DrainJob>) {
        let (now_ns, deadline_ns) = (self.now_ns, job.deadline_ns);
        // A client that is not here has nothing in flight: `drain` is dropped, which reports.
        let drain = ClientDrain { session, deadline_ns, report: Draining::new(job) };
        self.act_on(client, |client, host| {
            host.drains.push(drain);
            match session {
                Some(session) => {
                    client.backchannel.drain_session(core_key(session), host);
                }
                None => client.backchannel.drain(now_ns, deadline_ns, host),
            }
        });
    }

    /// Moves the drains of a client on: gives up the sessions whose time is over, and reports what has ended. When to
    /// look again.
    pub fn advance_drains(&mut self, index: u32) -> Option<u64> {
        let now_ns = self.now_ns;
        let mut at = 0;
        while let Some(drain) = self.client(index)?.drains.get(at) {
            if let (Some(session), true) = (drain.session, drain.deadline_ns <= now_ns) {
                self.act(index, |client, host| client.backchannel.give_up_session(now_ns, core_key(session), host));
            }
            let nothing_in_flight = self.shared.clients.get(index).is_none_or(|c| c.in_flight.count() == 0);
            let client = self.client(index)?;
            let over = match client.drains[at].session {
                Some(session) => client.backchannel.session_runs(core_key(session)) == 0,
                None => nothing_in_flight,
            };
            if over {
                client.drains.swap_remove(at);
            } else {
                at += 1;
            }
        }
        self.client(index)?.drains.iter().map(|drain| drain.deadline_ns).min()
    }
}

/// The backchannel core's name for a session.
pub(super) fn core_key(session: SessionKey) -> backchannel::SessionKey {
    backchannel::SessionKey(session.serial)
}
