//! Sessions: CREATE_SESSION, BIND_CONN_TO_SESSION, BACKCHANNEL_CTL, DESTROY_SESSION (RFC 8881 sections 2.10 and 18.33 to
//! 18.37). Each has its slot table here and its backchannel in the runtime.

use crate::Inner;
use crate::clients::{Client, Clients, Principal};
use crate::keep::{Keep, load_bytes, malformed, save_bytes};
use ringback::{ConnectionId, Security, SessionConfig, SessionKey};
use ringback_rpc::nfs4::fore::{
    BackchannelCtlArgs, BindConnToSessionArgs, BindConnToSessionOk, BindDirection, BoundDirection, ChannelAttrs,
    CreateSessionArgs, CreateSessionOk, create_session_flag as flag,
};
use ringback_rpc::nfs4::{CallbackSecParms, ClientId4, List, SessionId, Status};
use ringback_rpc::session::{ReplierImage, ReplierSlotImage, ReplierSlots};
use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

/// Shortest request and reply worth a session on the fore channel: room for SEQUENCE, a filehandle, an OPEN and their RPC
/// headers.
const FORE_BYTES_MIN: u32 = 256;
/// Connections that a session is known to be associated with; more than a client has.
const CONNECTIONS_MAX: usize = 64;
/// Shortest callback request: RPC header with the longest credential (400 bytes), CB_SEQUENCE, and CB_RECALL with the
/// longest filehandle.
const BACK_REQUEST_BYTES_MIN: u32 = 768;
/// Shortest callback reply: RPC header, CB_SEQUENCE, a status.
const BACK_RESPONSE_BYTES_MIN: u32 = 128;
/// CB_SEQUENCE and the operation that matters.
const BACK_OPERATIONS_MIN: u32 = 2;

/// A session.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) id: SessionId,
    /// The runtime's name for its backchannel.
    pub(crate) key: SessionKey,
    pub(crate) client: Arc<Client>,
    /// What was granted for the fore channel.
    pub(crate) fore: ChannelAttrs,
    /// Bytes of one callback.
    pub(crate) callback_bytes_max: u32,
    /// Whether a connection may be bound to its backchannel: not if the client accepts only credentials that are not
    /// served here.
    has_backchannel: bool,
    /// Connections that it is associated with (RFC 8881 section 2.10.3.1), the latest last.
    connections: Mutex<Vec<ConnectionId>>,
    slots: Mutex<ReplierSlots>,
}

impl Session {
    /// The slot table and its reply cache.
    pub(crate) fn slots(&self) -> MutexGuard<'_, ReplierSlots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn connections(&self) -> MutexGuard<'_, Vec<ConnectionId>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For another process.
    pub(crate) fn save(&self, out: &mut dyn Write) -> io::Result<()> {
        let (client, serial) = self.key.to_parts();
        (self.id, (self.client.id, (client, serial))).save(out)?;
        (self.fore, (self.callback_bytes_max, self.has_backchannel)).save(out)?;
        self.connections().save(out)?;
        let slots = self.slots().export();
        slots.save(out)
    }

    /// One of another process, of these clients.
    pub(crate) fn load(clients: &Clients, from: &mut dyn Read) -> io::Result<Self> {
        let (id, (client_id, (client, serial))) = Keep::load(from)?;
        let (fore, (callback_bytes_max, has_backchannel)) = Keep::load(from)?;
        let connections = Mutex::new(Keep::load(from)?);
        let slots = Mutex::new(ReplierSlots::import(ReplierImage::load(from)?).ok_or_else(malformed)?);
        let key = SessionKey::from_parts(client, serial);
        let client = Arc::clone(clients.client(client_id).ok_or_else(malformed)?);
        Ok(Session { id, key, client, fore, callback_bytes_max, has_backchannel, connections, slots })
    }

    /// Associates it with a connection: CREATE_SESSION, BIND_CONN_TO_SESSION and SEQUENCE do.
    pub(crate) fn associate(&self, connection: ConnectionId) {
        let mut connections = self.connections();
        if !connections.contains(&connection) {
            if connections.len() >= CONNECTIONS_MAX {
                connections.remove(0);
            }
            connections.push(connection);
        }
    }
}

impl Keep for ReplierSlotImage {
    fn save(&self, out: &mut dyn Write) -> io::Result<()> {
        ((self.id, self.used), ((self.busy, self.cached), (self.again, (self.told, self.fingerprint)))).save(out)?;
        save_bytes(&self.reply, out)
    }
    fn load(from: &mut dyn Read) -> io::Result<Self> {
        let ((id, used), ((busy, cached), (again, (told, fingerprint)))) = Keep::load(from)?;
        Ok(ReplierSlotImage { id, used, busy, cached, again, told, fingerprint, reply: load_bytes(from)? })
    }
}

impl Keep for ReplierImage {
    fn save(&self, out: &mut dyn Write) -> io::Result<()> {
        self.slots.save(out)?;
        self.former.save(out)?;
        (self.target, (self.lowered, self.reply_bytes_max)).save(out)
    }
    fn load(from: &mut dyn Read) -> io::Result<Self> {
        let (slots, former) = Keep::load(from)?;
        let (target, (lowered, reply_bytes_max)) = Keep::load(from)?;
        Ok(ReplierImage { slots, former, target, lowered, reply_bytes_max })
    }
}

/// All sessions: looked up by every SEQUENCE, changed seldom.
pub(crate) type Sessions = RwLock<HashMap<SessionId, Arc<Session>>>;

/// Which connection a request came on, from whom, and when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin {
    pub(crate) connection: ConnectionId,
    pub(crate) principal: Principal,
    /// The group of files that the caller makes.
    pub(crate) gid: u32,
    /// Other groups of the caller.
    pub(crate) groups: Groups,
    pub(crate) now_ns: u64,
    /// That of the compound.
    pub(crate) minor_version: u32,
}

/// A caller's groups, as many as AUTH_SYS carries (RFC 5531 appendix A).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Groups {
    ids: [u32; GROUPS_MAX],
    len: usize,
}

/// Groups in an AUTH_SYS credential.
const GROUPS_MAX: usize = 16;

impl Groups {
    pub(crate) fn new(groups: &[u32]) -> Self {
        let mut ids = [0; GROUPS_MAX];
        let len = groups.len().min(GROUPS_MAX);
        ids[..len].copy_from_slice(&groups[..len]);
        Groups { ids, len }
    }

    pub(crate) fn contains(&self, gid: u32) -> bool {
        self.ids[..self.len].contains(&gid)
    }
}

impl Inner {
    /// The session of that name.
    pub(crate) fn session(&self, id: &SessionId) -> Result<Arc<Session>, Status> {
        let sessions = self.sessions.read().unwrap_or_else(PoisonError::into_inner);
        sessions.get(id).cloned().ok_or(Status::NFS4ERR_BADSESSION)
    }

    /// CREATE_SESSION. The phases are those of RFC 8881 section 18.36.4.
    pub(crate) fn create_session(
        &self,
        args: &CreateSessionArgs<'_>,
        origin: &Origin,
    ) -> Result<CreateSessionOk, Status> {
        let mut clients = self.clients();
        // Phase 1, client record lookup.
        let id = args.client_id.0;
        clients.drop_unconfirmed(id, origin.now_ns, self.config.lease.as_nanos() as u64);
        // A client id of minor version 0 is none here.
        let record = clients.records.get(&id).filter(|r| r.minor0.is_none()).ok_or(Status::NFS4ERR_STALE_CLIENTID)?;
        // Phase 2, sequence id processing. A reply that was lost is repeated as it was, and so is an error: a client
        // counts those as well.
        if args.sequence_id == record.sequence.wrapping_sub(1)
            && let Some(reply) = record.last_reply
        {
            self.rebind(&reply, origin);
            return reply;
        }
        if args.sequence_id != record.sequence {
            return Err(Status::NFS4ERR_SEQ_MISORDERED);
        }
        // Arguments that no session can have change nothing, not even the sequence id.
        let channels = self.channels(args, origin.now_ns)?;
        let reply = self.confirm_and_create(&mut clients, args, channels, origin);
        if reply != Err(Status::NFS4ERR_DELAY)
            && let Some(record) = clients.records.get_mut(&id)
        {
            record.sequence = record.sequence.wrapping_add(1);
            record.last_reply = Some(reply);
        }
        reply
    }

    /// A repeated CREATE_SESSION may come on another connection, as the first one broke: the client takes it for bound.
    fn rebind(&self, reply: &Result<CreateSessionOk, Status>, origin: &Origin) {
        if let Ok(ok) = reply
            && ok.flags & flag::CONN_BACK_CHAN != 0
            && let Ok(session) = self.session(&ok.session_id)
        {
            session.associate(origin.connection);
            self.callbacks.bind(origin.connection, session.key);
        }
    }

    /// What the two channels get.
    fn channels(&self, args: &CreateSessionArgs<'_>, now_ns: u64) -> Result<(ChannelAttrs, ChannelAttrs), Status> {
        if args.flags & !(flag::PERSIST | flag::CONN_BACK_CHAN | flag::CONN_RDMA) != 0 {
            return Err(Status::NFS4ERR_INVAL);
        }
        Ok((self.fore_attrs(&args.fore_channel, now_ns)?, self.back_attrs(&args.back_channel)?))
    }

    fn confirm_and_create(
        &self,
        clients: &mut Clients,
        args: &CreateSessionArgs<'_>,
        (fore, back): (ChannelAttrs, ChannelAttrs),
        origin: &Origin,
    ) -> Result<CreateSessionOk, Status> {
        let security = pick_security(&args.security);
        let id = args.client_id.0;
        // Phase 3, client id confirmation.
        let record = clients.records.get(&id).ok_or(Status::NFS4ERR_STALE_CLIENTID)?;
        if record.sessions.len() >= self.config.sessions_per_client_max {
            return Err(Status::NFS4ERR_NOSPC);
        }
        let client = match &record.client {
            Some(client) => Arc::clone(client),
            None if record.principal != origin.principal => return Err(Status::NFS4ERR_CLID_INUSE),
            None => self.confirm(clients, args.client_id, origin)?,
        };
        // Phase 4, session creation.
        let has_backchannel = security.is_some();
        let bound = has_backchannel && args.flags & flag::CONN_BACK_CHAN != 0;
        let session_id = self.new_session_id(client.id);
        let config = SessionConfig {
            session_id: session_id.0,
            program: args.callback_program,
            security: security.unwrap_or(Security::None),
            slots: back.requests_max,
            request_bytes_max: back.request_bytes_max,
            response_bytes_max: back.response_bytes_max,
            operations_max: back.operations_max,
            minor_version: origin.minor_version,
        };
        let key = self.callbacks.add_session(client.callbacks, config, bound.then_some(origin.connection))?;
        let slots = ReplierSlots::new(fore.requests_max, fore.response_bytes_max_cached as usize);
        let connections = Mutex::new(vec![origin.connection]);
        let slots = Mutex::new(slots);
        let (id_of_session, callback_bytes_max) = (session_id, back.request_bytes_max);
        let session =
            Session { id: id_of_session, key, client, fore, callback_bytes_max, has_backchannel, connections, slots };
        self.sessions.write().unwrap_or_else(PoisonError::into_inner).insert(session_id, Arc::new(session));
        if let Some(record) = clients.records.get_mut(&id) {
            record.sessions.push(session_id);
        }
        Ok(CreateSessionOk {
            session_id,
            sequence_id: args.sequence_id,
            flags: if bound { flag::CONN_BACK_CHAN } else { 0 },
            fore_channel: fore,
            back_channel: back,
        })
    }

    /// Confirms a client. What its former incarnation held is forgotten (RFC 8881 section 18.35.4, case 5).
    pub(crate) fn confirm(&self, clients: &mut Clients, id: ClientId4, origin: &Origin) -> Result<Arc<Client>, Status> {
        let former = clients.replaced_by(id.0);
        let index = match clients.take_index() {
            Some(index) => index,
            None => {
                // Room is made by the client's own former life, or else by a client whose lease has run out.
                match former {
                    Some(former) => self.drop_client(clients, former)?,
                    None => self.drop_expired_client(clients, origin.now_ns)?,
                }
                clients.take_index().ok_or(Status::NFS4ERR_NOSPC)?
            }
        };
        let callbacks = self.callbacks.add_client(origin.connection).inspect_err(|_| clients.give_index(index))?;
        let undo = |clients: &mut Clients, status| {
            self.callbacks.remove_client(callbacks);
            clients.give_index(index);
            Err(status)
        };
        if let Some(former) = former
            && let Err(status) = self.drop_client(clients, former)
        {
            return undo(clients, status);
        }
        let confirmed = clients.confirm(id.0, index, callbacks, origin.now_ns);
        let client = confirmed.ok_or(Status::NFS4ERR_STALE_CLIENTID)?;
        if let Some(record) = clients.records.get(&id.0) {
            self.begin_claims(&client, record)?;
        }
        Ok(client)
    }

    fn new_session_id(&self, client: ClientId4) -> SessionId {
        let serial = self.session_serial.fetch_add(1, Relaxed);
        let mut id = [0; 16];
        id[..8].copy_from_slice(&client.0.to_be_bytes());
        id[8..].copy_from_slice(&serial.to_be_bytes());
        SessionId(id)
    }

    /// What the fore channel gets: at most what the client asks for (RFC 8881 section 18.36.3).
    fn fore_attrs(&self, asked: &ChannelAttrs, now_ns: u64) -> Result<ChannelAttrs, Status> {
        let config = &self.config;
        let response_bytes_max = asked.response_bytes_max.min(config.response_bytes_max);
        let granted = ChannelAttrs {
            header_pad_bytes: 0,
            request_bytes_max: asked.request_bytes_max.min(config.request_bytes_max),
            response_bytes_max,
            response_bytes_max_cached: asked
                .response_bytes_max_cached
                .min(config.response_bytes_max_cached)
                .min(response_bytes_max),
            operations_max: asked.operations_max.min(config.operations_max),
            requests_max: asked.requests_max.min(self.session_slots.get(now_ns)),
            rdma_ird: None,
        };
        let too_small = granted.request_bytes_max < FORE_BYTES_MIN
            || granted.response_bytes_max < FORE_BYTES_MIN
            || granted.operations_max == 0
            || granted.requests_max == 0;
        if too_small { Err(Status::NFS4ERR_TOOSMALL) } else { Ok(granted) }
    }

    /// What the backchannel gets. Here the server is the requester, and never more than the client's own limits.
    fn back_attrs(&self, asked: &ChannelAttrs) -> Result<ChannelAttrs, Status> {
        let granted = ChannelAttrs {
            header_pad_bytes: 0,
            request_bytes_max: asked.request_bytes_max.min(self.config.request_bytes_max),
            response_bytes_max: asked.response_bytes_max.min(self.config.response_bytes_max),
            // csa_cachethis is always false on our callbacks.
            response_bytes_max_cached: 0,
            operations_max: asked.operations_max.min(self.config.operations_max),
            requests_max: asked.requests_max.min(self.config.session_slots_max),
            rdma_ird: None,
        };
        let too_small = granted.request_bytes_max < BACK_REQUEST_BYTES_MIN
            || granted.response_bytes_max < BACK_RESPONSE_BYTES_MIN
            || granted.operations_max < BACK_OPERATIONS_MIN
            || granted.requests_max == 0;
        if too_small { Err(Status::NFS4ERR_TOOSMALL) } else { Ok(granted) }
    }

    /// BIND_CONN_TO_SESSION.
    pub(crate) fn bind_conn_to_session(
        &self,
        args: &BindConnToSessionArgs,
        origin: &Origin,
    ) -> Result<BindConnToSessionOk, Status> {
        let session = self.session(&args.session_id)?;
        let direction = match args.direction {
            BindDirection::Fore => BoundDirection::Fore,
            BindDirection::ForeOrBoth | BindDirection::BackOrBoth if session.has_backchannel => BoundDirection::Both,
            BindDirection::ForeOrBoth => BoundDirection::Fore,
            BindDirection::Back if session.has_backchannel => BoundDirection::Back,
            BindDirection::Back | BindDirection::BackOrBoth => return Err(Status::NFS4ERR_INVAL),
        };
        session.associate(origin.connection);
        if direction != BoundDirection::Fore {
            self.callbacks.bind(origin.connection, session.key);
        }
        Ok(BindConnToSessionOk { session_id: session.id, direction, rdma: false })
    }

    /// BACKCHANNEL_CTL of the session that the request came on.
    pub(crate) fn backchannel_ctl(&self, session: &Session, args: &BackchannelCtlArgs<'_>) -> Result<(), Status> {
        // As for a GSS handle that is not known (RFC 8881 section 18.33.3): here none is.
        let security = pick_security(&args.security).ok_or(Status::NFS4ERR_NOENT)?;
        self.callbacks.control(session.key, args.callback_program, security)
    }

    /// DESTROY_SESSION. The client stays; so do its callbacks, which wait for another session of it.
    pub(crate) fn destroy_session(&self, id: &SessionId, connection: ConnectionId) -> Result<(), Status> {
        let mut clients = self.clients();
        let session = self.session(id)?;
        // It must come on a connection of the session (RFC 8881 section 18.37.3).
        if !session.connections().contains(&connection) {
            return Err(Status::NFS4ERR_CONN_NOT_BOUND_TO_SESSION);
        }
        if let Some(record) = clients.records.get_mut(&session.client.id.0) {
            record.sessions.retain(|s| s != id);
        }
        self.drop_session(id);
        Ok(())
    }

    /// Takes a session out of the table and of the runtime.
    pub(crate) fn drop_session(&self, id: &SessionId) {
        let gone = self.sessions.write().unwrap_or_else(PoisonError::into_inner).remove(id);
        if let Some(session) = gone {
            self.callbacks.remove_session(session.key);
        }
    }
}

/// The credential for callbacks, of those that the client accepts: AUTH_SYS before AUTH_NONE, which Linux clients refuse
/// for anything but CB_NULL. An empty list is taken for AUTH_NONE; `None`: only RPCSEC_GSS was offered.
fn pick_security(offered: &List<'_, CallbackSecParms<'_>>) -> Option<Security> {
    let mut picked = offered.is_empty().then_some(Security::None);
    for parms in offered.iter() {
        match parms {
            CallbackSecParms::Sys(sys) => {
                return Some(Security::Sys {
                    stamp: sys.stamp,
                    machine_name: sys.machine_name.to_vec(),
                    uid: sys.uid,
                    gid: sys.gid,
                    gids: sys.gids().to_vec(),
                });
            }
            CallbackSecParms::None => picked = Some(Security::None),
            CallbackSecParms::Gss(_) => {}
        }
    }
    picked
}
