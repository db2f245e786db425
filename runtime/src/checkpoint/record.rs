//! What the chunks hold, as rkyv lays it out: plain data, little-endian, without references to each other. The core's image
//! of a client and this record of it are told apart so that neither changes the other by mistake.

use super::CheckpointError;
use rkyv::rancor;
use rkyv::util::AlignedVec;
use rkyv::{Archive, Deserialize, Serialize};

/// A callback entry.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct EntryRecord {
    pub cookie: u64,
    pub generation: u32,
    /// Index of its client.
    pub client: u32,
    /// Microseconds since the accepted `try_run`, or until the ending of a run on a completion queue.
    pub age_us: u32,
    /// Milliseconds until the return of what was recalled is overdue, if it is owed.
    pub owed_left_ms: u32,
    pub flags: u16,
    pub op: u8,
    /// What the core notes about the run, or the code of its ending.
    pub note: u8,
    pub reserved: u32,
}

const _: () = assert!(size_of::<ArchivedEntryRecord>() == 32);

/// What there is one of.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default)]
pub(crate) struct SummaryRecord {
    /// Nothing has happened since: the runtime stood still, and has ended.
    pub complete: bool,
    /// Seconds since 1970, by the clock of the host.
    pub taken_s: u64,
    /// No name of a session or a connection is as high.
    pub serials: u64,
    /// By index.
    pub clients: Vec<PlaceRecord>,
    /// The names of what is counted for each client, and of what is counted for each reactor.
    pub counter_names: Vec<String>,
    pub stat_names: Vec<String>,
    /// What the runtime has counted as a whole.
    pub totals: Vec<u64>,
    pub reactors: Vec<ReactorRecord>,
}

/// A place in the table of clients.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PlaceRecord {
    pub generation: u32,
    /// Its reactor.
    pub home: u32,
    /// The client is registered.
    pub live: bool,
    /// It takes no new runs.
    pub closed: bool,
}

/// What a reactor has counted.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default)]
pub(crate) struct ReactorRecord {
    pub reactor: u32,
    pub stats: Vec<u64>,
    /// How runs ended.
    pub endings: Vec<(String, u64)>,
    /// What was counted for clients that are gone.
    pub gone: Vec<u64>,
}

/// A client.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default)]
pub(crate) struct ClientRecord {
    pub index: u32,
    pub generation: u32,
    /// The embedder has removed it.
    pub removed: bool,
    pub core: CoreRecord,
    /// The entries that run for it, as they were when it was looked at.
    pub runs: Vec<RunRecord>,
    /// Callbacks that are about a session: index, generation, session.
    pub of_session: Vec<(u32, u32, u64)>,
}

/// Tenants, if there are others than the default one.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TenantsRecord {
    /// By their bits, from 1 on.
    pub tenants: Vec<TenantRecord>,
    /// Their clients: index, and the bits of the tenant.
    pub clients: Vec<(u32, u16)>,
}

/// A tenant.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TenantRecord {
    pub label: String,
    pub callbacks_max: u32,
    pub calls_max: u32,
    pub rate_max: u32,
    pub refused: u64,
    pub callbacks_sent: u64,
    pub held_back: u64,
}

/// The callback path that a client of minor version 0 has confirmed.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PathRecord {
    /// Index and generation of the client.
    pub client: (u32, u32),
    pub key: u64,
    pub program: u32,
    pub credential: Vec<u8>,
    pub callback_ident: u32,
    pub window: u32,
    /// Where the client is called back. None: the embedder supplies the sockets.
    pub address: Option<String>,
    /// The connections that carry it.
    pub bound: Vec<u64>,
}

/// A connection whose socket goes along.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LineRecord {
    /// Its name.
    pub connection: u64,
    /// Index and generation of the clients with a session whose backchannel it carries.
    pub bound: Vec<(u32, u32)>,
    /// Received and not handled, from the beginning of a record on.
    pub unread: Vec<u8>,
    /// Encoded and not sent; it may begin in the middle of a record.
    pub unsent: Vec<u8>,
    /// Replies that are still passed on to clients of other reactors.
    pub replies_due: u64,
    /// Fore-channel calls that the embedder has and has not answered, and how many there were.
    pub calls_unanswered: u64,
    pub call_serial: u64,
    /// The runtime has made it itself.
    pub dialled: bool,
}

/// An entry that runs.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default)]
pub(crate) struct RunRecord {
    pub index: u32,
    pub entry: EntryRecord,
}

/// The core's image of a client.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default)]
pub(crate) struct CoreRecord {
    pub client: u8,
    pub path: u8,
    pub path_expired: bool,
    pub again_next: bool,
    pub passed_over: [u8; 3],
    pub unsupported: u32,
    pub calls_max: u32,
    pub rate_max: u32,
    pub xid_generation: u32,
    pub xids_issued: u32,
    pub drain_left_ns: Option<u64>,
    pub path_left_ns: Option<u64>,
    pub random: u64,
    pub ahead_ns: u64,
    pub hold_left_ns: u64,
    pub counters: Vec<u64>,
    pub fresh: Vec<u32>,
    pub again: Vec<u32>,
    pub resend: Vec<u32>,
    pub delayed: Vec<(u32, u64)>,
    /// Name, silence, turn.
    pub connections: Vec<(u64, u64, u8)>,
    pub sessions: Vec<SessionRecord>,
}

/// A session.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default)]
pub(crate) struct SessionRecord {
    pub key: u64,
    pub session_id: [u8; 16],
    pub minor_version: u32,
    pub base: u32,
    /// Sequence id, state, whether it restarts, whether there may be a copy of a call.
    pub slots: Vec<(u32, u8, bool, bool)>,
    pub highest: u32,
    pub target: u32,
    pub ceiling: u32,
    /// Program and credential.
    pub parameters: Vec<(u32, Vec<u8>)>,
    pub current: u8,
    pub batch_limit: u8,
    pub pending: Option<(u32, Vec<u8>)>,
    pub request_bytes_max: u32,
    pub bound: Vec<u64>,
    pub own: Vec<u32>,
    pub own_hold_left_ns: u64,
    pub fault: Option<[u32; 4]>,
    pub refused: Option<[u32; 4]>,
    pub ever_bound: bool,
    pub dead: bool,
    pub lost: bool,
    pub draining: bool,
    pub calls: Vec<CallRecord>,
}

/// A call that is not settled.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default)]
pub(crate) struct CallRecord {
    pub slot: u32,
    /// Position and run.
    pub runs: Vec<(u8, u32)>,
    pub op: u32,
    pub count: u8,
    pub state: u8,
    pub parameters: u8,
    pub level: u8,
    pub unknown: bool,
    pub resync: bool,
    pub renew: bool,
    pub conn: Option<u64>,
    pub xid: u32,
    pub highest: u32,
    pub sent_ago_ns: u64,
    pub wake_left_ns: Option<u64>,
    pub bytes: Vec<u8>,
}

/// The bytes of a record. Fails if they are more than a chunk may have.
pub(super) fn to_bytes<T>(record: &T) -> Result<AlignedVec, CheckpointError>
where
    T: for<'a> Serialize<
        rkyv::api::high::HighSerializer<AlignedVec, rkyv::ser::allocator::ArenaHandle<'a>, rancor::Failure>,
    >,
{
    rkyv::to_bytes::<rancor::Failure>(record).map_err(|_| CheckpointError::TooLarge)
}

/// The record that is in some bytes, once they are found to be one. Takes memory in proportion to the bytes: the validation
/// lets no two references share what they point to.
pub(super) fn from_bytes<T>(bytes: &[u8]) -> Option<T>
where
    T: Archive,
    T::Archived: for<'a> rkyv::bytecheck::CheckBytes<rkyv::api::high::HighValidator<'a, rancor::Failure>>
        + Deserialize<T, rkyv::api::high::HighDeserializer<rancor::Failure>>,
{
    rkyv::from_bytes::<T, rancor::Failure>(bytes).ok()
}

/// Entries where they are, without a copy.
pub(super) fn entries(bytes: &[u8]) -> Option<&[ArchivedEntryRecord]> {
    rkyv::access::<rkyv::Archived<Vec<EntryRecord>>, rancor::Failure>(bytes).ok().map(|entries| entries.as_slice())
}

impl From<&ArchivedEntryRecord> for EntryRecord {
    fn from(e: &ArchivedEntryRecord) -> Self {
        EntryRecord {
            cookie: e.cookie.into(),
            generation: e.generation.into(),
            client: e.client.into(),
            age_us: e.age_us.into(),
            owed_left_ms: e.owed_left_ms.into(),
            flags: e.flags.into(),
            op: e.op,
            note: e.note,
            reserved: 0,
        }
    }
}
