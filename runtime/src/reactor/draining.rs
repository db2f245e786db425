//! Ending runs on request: one, those of a session, of a client, or all; and reporting what was given up.

use super::home::Home;
use super::host::ClientHost;
use super::{ENDED_PER_TURN, Reactor};
use crate::callback::{CallbackKey, Flags};
use crate::drain::{Cancelled, DrainJob};
use crate::flight::FlightStep;
use crate::io::Io;
use crate::keys::{ClientId, SessionKey};
use ringback_rpc::backchannel;
use std::sync::Arc;

/// Runs whose entries are looked at for cancellations in one turn, by whole clients: others must have their turn.
const WALKED_PER_TURN: u64 = 65_536;

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

impl<I: Io> Reactor<I> {
    /// Runs of a client are to be cancelled, which the words of their entries say: it is looked through once for all that
    /// are asked until then. A run that has not come yet is noticed when it comes.
    pub(super) fn ask_cancel(&mut self, index: u32) {
        if let Some(client) = self.home.client(index)
            && !std::mem::replace(&mut client.cancels, true)
        {
            self.cancels.push_back(index);
        }
    }

    /// Cancels what is asked for, in as many clients as fit into a turn.
    pub(super) fn run_cancels(&mut self) {
        let now_ns = self.home.now_ns;
        let mut budget = WALKED_PER_TURN;
        while budget > 0
            && let Some(index) = self.cancels.pop_front()
        {
            let walked = self.home.act(index, |client, host| {
                client.cancels = false;
                let (runs, mut left) = (client.backchannel.run_count(), ENDED_PER_TURN);
                let wanted = |host: &ClientHost<'_>, token| {
                    let wanted = left > 0 && host.is_cancelled(token);
                    left -= u64::from(wanted);
                    wanted
                };
                client.backchannel.cancel_all(now_ns, wanted, host);
                (runs, left == 0)
            });
            if let Some((runs, more)) = walked {
                budget = budget.saturating_sub(runs + 1);
                if more {
                    return self.ask_cancel(index);
                }
            }
        }
    }

    pub(super) fn begin_drain(&mut self, job: Arc<DrainJob>) {
        let deadline_ns = job.deadline_ns;
        match &mut self.home.drain {
            Some(drain) if !drain.jobs.is_empty() => drain.jobs.push(job),
            _ => self.home.drain = Some(Draining::new(job)),
        }
        self.drain_all(deadline_ns);
    }

    /// Ends all runs: what is not sent at once, what is sent when it is answered or at the deadline. In this turn, or
    /// where there are many in the next ones.
    pub(super) fn drain_all(&mut self, deadline_ns: u64) {
        self.home.note(FlightStep::Draining, ClientId::from_bits(0), 0);
        self.home.drain_deadline_ns = Some(deadline_ns);
        let (shared, here) = (&self.home.shared, self.home.reactor);
        shared.forsake(Flags::RUNNING, |client| shared.home_of(client) == Some(here));
        self.undrained = 0..self.home.clients.len() as u32;
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
    /// Ends the runs of one client, or with `session` those that are out on one session, on which nothing new is sent.
    pub fn drain_client(&mut self, client: ClientId, session: Option<SessionKey>, job: Arc<DrainJob>) {
        let (now_ns, deadline_ns) = (self.now_ns, job.deadline_ns);
        // A client that is not here has nothing in flight: `drain` is dropped, which reports.
        let drain = ClientDrain { session, deadline_ns, report: Draining::new(job) };
        if session.is_none() {
            self.shared.forsake(Flags::RUNNING, |index| index == client.index);
        }
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
