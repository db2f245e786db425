//! Clients: who is known, and under which client id (RFC 8881 sections 2.4, 18.35, 18.50 and 18.51).
//!
//! An owner (co_ownerid) has at most one confirmed record and one that waits for its CREATE_SESSION. Only a confirmed
//! client exists for the rest of the server, as a [`Client`]: sessions and the runtime know nothing of the others.

use crate::Inner;
use crate::arena::Arena;
use crate::grace::Claims;
use crate::keep::{Keep, load_bytes, malformed, save_bytes};
use crate::set_client_id::Registration;
use crate::store::{ClientName, Incarnation as Life};
use ringback::{ClientId, PathState};
use ringback_rpc::nfs4::fore::{
    CreateSessionOk, ExchangeIdArgs, ExchangeIdOk, ImplId, Opaque4, ServerOwner, StateProtectArgs, StateProtectOk,
    exchange_id_flag as flag,
};
use ringback_rpc::nfs4::{ClientId4, SessionId, Status, Verifier4};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, MutexGuard, PoisonError};

/// Flags that a client may set in EXCHANGE_ID (RFC 8881 section 18.35.1, EXCHGID4_FLAG_MASK_A).
const FLAGS_OF_CLIENTS: u32 = flag::SUPP_MOVED_REFER
    | flag::SUPP_MOVED_MIGR
    | flag::BIND_PRINC_STATEID
    | flag::USE_NON_PNFS
    | flag::USE_PNFS_MDS
    | flag::USE_PNFS_DS
    | flag::UPD_CONFIRMED_REC_A;

/// Stands for a name that is too long, which ours is not.
const NO_NAME: Opaque4<'static> = match Opaque4::new(b"ringback") {
    Some(name) => name,
    None => panic!("eight bytes are not too long"),
};

/// Who sent a request, as far as AUTH_NONE and AUTH_SYS say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Principal {
    Nobody,
    Uid(u32),
}

/// A confirmed client.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) id: ClientId4,
    /// A small number, unique among confirmed clients: the key of their lists in the shards of files.
    pub(crate) index: u32,
    /// The runtime's name for it.
    pub(crate) callbacks: ClientId,
    pub(crate) owner: Arc<[u8]>,
    gone: AtomicBool,
    renewed_ns: AtomicU64,
    reclaim_complete: AtomicBool,
    /// RECLAIM_COMPLETE was done of the one file system that there is.
    file_system_complete: AtomicBool,
    /// What it may reclaim: [`Claims`].
    claims: AtomicU8,
    /// Of a client of minor version 0: what has been found out about its callbacks.
    path: AtomicU8,
}

/// Values of `Client::path`.
const PATH_UNKNOWN: u8 = 0;
const PATH_UP: u8 = 1;
const PATH_DOWN: u8 = 2;

impl Client {
    /// What a request is served for that does not say whose it is, as many of minor version 0 do not: nobody, who holds nothing.
    pub(crate) fn nobody() -> Self {
        Client {
            id: ClientId4(0),
            index: u32::MAX,
            callbacks: ClientId::from_bits(u64::MAX),
            owner: Arc::default(),
            gone: AtomicBool::new(false),
            renewed_ns: AtomicU64::new(0),
            reclaim_complete: AtomicBool::new(true),
            file_system_complete: AtomicBool::new(false),
            claims: AtomicU8::new(Claims::Nothing as u8),
            path: AtomicU8::new(PATH_UNKNOWN),
        }
    }

    pub(crate) fn set_path(&self, state: PathState) {
        let path = match state {
            PathState::Up => PATH_UP,
            PathState::Unknown => PATH_UNKNOWN,
            _ => PATH_DOWN,
        };
        self.path.store(path, Relaxed);
    }

    /// Whether callbacks are known to reach a client of minor version 0.
    pub(crate) fn has_path(&self) -> bool {
        self.path.load(Relaxed) == PATH_UP
    }

    /// Whether they are known not to.
    pub(crate) fn is_path_down(&self) -> bool {
        self.path.load(Relaxed) == PATH_DOWN
    }

    /// Its own name, as it is shown.
    pub(crate) fn name(&self) -> String {
        self.owner.escape_ascii().to_string()
    }

    /// Whether the server has forgotten the client, while a request of it is still being served.
    pub(crate) fn is_gone(&self) -> bool {
        self.gone.load(SeqCst)
    }

    /// The server forgets it.
    pub(crate) fn leave(&self) {
        self.gone.store(true, SeqCst);
    }

    /// When it has last renewed its lease.
    pub(crate) fn renewed_ns(&self) -> u64 {
        self.renewed_ns.load(Relaxed)
    }

    /// Renews the lease (RFC 8881 section 8.3: SEQUENCE does).
    pub(crate) fn renew(&self, now_ns: u64) {
        self.renewed_ns.store(now_ns, Relaxed);
    }

    /// How long the client has not renewed its lease.
    pub(crate) fn silent_ns(&self, now_ns: u64) -> u64 {
        now_ns.saturating_sub(self.renewed_ns.load(Relaxed))
    }

    /// Notes that the client has reclaimed all it wants to; false if it has said so before.
    pub(crate) fn complete_reclaim(&self) -> bool {
        !self.reclaim_complete.swap(true, Relaxed)
    }

    /// Notes that the client has reclaimed all that it wants to of the file system; false if it has said so before.
    pub(crate) fn complete_file_system(&self) -> bool {
        !self.file_system_complete.swap(true, Relaxed)
    }

    pub(crate) fn set_claims(&self, claims: Claims) {
        self.claims.store(claims as u8, Relaxed);
    }

    /// What the client may reclaim, as long as there is a grace period and it has not reclaimed all.
    pub(crate) fn claims(&self) -> Claims {
        Claims::of(self.claims.load(Relaxed))
    }

    /// Whether RECLAIM_COMPLETE was done.
    pub(crate) fn has_reclaimed(&self) -> bool {
        self.reclaim_complete.load(Relaxed)
    }
}

/// What is known of one client id.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) owner: Arc<[u8]>,
    pub(crate) verifier: Verifier4,
    made_ns: u64,
    pub(crate) principal: Principal,
    /// The sequence id that the next CREATE_SESSION carries.
    pub(crate) sequence: u32,
    /// The answer to the last CREATE_SESSION: its reply cache of one (RFC 8881 section 18.36.4).
    pub(crate) last_reply: Option<Result<CreateSessionOk, Status>>,
    /// `None` until the first CREATE_SESSION confirms the record.
    pub(crate) client: Option<Arc<Client>>,
    pub(crate) sessions: Vec<SessionId>,
    /// What a client of minor version 0 has instead.
    pub(crate) minor0: Option<Box<Registration>>,
    pub(crate) version: Version,
}

/// Which names a client's name is one of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Version {
    /// nfs_client_id4 (RFC 7530 section 9.1.1).
    Minor0 = 0,
    /// client_owner4 (RFC 8881 section 2.4).
    Later = 1,
}

/// What a client says of itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Incarnation<'a> {
    pub(crate) version: Version,
    pub(crate) owner: &'a [u8],
    pub(crate) verifier: Verifier4,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Incarnations {
    pub(crate) confirmed: Option<u64>,
    pub(crate) unconfirmed: Option<u64>,
}

/// The table of client ids; ids ascend with time.
#[derive(Debug)]
pub(crate) struct Clients {
    pub(crate) records: BTreeMap<u64, Record>,
    /// By version.
    owners: [HashMap<Arc<[u8]>, Incarnations>; 2],
    unconfirmed: BTreeSet<u64>,
    indices: Arena<()>,
    first_id: u64,
    next_id: u64,
}

impl Keep for Principal {
    fn save(&self, out: &mut dyn Write) -> io::Result<()> {
        match self {
            Principal::Nobody => None,
            Principal::Uid(uid) => Some(*uid),
        }
        .save(out)
    }
    fn load(from: &mut dyn Read) -> io::Result<Self> {
        Ok(<Option<u32>>::load(from)?.map_or(Principal::Nobody, Principal::Uid))
    }
}

impl Record {
    /// Under which it is in the store.
    pub(crate) fn name(&self) -> ClientName {
        ClientName { version: self.version, owner: Arc::clone(&self.owner) }
    }

    pub(crate) fn incarnation(&self) -> Life {
        Life { verifier: self.verifier, principal: self.principal }
    }

    fn save(&self, out: &mut dyn Write) -> io::Result<()> {
        save_bytes(&self.owner, out)?;
        (self.verifier, (self.made_ns, (self.principal, (self.sequence, self.last_reply)))).save(out)?;
        self.sessions.save(out)?;
        self.client.is_some().save(out)?;
        let Some(client) = &self.client else { return Ok(()) };
        (client.index, client.callbacks).save(out)?;
        (client.renewed_ns.load(Relaxed), client.has_reclaimed()).save(out)?;
        (client.file_system_complete.load(Relaxed), client.claims.load(Relaxed)).save(out)
    }

    fn load(id: u64, from: &mut dyn Read) -> io::Result<Self> {
        let owner: Arc<[u8]> = load_bytes(from)?.into();
        let (verifier, (made_ns, (principal, (sequence, last_reply)))) = Keep::load(from)?;
        let sessions = Keep::load(from)?;
        let client = if bool::load(from)? {
            let (index, callbacks) = Keep::load(from)?;
            let (renewed_ns, reclaim_complete) = <(u64, bool)>::load(from)?;
            let (file_system_complete, claims) = <(bool, u8)>::load(from)?;
            Some(Arc::new(Client {
                id: ClientId4(id),
                index,
                callbacks,
                owner: Arc::clone(&owner),
                gone: AtomicBool::new(false),
                renewed_ns: AtomicU64::new(renewed_ns),
                reclaim_complete: AtomicBool::new(reclaim_complete),
                file_system_complete: AtomicBool::new(file_system_complete),
                claims: AtomicU8::new(claims),
                path: AtomicU8::new(PATH_UNKNOWN),
            }))
        } else {
            None
        };
        let (minor0, version) = (None, Version::Later);
        Ok(Record { owner, verifier, made_ns, principal, sequence, last_reply, client, sessions, minor0, version })
    }
}

impl Clients {
    /// All of them, for another process.
    pub(crate) fn save(&self, out: &mut dyn Write) -> io::Result<()> {
        self.next_id.save(out)?;
        self.indices.save(out)?;
        // Those of minor version 0 begin anew: what they hold was given up before.
        let kept = || self.records.iter().filter(|(_, record)| record.version == Version::Later);
        (kept().count() as u64).save(out)?;
        for (id, record) in kept() {
            id.save(out)?;
            record.save(out)?;
        }
        Ok(())
    }

    /// Those of another process, which may have been given another limit.
    pub(crate) fn load(clients_max: u32, from: &mut dyn Read) -> io::Result<Self> {
        let (next_id, mut indices) = <(u64, Arena<()>)>::load(from)?;
        indices.set_limit(clients_max);
        let (records, owners, unconfirmed) = Default::default();
        // The number of the server's life stands above those of its clients.
        let first_id = next_id >> 40 << 40;
        let mut clients = Clients { records, owners, unconfirmed, indices, first_id, next_id };
        for _ in 0..u64::load(from)? {
            let id = u64::load(from)?;
            let record = Record::load(id, from)?;
            if record.client.as_ref().is_some_and(|client| clients.indices.at(client.index).is_none()) {
                return Err(malformed());
            }
            let known = clients.owners[Version::Later as usize].entry(Arc::clone(&record.owner)).or_default();
            if record.client.is_some() {
                known.confirmed = Some(id);
            } else {
                known.unconfirmed = Some(id);
                clients.unconfirmed.insert(id);
            }
            clients.records.insert(id, record);
        }
        Ok(clients)
    }

    /// The confirmed client of that id.
    pub(crate) fn client(&self, id: ClientId4) -> Option<&Arc<Client>> {
        self.records.get(&id.0)?.client.as_ref()
    }

    pub(crate) fn new(clients_max: u32, instance: u32) -> Self {
        Clients {
            records: BTreeMap::new(),
            owners: Default::default(),
            unconfirmed: BTreeSet::new(),
            indices: Arena::new(clients_max),
            // An id of another life of the server is not known here: NFS4ERR_STALE_CLIENTID.
            first_id: u64::from(instance) << 40,
            next_id: u64::from(instance) << 40,
        }
    }

    pub(crate) fn incarnations(&self, version: Version, owner: &[u8]) -> Incarnations {
        self.owners[version as usize].get(owner).copied().unwrap_or_default()
    }

    /// Whether an id was given out in this life of the server, and nothing is known of it any more.
    pub(crate) fn has_forgotten(&self, id: u64) -> bool {
        (self.first_id + 1..=self.next_id).contains(&id) && !self.records.contains_key(&id)
    }

    /// Takes a record out, wherever it is named.
    pub(crate) fn remove(&mut self, id: u64) -> Option<Record> {
        let record = self.records.remove(&id)?;
        self.unconfirmed.remove(&id);
        let owners = &mut self.owners[record.version as usize];
        if let Some(known) = owners.get_mut(&record.owner) {
            known.confirmed = known.confirmed.filter(|c| *c != id);
            known.unconfirmed = known.unconfirmed.filter(|u| *u != id);
            if known.confirmed.is_none() && known.unconfirmed.is_none() {
                owners.remove(&record.owner);
            }
        }
        Some(record)
    }

    pub(crate) fn add_unconfirmed(
        &mut self,
        Incarnation { version, owner, verifier }: Incarnation<'_>,
        principal: Principal,
        made_ns: u64,
        limit: usize,
    ) -> u64 {
        while self.unconfirmed.len() >= limit.max(1)
            && let Some(oldest) = self.unconfirmed.first().copied()
        {
            self.remove(oldest);
        }
        self.next_id += 1;
        let id = self.next_id;
        let owner: Arc<[u8]> = owner.into();
        self.owners[version as usize].entry(Arc::clone(&owner)).or_default().unconfirmed = Some(id);
        self.unconfirmed.insert(id);
        let record = Record {
            owner,
            verifier,
            made_ns,
            principal,
            sequence: 1,
            last_reply: None,
            client: None,
            sessions: Vec::new(),
            minor0: None,
            version,
        };
        self.records.insert(id, record);
        id
    }

    /// Forgets a record that nobody has confirmed within a lease (RFC 8881 section 18.35.4).
    pub(crate) fn drop_unconfirmed(&mut self, id: u64, now_ns: u64, lease_ns: u64) {
        let waits = |record: &Record| record.client.is_none() && now_ns.saturating_sub(record.made_ns) > lease_ns;
        if self.records.get(&id).is_some_and(waits) {
            self.remove(id);
        }
    }

    /// The confirmed record of the owner of `id`, if it is another one: what `id` replaces when it is confirmed.
    pub(crate) fn replaced_by(&self, id: u64) -> Option<u64> {
        let record = self.records.get(&id)?;
        self.incarnations(record.version, &record.owner).confirmed.filter(|c| *c != id)
    }

    /// An index for a client about to be confirmed.
    pub(crate) fn take_index(&mut self) -> Option<u32> {
        self.indices.insert(()).map(|id| id.index)
    }

    /// Gives an index back that nothing uses any more.
    pub(crate) fn give_index(&mut self, index: u32) {
        if let Some(id) = self.indices.id_at(index) {
            self.indices.remove(id);
        }
    }

    /// Makes the record of `id` a confirmed one.
    pub(crate) fn confirm(&mut self, id: u64, index: u32, callbacks: ClientId, now_ns: u64) -> Option<Arc<Client>> {
        let record = self.records.get_mut(&id)?;
        let client = Arc::new(Client {
            id: ClientId4(id),
            index,
            callbacks,
            owner: Arc::clone(&record.owner),
            gone: AtomicBool::new(false),
            renewed_ns: AtomicU64::new(now_ns),
            reclaim_complete: AtomicBool::new(false),
            file_system_complete: AtomicBool::new(false),
            claims: AtomicU8::new(Claims::Nothing as u8),
            path: AtomicU8::new(PATH_UNKNOWN),
        });
        record.client = Some(Arc::clone(&client));
        self.unconfirmed.remove(&id);
        let known = self.owners[record.version as usize].entry(Arc::clone(&record.owner)).or_default();
        *known = Incarnations { confirmed: Some(id), unconfirmed: known.unconfirmed.filter(|u| *u != id) };
        Some(client)
    }
}

impl Inner {
    /// The lock of the client table: for EXCHANGE_ID, CREATE_SESSION and their kin, which are rare. Taken before that of a
    /// shard of files, never after.
    pub(crate) fn clients(&self) -> MutexGuard<'_, Clients> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// EXCHANGE_ID.
    pub(crate) fn exchange_id(
        &self,
        args: &ExchangeIdArgs<'_>,
        principal: Principal,
        now_ns: u64,
    ) -> Result<ExchangeIdOk<'_>, Status> {
        if args.flags & !FLAGS_OF_CLIENTS != 0 {
            return Err(Status::NFS4ERR_INVAL);
        }
        match args.state_protect {
            StateProtectArgs::None => {}
            // It needs RPCSEC_GSS (RFC 8881 section 18.35.3), which is not served here.
            StateProtectArgs::MachCred(_) => return Err(Status::NFS4ERR_INVAL),
            StateProtectArgs::Ssv(_) => return Err(Status::NFS4ERR_ENCR_ALG_UNSUPP),
        }
        let mut clients = self.clients();
        let kept = self.kept_record(&mut clients, args, principal, now_ns)?;
        let id = match kept {
            Some(id) => id,
            None => {
                let owner = args.client_owner.owner_id.as_bytes();
                if let Some(older) = clients.incarnations(Version::Later, owner).unconfirmed {
                    clients.remove(older);
                }
                let limit = self.config.clients_unconfirmed_max;
                let verifier = args.client_owner.verifier;
                let owner = Incarnation { version: Version::Later, owner, verifier };
                clients.add_unconfirmed(owner, principal, now_ns, limit)
            }
        };
        let confirmed = if kept.is_some() { flag::CONFIRMED_R } else { 0 };
        Ok(ExchangeIdOk {
            client_id: ClientId4(id),
            sequence_id: clients.records.get(&id).map_or(1, |r| r.sequence),
            flags: confirmed
                | match self.config.layouts {
                    Some(_) => flag::USE_PNFS_MDS | flag::USE_PNFS_DS,
                    None => flag::USE_NON_PNFS,
                },
            state_protect: StateProtectOk::None,
            server_owner: ServerOwner { minor_id: 0, major_id: self.name() },
            server_scope: self.name(),
            impl_id: None::<ImplId<'_>>,
        })
    }

    /// The confirmed record that an EXCHANGE_ID is about; `None`: it makes a new one. The numbers in the comments are those
    /// of the cases in RFC 8881 section 18.35.4.
    fn kept_record(
        &self,
        clients: &mut Clients,
        args: &ExchangeIdArgs<'_>,
        principal: Principal,
        now_ns: u64,
    ) -> Result<Option<u64>, Status> {
        let owner = args.client_owner.owner_id.as_bytes();
        let verifier = args.client_owner.verifier;
        let known = clients.incarnations(Version::Later, owner).confirmed;
        let confirmed = known.and_then(|id| Some((id, clients.records.get(&id)?)));
        Ok(match (confirmed, args.flags & flag::UPD_CONFIRMED_REC_A != 0) {
            // 7
            (None, true) => return Err(Status::NFS4ERR_NOENT),
            // 8
            (Some((_, record)), true) if record.verifier != verifier => return Err(Status::NFS4ERR_NOT_SAME),
            // 9
            (Some((_, record)), true) if record.principal != principal => return Err(Status::NFS4ERR_PERM),
            // 6
            (Some((id, _)), true) => Some(id),
            // 3
            (Some((id, record)), false) if record.principal != principal => {
                if self.is_in_use(record, now_ns) {
                    return Err(Status::NFS4ERR_CLID_INUSE);
                }
                self.drop_client(clients, id)?;
                None
            }
            // 2
            (Some((id, record)), false) if record.verifier == verifier => Some(id),
            // 5: the client has restarted. What it held stays until CREATE_SESSION confirms the new record.
            (Some(_), false) => None,
            // 1 and 4, and 3 of a client of the life before of the server, whose lease counts as if it had not run out.
            (None, false) => {
                let name = ClientName { version: Version::Later, owner: owner.into() };
                match self.files.grace.is_anothers(&name, principal) {
                    true => return Err(Status::NFS4ERR_CLID_INUSE),
                    false => None,
                }
            }
        })
    }

    /// Who the server is. Another server, and another life of this one, has another name: a client must not take the two
    /// for one (RFC 8881 section 2.10.5).
    fn name(&self) -> Opaque4<'_> {
        Opaque4::new(self.name.as_bytes()).unwrap_or(NO_NAME)
    }
}
