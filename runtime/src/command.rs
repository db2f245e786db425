//! What other threads, and other reactors, ask of a reactor. Callbacks to run do not come this way: they have their own
//! intrusive inbox, which needs no memory.

use crate::callback::CallbackKey;
use crate::drain::DrainJob;
use crate::guard::guard;
#[cfg(feature = "checkpoint")]
use crate::hooks::Event;
use crate::inspect::ClientReport;
use crate::io::SendBuf;
use crate::keys::{ClientId, ConnectionId, SessionKey};
use crate::reactor::{Described, Moving};
use crate::settings::Settings;
use crate::stats::Census;
use crate::transport::Transport;
use ringback_rpc::backchannel::{ClientLimits, ClientState, Credential, PathParams, SessionParams};
use ringback_rpc::record::MARK_BYTES;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::Sender;

pub(crate) enum Command {
    // To the reactor of a connection.
    AddSocket {
        connection: ConnectionId,
        socket: OwnedFd,
    },
    AddTransport {
        connection: ConnectionId,
        transport: Box<dyn Transport>,
    },
    CloseConnection(ConnectionId),
    /// A record received by an embedder's transport.
    Receive {
        connection: ConnectionId,
        record: Vec<u8>,
    },
    /// An embedder's transport is done with a buffer.
    Transmitted {
        connection: ConnectionId,
        buf: SendBuf,
        result: io::Result<()>,
    },
    /// A fore-channel reply: its record mark and its bytes.
    Reply {
        connection: ConnectionId,
        mark: [u8; MARK_BYTES],
        buffers: Vec<Vec<u8>>,
    },
    /// First half of binding: the connection learns whose backchannel it carries, then tells the client's home.
    Bind {
        connection: ConnectionId,
        session: SessionKey,
    },
    /// Callback records that the client's home reactor has encoded.
    Carry {
        connection: ConnectionId,
        records: Vec<u8>,
        /// How many records.
        calls: u64,
        client: ClientId,
    },

    /// A client is forgotten by its home: the connection carries nothing for it any more.
    Release {
        connection: ConnectionId,
        client: ClientId,
    },

    // To the home reactor of a client.
    AddClient(ClientId),
    RemoveClient(ClientId),
    ClientState {
        client: ClientId,
        state: ClientState,
    },
    Limits {
        client: ClientId,
        limits: ClientLimits,
    },
    /// The client was told that its callback path is down.
    PathDownTold(ClientId),
    AddSession {
        session: SessionKey,
        params: Box<SessionParams>,
    },
    RemoveSession(SessionKey),
    /// BACKCHANNEL_CTL (RFC 8881 section 18.33).
    Control {
        session: SessionKey,
        program: u32,
        credential: Credential,
    },
    /// SETCLIENTID_CONFIRM of minor version 0 (RFC 7530 section 16.34).
    ConfirmPath {
        path: SessionKey,
        params: Box<PathParams>,
        /// `None`: the embedder supplies the sockets.
        address: Option<SocketAddr>,
    },
    /// A connection for a client that has moved meanwhile was not made.
    ConnectFailed(SessionKey),
    /// Second half of binding.
    Bound {
        connection: ConnectionId,
        session: SessionKey,
    },
    /// A callback's reply that arrived on a connection of another reactor.
    Carried {
        connection: ConnectionId,
        client: ClientId,
        record: Vec<u8>,
    },
    /// Something arrived on a connection of another reactor.
    Heard {
        connection: ConnectionId,
        client: ClientId,
    },
    /// Receiving from a connection of another reactor pauses for calls that wait for the embedder, or goes on.
    Hold {
        connection: ConnectionId,
        client: ClientId,
        held: bool,
    },
    /// What a [`Command::Carry`] brought is not in the way of more any longer.
    CarryDone {
        connection: ConnectionId,
        client: ClientId,
    },
    /// A connection of another reactor is gone.
    Unbound {
        connection: ConnectionId,
        client: ClientId,
    },

    /// The client goes to another reactor.
    Move {
        client: ClientId,
        to: usize,
    },
    /// A client comes from another reactor.
    Arrive(Box<Moving>),
    /// The client at this place was to come, and is lost.
    Lost(u32),
    /// Counts the session slots of one client, for a census that has missed it.
    CensusOf {
        client: ClientId,
        census: u64,
        answer: Sender<Census>,
    },

    // To every reactor, or to one.
    /// Other settings from now on.
    Tune(Arc<Settings>),
    /// An accepted run that came to a reactor which is not the client's home any more.
    Submit(u32),
    /// The same of one that the embedder has given back.
    TakeBack(u32),
    /// This callback is about a session (CB_RECALL_SLOT).
    Belongs {
        key: CallbackKey,
        session: SessionKey,
    },
    /// Runs of the client at this place are to end, which the words of their entries say.
    Cancel(u32),
    /// The runs of one client are to end.
    DrainClient {
        client: ClientId,
        job: Arc<DrainJob>,
    },
    /// Nothing new is to be sent on a session, and what is out on it is to end.
    DrainSession {
        session: SessionKey,
        job: Arc<DrainJob>,
    },
    /// A run was given up before it began: who waits for it is told, and its client is looked at.
    Abandoned {
        /// The entry.
        callback: u32,
        /// The place of its client.
        client: u32,
    },
    /// Many waiters have left: forget them.
    ForgetWaiters,
    Drain(Arc<DrainJob>),
    /// Count session slots of the clients that this census has not counted.
    Census {
        census: u64,
        answer: Sender<Census>,
    },
    /// Describe the reactor and its clients, with so many of the callbacks of each that are in flight.
    Inspect {
        callbacks_max: usize,
        answer: Sender<Described>,
    },
    /// Hand out the clients from that place on, as many as fit into a turn.
    #[cfg(feature = "checkpoint")]
    Export {
        from: u32,
        answer: Sender<crate::checkpoint::take::Piece>,
    },
    /// Stand still at the end of the turn, and take orders.
    #[cfg(feature = "checkpoint")]
    Freeze(crate::checkpoint::suspend::Freeze),
    /// Go on with what another process has left off.
    #[cfg(feature = "checkpoint")]
    Restore(Box<crate::checkpoint::restore::RestoredReactor>),
    /// Describe one client.
    InspectClient {
        client: ClientId,
        callbacks_max: usize,
        answer: Sender<ClientReport>,
    },
    Stop,
    /// A mistake of ours.
    #[cfg(test)]
    Panic,
}

impl Command {
    /// The place in the table of the client that it is about, if it goes to the home of one.
    pub fn client(&self) -> Option<u32> {
        match self {
            Command::RemoveClient(client)
            | Command::ClientState { client, .. }
            | Command::Limits { client, .. }
            | Command::PathDownTold(client)
            | Command::Carried { client, .. }
            | Command::Heard { client, .. }
            | Command::Hold { client, .. }
            | Command::CarryDone { client, .. }
            | Command::Unbound { client, .. }
            | Command::Move { client, .. }
            | Command::CensusOf { client, .. }
            | Command::DrainClient { client, .. }
            | Command::InspectClient { client, .. } => Some(client.index),
            Command::ConfirmPath { path: session, .. }
            | Command::ConnectFailed(session)
            | Command::AddSession { session, .. }
            | Command::RemoveSession(session)
            | Command::Control { session, .. }
            | Command::Bound { session, .. }
            | Command::Belongs { session, .. }
            | Command::DrainSession { session, .. } => Some(session.client.index),
            Command::Cancel(client) | Command::Abandoned { client, .. } => Some(*client),
            _ => None,
        }
    }

    /// What is told of a call that is left undone; nothing, if this is a message between reactors, or somebody waits for an
    /// answer.
    #[cfg(feature = "checkpoint")]
    pub fn left_undone(&self) -> Option<Event> {
        let call = self.asked_by()?;
        let client = match self {
            Command::AddClient(client)
            | Command::RemoveClient(client)
            | Command::ClientState { client, .. }
            | Command::Limits { client, .. }
            | Command::Move { client, .. } => Some(*client),
            Command::AddSession { session, .. }
            | Command::RemoveSession(session)
            | Command::Control { session, .. }
            | Command::ConfirmPath { path: session, .. }
            | Command::Bind { session, .. } => Some(session.client),
            _ => None,
        };
        let connection = match self {
            Command::AddSocket { connection, .. }
            | Command::AddTransport { connection, .. }
            | Command::CloseConnection(connection)
            | Command::Receive { connection, .. }
            | Command::Reply { connection, .. }
            | Command::Bind { connection, .. } => Some(*connection),
            _ => None,
        };
        Some(Event::LeftUndone { call, client, connection, key: None })
    }

    /// What an embedder has called for it.
    #[cfg(feature = "checkpoint")]
    fn asked_by(&self) -> Option<&'static str> {
        Some(match self {
            Command::AddSocket { .. } => "add_connection",
            Command::AddTransport { .. } => "add_transport",
            Command::CloseConnection(_) => "close_connection",
            Command::Receive { .. } => "receive",
            Command::Reply { .. } => "reply",
            Command::Bind { .. } => "bind",
            Command::AddClient(_) => "add_client",
            Command::RemoveClient(_) => "remove_client",
            Command::ClientState { .. } => "set_client_state",
            Command::Limits { .. } => "set_client_limits",
            Command::AddSession { .. } => "add_session",
            Command::RemoveSession(_) => "remove_session",
            Command::Control { .. } => "backchannel_ctl",
            Command::ConfirmPath { .. } => "confirm_path",
            Command::Move { .. } => "move_client",
            Command::Tune(_) => "tune",
            // `Cancel`: the words of entries tell of it.
            _ => return None,
        })
    }

    /// The reactor has ended without taking this. What is owned here is dropped, which closes a socket and ends the
    /// wait for an answer.
    pub fn discard(self) {
        match self {
            Command::AddTransport { mut transport, .. } => {
                let _ = guard(move || transport.close());
            }
            Command::Drain(job) | Command::DrainClient { job, .. } | Command::DrainSession { job, .. } => {
                job.reactor_done(Arc::default());
            }
            _ => {}
        }
    }
}
