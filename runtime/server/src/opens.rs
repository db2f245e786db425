//! Opens: OPEN and CLOSE on the files of a shard (RFC 8881 sections 9 and 18.16).

use crate::arena::{Arena, Id, Link, Links, NONE};
use crate::callbacks::Callbacks;
use crate::clients::Client;
use crate::delegations::Conflict;
use crate::file::{File, Kind as FileKind};
use crate::files::{Caller, Files, Holder, Shard, global};
use crate::grants::{Granted, Want};
use crate::keep::keep;
use crate::name::ShortBytes;
use crate::quota::Reserved;
use crate::set_attributes::Changes;
use crate::stateids::{Kind, check_seqid, next_seqid};
use ringback_rpc::nfs4::fore::DelegationType4;
use ringback_rpc::nfs4::{ChangeInfo4, OpenNoneDelegation4, Stateid4, Status, Verifier4};

/// Reading, in the access and deny bits of an open.
pub(crate) const READ: u8 = 1;
/// Writing, in the access and deny bits of an open.
pub(crate) const WRITE: u8 = 2;
/// The mode of a file whose create does not say.
const FILE_MODE: u16 = 0o644;

/// One open: a file, a client, an owner within the client.
#[derive(Debug)]
pub(crate) struct Open {
    pub(crate) file: u32,
    pub(crate) client: u32,
    in_file: Links,
    in_client: Links,
    owner: ShortBytes,
    pub(crate) seqid: u32,
    pub(crate) access: u8,
    deny: u8,
    /// It waits for OPEN_CONFIRM, of minor version 0, and is good for nothing else.
    pub(crate) unconfirmed: bool,
}

keep! {
    Open { file, client, in_file, in_client, owner, seqid, access, deny, unconfirmed }
}

/// The list of a file's opens.
pub(crate) struct OfFile;
/// The list of a client's opens in a shard.
pub(crate) struct OfClient;

impl Link<Open> for OfFile {
    fn of(open: &mut Open) -> &mut Links {
        &mut open.in_file
    }
    fn of_ref(open: &Open) -> &Links {
        &open.in_file
    }
}

impl Link<Open> for OfClient {
    fn of(open: &mut Open) -> &mut Links {
        &mut open.in_client
    }
    fn of_ref(open: &Open) -> &Links {
        &open.in_client
    }
}

/// Which file to open.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target<'a> {
    /// By its name in a directory.
    Name(Id, &'a [u8]),
    File(Id),
}

/// Whether to create it (`openflag4` and `createhow4` of RFC 8881 section 18.16.1).
#[derive(Clone, Copy, Debug)]
pub(crate) enum How {
    Existing,
    Unchecked(Changes),
    Guarded(Changes),
    Exclusive(Changes, Verifier4),
}

impl How {
    /// Whether a file that exists is cut: an unchecked create sets no other size of it, and nothing else (RFC 8881 section
    /// 18.16.3).
    pub(crate) fn truncates(&self) -> bool {
        matches!(self, How::Unchecked(changes) if changes.size == Some(0))
    }
}

/// An OPEN whose arguments make sense.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OpenRequest<'a> {
    pub(crate) caller: Caller<'a>,
    pub(crate) owner: &'a [u8],
    pub(crate) access: u8,
    pub(crate) deny: u8,
    pub(crate) target: Target<'a>,
    pub(crate) how: How,
    /// The delegation under which the client claims the open.
    pub(crate) held: Option<Stateid4>,
    /// The client had it open before a restart, with such a delegation.
    pub(crate) reclaims: Option<DelegationType4>,
    pub(crate) want: Want,
    /// Whether callbacks reach the client.
    pub(crate) has_path: bool,
    /// Whether OPEN_CONFIRM has to follow.
    pub(crate) unconfirmed: bool,
}

/// A successful OPEN.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opened {
    pub(crate) file: Id,
    pub(crate) stateid: Stateid4,
    /// How the directory changed.
    pub(crate) change: ChangeInfo4,
    /// Whether the file was made by this create, or by the one that this one repeats.
    pub(crate) created: bool,
    pub(crate) delegation: Result<Granted, OpenNoneDelegation4>,
}

impl Files {
    /// OPEN. NFS4ERR_DELAY says that delegations of others are being recalled because of it.
    pub(crate) fn open(&self, request: &OpenRequest<'_>, callbacks: &Callbacks) -> Result<Opened, Status> {
        let (file, change, room) = self.target(request, callbacks)?;
        let made = room.is_some();
        let (mut shard, number, index) = self.live(file)?;
        // Under the lock that forgetting a client takes too: nothing is added to a client that has been swept.
        if request.caller.client.is_gone() {
            return Err(Status::NFS4ERR_DEADSESSION);
        }
        let created = match made {
            true => true,
            false => existing(&shard, index, request.how)?,
        };
        let truncates = !made && request.how.truncates();
        self.admit(&mut shard, number, index, request, truncates, callbacks)?;
        let stateid = self.add_open(&mut shard, number, index, request, room)?;
        if truncates && let Some(file) = shard.files.at_mut(index) {
            file.data_mut()?.set_size(0, &self.data)?;
            file.modify(request.caller.maker.now);
        }
        let delegation = match (request.held, request.reclaims) {
            (Some(_), _) => Err(OpenNoneDelegation4::NotWanted),
            (None, Some(held)) => {
                self.reclaim_delegation(&mut shard, number, index, (&request.caller, held), callbacks)
            }
            (None, None) => self.grant(&mut shard, number, index, request, callbacks),
        };
        Ok(Opened { file, stateid, change, created, delegation })
    }

    /// The file to open, how its directory changed, and room for an open of it if it was made just now: what cannot be
    /// opened is not made.
    fn target(
        &self,
        request: &OpenRequest<'_>,
        callbacks: &Callbacks,
    ) -> Result<(Id, ChangeInfo4, Option<Reserved<'_>>), Status> {
        let (directory, name) = match request.target {
            Target::Name(directory, name) => (directory, name),
            Target::File(file) => {
                return Ok((file, ChangeInfo4 { atomic: true, before: 0, after: 0 }, None));
            }
        };
        let unchanged = |file| {
            let change = self.change(directory)?;
            Ok((file, ChangeInfo4 { atomic: true, before: change, after: change }, None))
        };
        match self.lookup(directory, name) {
            Ok(file) => return unchanged(file),
            Err(Status::NFS4ERR_NOENT) if !matches!(request.how, How::Existing) => {}
            Err(status) => return Err(status),
        }
        let room = self.opens.reserve(1).ok_or(Status::NFS4ERR_DELAY)?;
        match self.make(directory, name, self.new_file(request)?, &request.caller, callbacks) {
            Ok((file, change)) => Ok((file, change, Some(room))),
            // Another create came first.
            Err(Status::NFS4ERR_EXIST) => unchanged(self.lookup(directory, name)?),
            Err(status) => Err(status),
        }
    }

    fn new_file(&self, request: &OpenRequest<'_>) -> Result<File, Status> {
        let (changes, verifier) = match request.how {
            How::Existing => return Err(Status::NFS4ERR_NOENT),
            How::Unchecked(changes) | How::Guarded(changes) => (changes, None),
            How::Exclusive(changes, verifier) => (changes, Some(verifier)),
        };
        let mut file = File::new(FileKind::Regular(Default::default()), FILE_MODE, &request.caller.maker);
        changes.apply_to_new(&mut file, &self.data)?;
        if verifier.is_some() {
            file.body_mut().verifier = verifier;
        }
        Ok(file)
    }

    /// Whether nothing that others hold stands against the open.
    fn admit(
        &self,
        shard: &mut Shard,
        number: usize,
        file: u32,
        request: &OpenRequest<'_>,
        truncates: bool,
        callbacks: &Callbacks,
    ) -> Result<(), Status> {
        let caller = &request.caller;
        // Only regular files are opened (RFC 8881 section 18.16.3).
        shard.files.at(file).ok_or(Status::NFS4ERR_STALE)?.data().map_err(|status| match status {
            Status::NFS4ERR_INVAL => Status::NFS4ERR_WRONG_TYPE,
            status => status,
        })?;
        if let Some(held) = &request.held {
            self.check_held(shard, number, file, caller.client, held)?;
            shard.use_delegation(file, caller.client.index, caller.now_s);
        }
        let opens = shard.files.at(file).map_or(NONE, |f| f.opens);
        let denied = shard.opens.list::<OfFile>(opens).any(|(_, open)| {
            let same = open.client == caller.client.index && open.owner.as_bytes() == request.owner;
            !same && (open.deny & request.access != 0 || open.access & request.deny != 0)
        });
        if denied {
            return Err(match request.reclaims {
                Some(_) => Status::NFS4ERR_RECLAIM_CONFLICT,
                None => Status::NFS4ERR_SHARE_DENIED,
            });
        }
        // A holder of a read delegation opens for reading without telling us (RFC 8881 section 10.4), so a share
        // reservation against reading conflicts as much as writing does.
        let writes = request.access & WRITE != 0 || request.deny & READ != 0 || truncates;
        let about = if writes { Conflict::Write } else { Conflict::Read };
        // Not both can have been held at the same time, unless one of the two was to be given back.
        if request.reclaims.is_some() {
            return Ok(());
        }
        if self.recall_of_others(shard, file, caller, about, callbacks) {
            return Err(Status::NFS4ERR_DELAY);
        }
        Ok(())
    }

    /// Adds an open, or upgrades the one that the owner has (RFC 8881 section 9.9).
    fn add_open(
        &self,
        shard: &mut Shard,
        number: usize,
        file: u32,
        request: &OpenRequest<'_>,
        room: Option<Reserved<'_>>,
    ) -> Result<Stateid4, Status> {
        let client = request.caller.client.index;
        let head = shard.files.at(file).map_or(NONE, |f| f.opens);
        let own = shard
            .opens
            .list::<OfFile>(head)
            .find(|(_, open)| open.client == client && open.owner.as_bytes() == request.owner)
            .map(|(index, _)| index);
        let index = match own {
            Some(index) => index,
            None => {
                let room = room.or_else(|| self.opens.reserve(1)).ok_or(Status::NFS4ERR_DELAY)?;
                let index = shard.link_open(file, request)?;
                room.keep();
                index
            }
        };
        let id = shard.opens.id_at(index).ok_or(Status::NFS4ERR_SERVERFAULT)?;
        let open = shard.opens.get_mut(id).ok_or(Status::NFS4ERR_SERVERFAULT)?;
        open.access |= request.access;
        open.deny |= request.deny;
        open.unconfirmed = request.unconfirmed;
        open.seqid = next_seqid(open.seqid);
        Ok(self.stateid(Kind::Open, global(number, id), open.seqid))
    }

    /// The open of the current file that a stateid names.
    pub(crate) fn find_open<'s>(
        &'s self,
        file: Id,
        client: &Client,
        stateid: &Stateid4,
    ) -> Result<(std::sync::MutexGuard<'s, Shard>, usize, Id), Status> {
        let (shard, number, id) = self.find_state(Kind::Open, stateid)?;
        let open = shard.opens.get(id).ok_or(Status::NFS4ERR_BAD_STATEID)?;
        let opened = shard.files.id_at(open.file).map(|f| global(number, f));
        if open.client != client.index || opened != Some(file) {
            return Err(Status::NFS4ERR_BAD_STATEID);
        }
        check_seqid(stateid.seqid, open.seqid)?;
        Ok((shard, number, id))
    }

    /// OPEN_CONFIRM (RFC 7530 section 16.18).
    pub(crate) fn confirm_open(&self, file: Id, client: &Client, stateid: &Stateid4) -> Result<Stateid4, Status> {
        let (mut shard, number, id) = self.find_open(file, client, stateid)?;
        let open = shard.opens.get_mut(id).filter(|open| open.unconfirmed).ok_or(Status::NFS4ERR_BAD_STATEID)?;
        open.unconfirmed = false;
        open.seqid = next_seqid(open.seqid);
        Ok(self.stateid(Kind::Open, global(number, id), open.seqid))
    }

    /// Takes an open away that was never confirmed.
    pub(crate) fn cancel_open(&self, stateid: &Stateid4, callbacks: &Callbacks) {
        let Ok((mut shard, _, id)) = self.find_state(Kind::Open, stateid) else { return };
        if shard.opens.get(id).is_some_and(|open| open.unconfirmed) {
            self.drop_open(&mut shard, id, callbacks);
        }
    }

    /// CLOSE (RFC 8881 section 18.2) of an open of the current file.
    pub(crate) fn close(
        &self,
        file: Id,
        client: &Client,
        stateid: &Stateid4,
        callbacks: &Callbacks,
    ) -> Result<(), Status> {
        let (mut shard, _, id) = self.find_open(file, client, stateid)?;
        self.close_lock_owners(&mut shard, id)?;
        self.drop_open(&mut shard, id, callbacks);
        Ok(())
    }

    /// OPEN_DOWNGRADE (RFC 8881 section 18.18).
    pub(crate) fn downgrade(
        &self,
        file: Id,
        client: &Client,
        stateid: &Stateid4,
        access: u8,
        deny: u8,
    ) -> Result<Stateid4, Status> {
        let (mut shard, number, id) = self.find_open(file, client, stateid)?;
        let open = shard.opens.get_mut(id).ok_or(Status::NFS4ERR_BAD_STATEID)?;
        if access & !open.access != 0 || deny & !open.deny != 0 {
            return Err(Status::NFS4ERR_INVAL);
        }
        (open.access, open.deny) = (access, deny);
        open.seqid = next_seqid(open.seqid);
        Ok(self.stateid(Kind::Open, global(number, id), open.seqid))
    }

    /// TEST_STATEID of an open.
    pub(crate) fn test_open(&self, client: &Client, stateid: &Stateid4) -> Result<(), Status> {
        let (shard, _, id) = self.find_state(Kind::Open, stateid)?;
        match shard.opens.get(id) {
            Some(open) if open.client == client.index => check_seqid(stateid.seqid, open.seqid),
            _ => Err(Status::NFS4ERR_BAD_STATEID),
        }
    }

    /// Takes an open out of everything.
    pub(crate) fn drop_open(&self, shard: &mut Shard, id: Id, callbacks: &Callbacks) {
        let Some(&Open { file, client, .. }) = shard.opens.get(id) else { return };
        self.drop_waiters(shard, id, callbacks);
        let Shard { files, opens, holders, .. } = &mut *shard;
        unlink(opens, files, holders, file, client, id.index);
        opens.remove(id);
        self.opens.give_back();
        self.reap(shard, file);
    }
}

impl Open {
    pub(crate) fn owner(&self) -> &[u8] {
        self.owner.as_bytes()
    }
}

impl Shard {
    fn link_open(&mut self, file: u32, request: &OpenRequest<'_>) -> Result<u32, Status> {
        let open = Open {
            file,
            client: request.caller.client.index,
            in_file: Links::ALONE,
            in_client: Links::ALONE,
            owner: ShortBytes::new(request.owner),
            seqid: 0,
            access: 0,
            deny: 0,
            unconfirmed: false,
        };
        self.holder(request.caller.client.index);
        let index = self.opens.insert(open).ok_or(Status::NFS4ERR_DELAY)?.index;
        if let Some(file) = self.files.at_mut(file) {
            self.opens.link::<OfFile>(&mut file.opens, index);
        }
        if let Some(holder) = self.holders.get_mut(request.caller.client.index as usize) {
            self.opens.link::<OfClient>(&mut holder.opens, index);
        }
        Ok(index)
    }

    /// Whether the file is open in a way that stands against a delegation of `client`: by anybody for writing against one
    /// for reading, by anybody else at all against one for writing.
    pub(crate) fn is_open(&self, file: u32, client: &Client, write: bool) -> bool {
        let head = self.files.at(file).map_or(NONE, |f| f.opens);
        self.opens.list::<OfFile>(head).any(|(_, open)| match write {
            true => open.client != client.index,
            false => open.access & WRITE != 0,
        })
    }

    /// Whether others have the file open in a way that stands against a delegation of `client`.
    pub(crate) fn is_open_by_others(&self, file: u32, client: &Client, write: bool) -> bool {
        let head = self.files.at(file).map_or(NONE, |f| f.opens);
        let mut opens = self.opens.list::<OfFile>(head);
        opens.any(|(_, open)| open.client != client.index && (write || open.access & WRITE != 0))
    }

    /// Whether a client may write to the file: it has it open so, or a delegation for that.
    pub(crate) fn may_write(&self, file: u32, client: &Client) -> bool {
        let head = self.files.at(file).map_or(NONE, |f| f.opens);
        let mut opens = self.opens.list::<OfFile>(head);
        opens.any(|(_, open)| open.client == client.index && open.access & WRITE != 0)
            || self.delegations_of(file).any(|held| held.client == client.index && held.write)
    }

    /// Whether a share reservation denies such access to the file.
    pub(crate) fn is_denied(&self, file: u32, access: u8) -> bool {
        let head = self.files.at(file).map_or(NONE, |f| f.opens);
        self.opens.list::<OfFile>(head).any(|(_, open)| open.deny & access != 0)
    }
}

fn unlink(
    opens: &mut Arena<Open>,
    files: &mut Arena<File>,
    holders: &mut [Holder],
    file: u32,
    client: u32,
    index: u32,
) {
    if let Some(file) = files.at_mut(file) {
        opens.unlink::<OfFile>(&mut file.opens, index);
    }
    if let Some(holder) = holders.get_mut(client as usize) {
        opens.unlink::<OfClient>(&mut holder.opens, index);
    }
}

/// What a create means for a file that exists: whether it is the repetition of the create that made it.
fn existing(shard: &Shard, file: u32, how: How) -> Result<bool, Status> {
    match how {
        How::Existing | How::Unchecked(_) => Ok(false),
        How::Guarded(_) => Err(Status::NFS4ERR_EXIST),
        // The same verifier: a retry of the create that made it, which succeeds again (RFC 8881 section 18.16.3).
        How::Exclusive(_, verifier) if shard.files.at(file).is_some_and(|f| f.verifier() == Some(verifier)) => Ok(true),
        How::Exclusive(..) => Err(Status::NFS4ERR_EXIST),
    }
}
