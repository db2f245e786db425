//! Moving a client to another home reactor, and sending it messages wherever it is.

use crate::callback::{Chain, Visit};
#[cfg(feature = "checkpoint")]
use crate::checkpoint::pace::Pace;
use crate::command::Command;
use crate::drain::DrainJob;
use crate::keys::ClientId;
use crate::registry::{ClientShared, Shared};
use crate::runtime::{Error, Runtime};
use std::sync::Arc;
use std::sync::atomic::{Ordering::SeqCst, fence};

impl Runtime {
    /// Moves a client to another home reactor: its sessions, session slots, xids, queues, timers and calls in flight go there
    /// between two turns, and its callbacks go on there. Its connections stay where they are and carry bytes for it; a
    /// reply that comes meanwhile finds it. What is asked of the client before, during and after that takes effect in its
    /// order, and nothing is sent twice for it.
    ///
    /// Asynchronous: [`Event::Moved`](crate::Event::Moved) tells when it is there, also if it was there all the time. Moves of one
    /// client are made, and told, in the order in which they were asked for. From the one on that could not begin before the runtime
    /// was closed, or the client removed, none is made and none is told; nor is one to a reactor that has ended meanwhile. For an
    /// embedder that sees that one reactor has more to do than others ([`Snapshot`](crate::Snapshot)), or that most of a client's
    /// connections are on another one; a client with its connections at home is the cheapest.
    ///
    /// What does not move: [completion queues](crate::CompletionQueue) belong to reactors, so that its next completions come
    /// on the queue of its new home; and a recall that was sent before is told to be overdue by the reactor that sent it.
    pub fn move_client(&self, client: ClientId, to: usize) -> Result<(), Error> {
        self.open()?;
        let reactors = self.reactors();
        let port = self.shared().reactors.get(to).ok_or(Error::NoSuchReactor { reactor: to, reactors })?;
        if port.has_ended() {
            return Err(Error::ReactorEnded { reactor: to });
        }
        self.post_home(client, Command::Move { client, to })
    }

    /// The reactor that is the home of a client, or will be when it has [moved](Runtime::move_client).
    pub fn home_of(&self, client: ClientId) -> Result<usize, Error> {
        Ok(self.client(client)?.home())
    }

    pub(crate) fn post_home(&self, client: ClientId, command: Command) -> Result<(), Error> {
        let known = self.client(client)?;
        self.has_reactor(known.home())?;
        self.shared().post_home(known, command);
        Ok(())
    }

    /// Whether there is somebody to hand a command to. A drain is no end yet; it may come right after this, and then the
    /// command is lost as if the end had come right after the command.
    pub(crate) fn has_reactor(&self, reactor: usize) -> Result<(), Error> {
        match self.shared() {
            shared if shared.is_forked() => Err(Error::Forked),
            #[cfg(feature = "checkpoint")]
            shared if shared.standstill.has_left() => Err(Error::HandedOver),
            shared if !shared.reactors[reactor].has_ended() => Ok(()),
            shared if shared.is_closed() => Err(Error::Closed),
            _ => Err(Error::ReactorEnded { reactor }),
        }
    }
}

impl Shared {
    /// Hands a command over to the home of a client, in the order in which it was asked for.
    pub fn post_home(&self, client: &ClientShared, command: Command) {
        self.visit_home(client, |home| self.reactors[home].post(command));
    }

    /// As [`Shared::post_home`], of the client at that place of the table.
    pub fn post_to_home_of(&self, client: u32, command: Command) {
        match self.clients.get(client) {
            Some(known) => self.post_home(known, command),
            None => command.discard(),
        }
    }

    /// Leaves something with the home of a client.
    pub fn visit_home<R>(&self, client: &ClientShared, leave: impl FnOnce(usize) -> R) -> R {
        /// Leaves by a panic too, or the client could never move.
        struct Inside<'a>(&'a Shared, &'a ClientShared, Option<Visit>);
        impl Drop for Inside<'_> {
            fn drop(&mut self) {
                let Some(visit) = self.2.take() else { return };
                if let Some(port) = self.1.residence.leave(visit).map(|reactor| &self.0.reactors[reactor])
                    && port.parking.must_wake()
                {
                    port.wake();
                }
            }
        }
        let visit = client.residence.enter();
        let home = visit.home;
        let _inside = Inside(self, client, Some(visit));
        leave(home)
    }

    /// Wakes a reactor, to which a run was handed over.
    pub fn wake(&self, reactor: usize) {
        let port = &self.reactors[reactor];
        port.wake();
        if port.has_ended() {
            self.rescue(reactor);
        }
    }

    /// Runs that came to a reactor after its end, because their client had moved away while they were asked for: they go
    /// where it is. Any thread may do it. Stands in for the reactor: while nobody does it, the flag is up that makes the
    /// next one who brings something come here.
    pub fn rescue(&self, reactor: usize) {
        let port = &self.reactors[reactor];
        loop {
            let mut runs = port.inbox.take_all(&self.slab);
            self.pass_on(reactor, &mut runs);
            if port.parking.prepare_park(|| port.inbox.is_empty()) {
                return;
            }
        }
    }

    fn pass_on(&self, reactor: usize, runs: &mut Chain) {
        while let Some(index) = runs.pop(&self.slab) {
            // Those of its own clients are lost with it.
            if let Some(home) = self.home_of(self.slab[index].client()).filter(|home| *home != reactor) {
                self.reactors[home].post(Command::Submit(index));
            }
        }
    }

    /// A drain begins when no client is on its way: else a reactor that it leaves and one that it comes to could both say
    /// that nothing of it is left. No move begins after this.
    pub fn begin_drain(&self, job: Arc<DrainJob>) {
        self.drains_waiting.push(job);
        let _ = self.moves.close();
        // Either the last one to arrive is seen to have arrived here, or it finds the drain.
        if self.moves.is_over() {
            self.post_drains();
        }
    }

    /// A move begins. `None`: the runtime is closed. `Some(false)`: not now.
    pub fn begin_move(&self) -> Option<bool> {
        if !self.moves.enter() {
            return None;
        }
        fence(SeqCst); // after the count, before the look; partner: `hold_moves`
        let may = self.moves_held.load(SeqCst) == 0;
        if !may {
            self.moved();
        }
        Some(may)
    }

    /// Lets no move begin until the answer is dropped, and waits for those that have. `None`: they do not end in time.
    #[cfg(feature = "checkpoint")]
    pub async fn hold_moves(&self, pace: &Pace, until_ns: u64) -> Option<MovesHeld<'_>> {
        self.moves_held.fetch_add(1, SeqCst);
        let held = MovesHeld(self);
        fence(SeqCst); // partner: `begin_move`
        pace.until(until_ns, || self.moves.count() == 0).await.then_some(held)
    }

    /// A move is over.
    pub fn moved(&self) {
        if self.moves.leave() {
            self.post_drains();
        }
    }

    fn post_drains(&self) {
        while let Some(job) = self.drains_waiting.pop() {
            for port in &self.reactors {
                port.post(Command::Drain(Arc::clone(&job)));
            }
        }
    }
}

/// No move begins.
#[cfg(feature = "checkpoint")]
pub(crate) struct MovesHeld<'a>(&'a Shared);

#[cfg(feature = "checkpoint")]
impl Drop for MovesHeld<'_> {
    fn drop(&mut self) {
        self.0.moves_held.fetch_sub(1, SeqCst);
        // Those that were put off.
        for port in &self.0.reactors {
            if port.parking.must_wake() {
                port.wake();
            }
        }
    }
}
