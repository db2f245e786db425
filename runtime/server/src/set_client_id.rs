//! Clients of minor version 0: SETCLIENTID, SETCLIENTID_CONFIRM and RENEW (RFC 7530 sections 16.33, 16.34 and 16.28).
//!
//! A name (nfs_client_id4.id) has at most one record that is confirmed and one SETCLIENTID that is not: a record of its own,
//! or, if it changes only where a confirmed client is called back, an update of that one's. Records are those of minor
//! version 1 ([`Clients`]), names are not: a client of one minor version is never taken for one of the other.

use crate::Inner;
use crate::clients::{Client, Clients, Incarnation, Principal, Version};
use crate::expired::Expired;
use crate::sessions::Origin;
use ringback::{CallbackAddress, ConnectionId, PathConfig, PathState, Security};
use ringback_rpc::nfs4::fore::{SetClientIdArgs, SetClientIdConfirmArgs, SetClientIdOk};
use ringback_rpc::nfs4::{ClientId4, Status, UniversalAddress, Verifier4};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

/// Calls that a client has to answer at a time: as many as Linux has session slots for in minor version 1.
const WINDOW: u32 = 16;
/// What the server calls itself in the credential of a callback.
const MACHINE_NAME: &[u8] = b"ringback";

/// What one SETCLIENTID has said, besides the name.
#[derive(Debug)]
pub(crate) struct Said {
    /// What SETCLIENTID_CONFIRM has to bring back.
    confirm: Verifier4,
    principal: Principal,
    /// r_netid and r_addr, as they came: NFS4ERR_CLID_INUSE tells them.
    pub(crate) location: (Box<[u8]>, Box<[u8]>),
    path: PathConfig,
}

/// What the record of a client of minor version 0 has besides.
#[derive(Debug)]
pub(crate) struct Registration {
    pub(crate) said: Said,
    /// A later SETCLIENTID of the same incarnation, which has not been confirmed.
    update: Option<Said>,
}

/// Somebody else uses the name: r_netid and r_addr of where he is called back.
#[derive(Debug)]
pub(crate) struct InUse(pub(crate) Box<[u8]>, pub(crate) Box<[u8]>);

/// What is known of clients of minor version 0 besides their records.
#[derive(Debug, Default)]
pub(crate) struct Minor0Clients {
    known: RwLock<Known>,
    /// Where connections come from: callbacks go nowhere else.
    peers: Mutex<HashMap<ConnectionId, SocketAddr>>,
    /// The client that has named itself on a connection, as long as that is one.
    users: RwLock<HashMap<ConnectionId, Option<Arc<Client>>>>,
    pub(crate) expired: Expired,
    /// Makes confirm verifiers.
    serial: AtomicU64,
    /// No client is confirmed: another process takes over. Changed under the lock of the clients.
    closed: AtomicBool,
}

/// The confirmed clients, as requests name them.
#[derive(Debug, Default)]
struct Known {
    by_id: HashMap<u64, Arc<Client>>,
    by_index: HashMap<u32, Arc<Client>>,
}

impl Minor0Clients {
    /// Where connections come from. Locked from before a connection is handed to the runtime until it is in here.
    pub(crate) fn peers(&self) -> MutexGuard<'_, HashMap<ConnectionId, SocketAddr>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A client has named itself on a connection.
    pub(crate) fn note_user(&self, connection: ConnectionId, client: &Arc<Client>) {
        let is_it = |user: &Option<Arc<Client>>| user.as_ref().is_none_or(|user| Arc::ptr_eq(user, client));
        if self.users.read().unwrap_or_else(PoisonError::into_inner).get(&connection).is_some_and(is_it) {
            return;
        }
        let mut users = self.users.write().unwrap_or_else(PoisonError::into_inner);
        let user = users.entry(connection).or_insert_with(|| Some(Arc::clone(client)));
        if let Some(known) = user
            && !Arc::ptr_eq(known, client)
        {
            // The same client after it has begun anew; or another one, and then nobody can tell who it is.
            *user = known.is_gone().then(|| Arc::clone(client));
        }
    }

    /// Whose connection it is: that of the one client that has named itself there.
    pub(crate) fn user_of(&self, connection: ConnectionId) -> Option<Arc<Client>> {
        let users = self.users.read().unwrap_or_else(PoisonError::into_inner);
        users.get(&connection).cloned().flatten().filter(|client| !client.is_gone())
    }

    /// A connection is closed.
    pub(crate) fn forget_connection(&self, connection: ConnectionId) {
        self.peers().remove(&connection);
        self.users.write().unwrap_or_else(PoisonError::into_inner).remove(&connection);
    }

    fn known<R>(&self, look: impl FnOnce(&Known) -> R) -> R {
        look(&self.known.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The client whose state it is; `None`: that of minor version 1.
    pub(crate) fn of_index(&self, index: u32) -> Option<Arc<Client>> {
        self.known(|known| known.by_index.get(&index).cloned())
    }

    fn add(&self, client: &Arc<Client>) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.by_id.insert(client.id.0, Arc::clone(client));
        known.by_index.insert(client.index, Arc::clone(client));
    }

    /// The client is gone.
    pub(crate) fn forget(&self, client: &Client) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.by_id.remove(&client.id.0);
        known.by_index.remove(&client.index);
    }

    /// Another runtime knows of no paths: RENEW tells each client, which says again where it is called back.
    pub(crate) fn lose_paths(&self) {
        self.known(|known| known.by_id.values().for_each(|client| client.set_path(PathState::Down)));
    }

    /// The runtime has found out about a client's callbacks.
    pub(crate) fn path_is(&self, callbacks: ringback::ClientId, state: PathState) {
        self.known(|known| {
            let found = known.by_id.values().find(|client| client.callbacks == callbacks);
            found.inspect(|client| client.set_path(state));
        });
    }
}

impl Inner {
    /// Another process takes over, to which owners and callback paths do not go: clients of minor version 0 find that their
    /// lease has expired, and begin anew, with that process or, if it has not taken over after all, when this one is open to
    /// them again.
    pub(crate) fn close_to_minor0_clients(&self) {
        let mut clients = self.clients();
        self.minor0.closed.store(true, Relaxed);
        let ids: Vec<u64> = self.minor0.known(|known| known.by_id.keys().copied().collect());
        // One that could not be written is another's: the next process does not know it either.
        for id in ids {
            let _ = self.drop_client(&mut clients, id);
        }
    }

    /// No other process has taken over.
    pub(crate) fn open_to_minor0_clients(&self) {
        let _clients = self.clients();
        self.minor0.closed.store(false, Relaxed);
    }

    /// SETCLIENTID. The numbers in the comments are those of the cases in RFC 7530 section 16.33.5.
    pub(crate) fn set_client_id(&self, args: &SetClientIdArgs<'_>, origin: &Origin) -> Result<SetClientIdOk, InUse> {
        let (name, verifier) = (args.client.id.as_bytes(), args.client.verifier);
        let said = self.said(args, origin);
        let confirm = said.confirm;
        let mut clients = self.clients();
        let known = clients.incarnations(Version::Minor0, name);
        let confirmed = known.confirmed.and_then(|id| Some((id, clients.records.get_mut(&id)?)));
        let same = match confirmed {
            Some((_, record)) if record.principal != origin.principal => {
                if self.is_in_use(record, origin.now_ns)
                    && let Some(registration) = &record.minor0
                {
                    let (netid, address) = registration.said.location.clone();
                    return Err(InUse(netid, address));
                }
                None
            }
            Some((id, record)) if record.verifier == verifier => record.minor0.as_mut().map(|r| (id, r)),
            _ => None,
        };
        let id = match same {
            // 1: another place to call the client back.
            Some((id, registration)) => {
                registration.update = Some(said);
                known.unconfirmed.map(|older| clients.remove(older));
                id
            }
            // 2, 4 and 5: a client that has restarted, one that has not been confirmed, a new one.
            None => {
                known.unconfirmed.map(|older| clients.remove(older));
                if let Some(record) = known.confirmed.and_then(|id| clients.records.get_mut(&id))
                    && let Some(registration) = &mut record.minor0
                {
                    registration.update = None;
                }
                let owner = Incarnation { version: Version::Minor0, owner: name, verifier };
                let limit = self.config.clients_unconfirmed_max;
                let id = clients.add_unconfirmed(owner, origin.principal, origin.now_ns, limit);
                if let Some(record) = clients.records.get_mut(&id) {
                    record.minor0 = Some(Box::new(Registration { said, update: None }));
                }
                id
            }
        };
        Ok(SetClientIdOk { client_id: ClientId4(id), confirm })
    }

    /// What a SETCLIENTID says. A client whose address cannot be used is given a path that nobody connects: it is served,
    /// without delegations.
    fn said(&self, args: &SetClientIdArgs<'_>, origin: &Origin) -> Said {
        let location = args.callback.location;
        let peer = self.minor0.peers().get(&origin.connection).copied();
        let address = UniversalAddress::parse(location.netid(), location.address()).ok();
        let address = match (address, peer) {
            (Some(address), Some(peer)) => CallbackAddress::Connect { address: address.socket_address(), peer },
            _ => CallbackAddress::Supplied,
        };
        // As the SETCLIENTID itself was authenticated.
        let security = match origin.principal {
            Principal::Nobody => Security::None,
            Principal::Uid(uid) => {
                Security::Sys { stamp: 0, machine_name: MACHINE_NAME.to_vec(), uid, gid: origin.gid, gids: Vec::new() }
            }
        };
        let serial = self.minor0.serial.fetch_add(1, Relaxed);
        Said {
            // Another life of the server has others.
            confirm: Verifier4((u64::from(self.files.instance) << 40 | serial).to_be_bytes()),
            principal: origin.principal,
            location: (location.netid().into(), location.address().into()),
            path: PathConfig {
                program: args.callback.program,
                callback_ident: args.callback_ident,
                security,
                address,
                window: WINDOW,
            },
        }
    }

    /// SETCLIENTID_CONFIRM (RFC 7530 section 16.34.5).
    pub(crate) fn set_client_id_confirm(&self, args: &SetClientIdConfirmArgs, origin: &Origin) -> Result<(), Status> {
        let mut clients = self.clients();
        let id = args.client_id.0;
        clients.drop_unconfirmed(id, origin.now_ns, self.config.lease.as_nanos() as u64);
        let record = clients.records.get_mut(&id).ok_or(Status::NFS4ERR_STALE_CLIENTID)?;
        let registration = record.minor0.as_mut().ok_or(Status::NFS4ERR_STALE_CLIENTID)?;
        let client = record.client.clone();
        let (is_update, principal) = match (&registration.update, &registration.said) {
            (Some(update), _) if update.confirm == args.confirm => (true, update.principal),
            (_, said) if said.confirm == args.confirm => (false, said.principal),
            _ => return Err(Status::NFS4ERR_STALE_CLIENTID),
        };
        if principal != origin.principal {
            return Err(Status::NFS4ERR_CLID_INUSE);
        }
        match client {
            Some(client) => {
                client.renew(origin.now_ns);
                if is_update && let Some(update) = registration.update.take() {
                    self.call_back(&client, &update.path);
                    registration.said = update;
                }
                // Else it is the repetition of one that was served.
                Ok(())
            }
            None => self.confirm_minor0(&mut clients, args.client_id, origin),
        }
    }

    /// Confirms a client. What its former incarnation held is forgotten.
    fn confirm_minor0(&self, clients: &mut Clients, id: ClientId4, origin: &Origin) -> Result<(), Status> {
        if self.minor0.closed.load(Relaxed) {
            return Err(Status::NFS4ERR_DELAY);
        }
        let former = clients.replaced_by(id.0).and_then(|former| clients.records.get(&former));
        // What held nothing at the time of the SETCLIENTID may hold something now.
        if former.is_some_and(|f| f.principal != origin.principal && self.is_in_use(f, origin.now_ns)) {
            return Err(Status::NFS4ERR_CLID_INUSE);
        }
        let client = self.confirm(clients, id, origin)?;
        // There is no RECLAIM_COMPLETE to wait for. Where something is stored, its first OPEN of something new stands for it.
        if self.store.is_none() {
            client.complete_reclaim();
        }
        self.minor0.add(&client);
        self.files.keep_no_revoked(client.index, true);
        if let Some(registration) = clients.records.get(&id.0).and_then(|r| r.minor0.as_ref()) {
            self.call_back(&client, &registration.said.path);
        }
        Ok(())
    }

    /// The client is called back so from now on. Until that has been seen to work it is given no delegations.
    fn call_back(&self, client: &Client, path: &PathConfig) {
        client.set_path(PathState::Unknown);
        if !self.callbacks.set_path(client.callbacks, path) {
            client.set_path(PathState::Down);
            let nowhere = PathConfig { address: CallbackAddress::Supplied, ..path.clone() };
            self.callbacks.set_path(client.callbacks, &nowhere);
        }
    }

    /// The client that a request names, whose lease it renews (RFC 7530 section 9.5).
    pub(crate) fn client_of_id(&self, id: ClientId4, now_ns: u64) -> Result<Arc<Client>, Status> {
        let client = self.minor0.known(|known| known.by_id.get(&id.0).cloned());
        let client = client.ok_or_else(|| match self.clients().has_forgotten(id.0) {
            true => Status::NFS4ERR_EXPIRED,
            false => Status::NFS4ERR_STALE_CLIENTID,
        })?;
        client.renew(now_ns);
        Ok(client)
    }

    /// RENEW. The lease is renewed even if the client is told that it cannot be called back (RFC 7530 section 16.28.4).
    pub(crate) fn renew(&self, id: ClientId4, now_ns: u64) -> Result<(), Status> {
        let client = self.client_of_id(id, now_ns)?;
        // To ask is to tell.
        let down = !client.has_path() && (self.callbacks.is_path_down(client.callbacks) || client.is_path_down());
        if down && self.files.delegations_held(client.index) > 0 {
            return Err(Status::NFS4ERR_CB_PATH_DOWN);
        }
        Ok(())
    }
}
