//! A look at the clients: their callback paths, their sessions, and the callbacks that are in flight.

use crate::callback::CallbackKey;
use crate::command::Command;
use crate::hooks::{PathFault, PathState};
use crate::keys::{ClientId, SessionKey};
use crate::runtime::{Error, Runtime};
use ringback_rpc::backchannel::Stage;
use ringback_rpc::nfs4::callback::CallbackOp;
use std::sync::mpsc;

/// A client, as its home reactor sees it.
///
/// # Examples
///
/// ```
/// use ringback::{Error, Runtime};
///
/// fn print(runtime: &Runtime) -> Result<(), Error> {
///     for client in runtime.inspect(3)? {
///         println!("{:?}: {:?}, {} in flight", client.client, client.path, client.in_flight);
///     }
///     Ok(())
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientReport {
    /// The client.
    pub client: ClientId,
    /// The reactor that is its home.
    pub home: usize,
    /// The state of its callback path.
    pub path: PathState,
    /// Its sessions that have a backchannel.
    pub sessions: Vec<SessionReport>,
    /// Callbacks that are in flight.
    pub in_flight: u64,
    /// The oldest of them, the oldest first: as many as were asked for. One that was just accepted may be missing; one whose
    /// end waits on a completion queue is.
    pub callbacks: Vec<CallbackReport>,
}

/// A session's backchannel.
///
/// # Examples
///
/// ```
/// use ringback::ClientReport;
///
/// fn busy(client: &ClientReport) -> u32 {
///     client.sessions.iter().map(|session| session.slots_in_use).sum()
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionReport {
    /// The session.
    pub session: SessionKey,
    /// Connections that carry it.
    pub connections: u32,
    /// Its session slots.
    pub slots: u32,
    /// Those with a call that is not settled.
    pub slots_in_use: u32,
    /// Those of them whose callbacks were given up and whose sequence id is not known yet.
    pub slots_quarantined: u32,
    /// Those that cannot be used any more.
    pub slots_retired: u32,
    /// What is wrong with it.
    pub fault: Option<PathFault>,
}

/// A callback in flight.
///
/// # Examples
///
/// ```
/// use ringback::ClientReport;
///
/// fn oldest_ns(client: &ClientReport) -> Option<u64> {
///     client.callbacks.first().map(|callback| callback.age_ns)
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CallbackReport {
    /// The callback.
    pub key: CallbackKey,
    /// Its cookie.
    pub cookie: u64,
    /// The runtime sends it on its own account ([`Budget`](crate::Budget)); the cookie is not the embedder's.
    pub by_runtime: bool,
    /// Which operation.
    pub op: CallbackOp,
    /// Nanoseconds since the accepted `try_run`.
    pub age_ns: u64,
    /// Where it is.
    pub stage: Stage,
    /// It was sent at least once.
    pub sent: bool,
    /// The session and the session slot that it occupies.
    pub at: Option<(SessionKey, u32)>,
}

impl Runtime {
    /// Describes all clients, with at most `callbacks_max` of the callbacks of each that are in flight. Walks them on their
    /// reactors and waits for the answers: for who operates the server, and not to be done often. [`Error::InHook`] from a
    /// hook.
    pub fn inspect(&self, callbacks_max: usize) -> Result<Vec<ClientReport>, Error> {
        self.may_wait()?;
        let (answer, answers) = mpsc::channel();
        for port in &self.shared().reactors {
            port.post(Command::Inspect { callbacks_max, answer: answer.clone() });
        }
        drop(answer);
        // Ends when the last reactor has answered, or dropped the question because it has ended.
        let mut clients: Vec<ClientReport> = answers.iter().flatten().collect();
        clients.sort_by_key(|report| report.client.to_bits());
        Ok(clients)
    }
}
