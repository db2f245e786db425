//! Opens: OPEN and CLOSE on the files of a shard (RFC 8881 sections 9 and 18.16).

use crate::arena::{Arena, Id, Link, Links, NONE};
use crate::callbacks::Callbacks;
use crate::clients::Client;
use crate::delegations::Want;
use crate::files::{File, Files, Holder, Shard, global, shard_number};
use crate::name::{ShortBytes, check_name};
use crate::stateids::{Kind, check_seqid, next_seqid};
use ringback_rpc::nfs4::{OpenNoneDelegation4, Stateid4, Status, Verifier4};

/// Reading, in the access and deny bits of an open.
pub(crate) const READ: u8 = 1;
/// Writing, in the access and deny bits of an open.
pub(crate) const WRITE: u8 = 2;

/// One open: a file, a client, an owner within the client.
#[derive(Debug)]
pub(crate) struct Open {
    pub(crate) file: u32,
    client: u32,
    in_file: Links,
    in_client: Links,
    owner: ShortBytes,
    seqid: u32,
    access: u8,
    deny: u8,
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
    /// By its name in the root directory.
    Name(&'a [u8]),
    File(Id),
}

/// Whether to create it (`openflag4` and `createhow4` of RFC 8881 section 18.16.1).
#[derive(Clone, Copy, Debug)]
pub(crate) enum How {
    Existing,
    Unchecked { mode: u16, truncate: bool },
    Guarded { mode: u16 },
    Exclusive { mode: u16, verifier: Verifier4 },
}

/// An OPEN whose arguments make sense.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OpenRequest<'a> {
    pub(crate) client: &'a Client,
    pub(crate) owner: &'a [u8],
    pub(crate) access: u8,
    pub(crate) deny: u8,
    pub(crate) target: Target<'a>,
    pub(crate) how: How,
    /// The delegation under which the client claims the open.
    pub(crate) held: Option<Stateid4>,
    pub(crate) want: Want,
    /// Whether callbacks reach the client.
    pub(crate) has_path: bool,
    pub(crate) now_s: u32,
}

/// A successful OPEN.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opened {
    pub(crate) file: Id,
    pub(crate) stateid: Stateid4,
    /// The directory's change attribute before and after.
    pub(crate) change: (u64, u64),
    /// Whether the file was made by this create, or by the one that this one repeats.
    pub(crate) created: bool,
    pub(crate) delegation: Result<Stateid4, OpenNoneDelegation4>,
}

impl Files {
    /// OPEN. NFS4ERR_DELAY says that delegations of others are being recalled because of it.
    pub(crate) fn open(&self, request: &OpenRequest<'_>, callbacks: &Callbacks) -> Result<Opened, Status> {
        let (mut shard, number, found) = match request.target {
            Target::Name(name) => {
                check_name(name)?;
                let (shard, number, hash) = self.shard_of_name(name);
                let found = shard.find(hash, name);
                (shard, number, found.ok_or((name, hash)))
            }
            Target::File(id) => {
                let (shard, local) = self.shard_of(id);
                shard.files.get(local).ok_or(Status::NFS4ERR_STALE)?;
                (shard, shard_number(id), Ok(local.index))
            }
        };
        // Under the lock that forgetting a client takes too: nothing is added to a client that has been swept.
        if request.client.is_gone() {
            return Err(Status::NFS4ERR_DEADSESSION);
        }
        let (file, change, created) = match found {
            Ok(file) => {
                let repeated = existing(&shard, file, request.how)?;
                (file, (self.root_change(), self.root_change()), repeated)
            }
            Err((name, hash)) => {
                let (id, before) = self.create(&mut shard, hash, new_file(name, request)?)?;
                (id.index, (before, before + 1), true)
            }
        };
        self.admit(&mut shard, number, file, request, callbacks)?;
        let stateid = self.add_open(&mut shard, number, file, request)?;
        let delegation = match request.held {
            Some(_) => Err(OpenNoneDelegation4::NotWanted),
            None => self.grant(&mut shard, number, file, request, callbacks),
        };
        let file = shard.files.id_at(file).ok_or(Status::NFS4ERR_SERVERFAULT)?;
        Ok(Opened { file: global(number, file), stateid, change, created, delegation })
    }

    /// Whether nothing that others hold stands against the open.
    fn admit(
        &self,
        shard: &mut Shard,
        number: usize,
        file: u32,
        request: &OpenRequest<'_>,
        callbacks: &Callbacks,
    ) -> Result<(), Status> {
        if let Some(held) = &request.held {
            self.check_held(shard, number, file, request.client, held)?;
        }
        let opens = shard.files.at(file).map_or(NONE, |f| f.opens);
        let denied = shard.opens.list::<OfFile>(opens).any(|(_, open)| {
            let same = open.client == request.client.index && open.owner.as_bytes() == request.owner;
            !same && (open.deny & request.access != 0 || open.access & request.deny != 0)
        });
        if denied {
            return Err(Status::NFS4ERR_SHARE_DENIED);
        }
        let truncates = matches!(request.how, How::Unchecked { truncate: true, .. });
        // A holder of a read delegation opens for reading without telling us (RFC 8881 section 10.4), so a share
        // reservation against reading conflicts as much as writing does.
        let conflicts = request.access & WRITE != 0 || request.deny & READ != 0 || truncates;
        if conflicts && self.recall_of_others(shard, file, request, callbacks) {
            return Err(Status::NFS4ERR_DELAY);
        }
        if truncates && let Some(file) = shard.files.at_mut(file) {
            file.change += 1;
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
    ) -> Result<Stateid4, Status> {
        let client = request.client.index;
        let head = shard.files.at(file).map_or(NONE, |f| f.opens);
        let own = shard
            .opens
            .list::<OfFile>(head)
            .find(|(_, open)| open.client == client && open.owner.as_bytes() == request.owner)
            .map(|(index, _)| index);
        let index = match own {
            Some(index) => index,
            None if !self.opens.take() => return Err(Status::NFS4ERR_DELAY),
            None => shard.link_open(file, request).inspect_err(|_| self.opens.give_back())?,
        };
        let id = shard.opens.id_at(index).ok_or(Status::NFS4ERR_SERVERFAULT)?;
        let open = shard.opens.get_mut(id).ok_or(Status::NFS4ERR_SERVERFAULT)?;
        open.access |= request.access;
        open.deny |= request.deny;
        open.seqid = next_seqid(open.seqid);
        Ok(self.stateid(Kind::Open, global(number, id), open.seqid))
    }

    /// CLOSE (RFC 8881 section 18.2) of an open of the current file.
    pub(crate) fn close(&self, file: Id, client: &Client, stateid: &Stateid4) -> Result<(), Status> {
        let (mut shard, number, id) = self.find_state(Kind::Open, stateid)?;
        let open = shard.opens.get(id).ok_or(Status::NFS4ERR_BAD_STATEID)?;
        let opened = shard.files.id_at(open.file).map(|f| global(number, f));
        if open.client != client.index || opened != Some(file) {
            return Err(Status::NFS4ERR_BAD_STATEID);
        }
        check_seqid(stateid.seqid, open.seqid)?;
        self.drop_open(&mut shard, id);
        Ok(())
    }

    /// Takes an open out of everything.
    pub(crate) fn drop_open(&self, shard: &mut Shard, id: Id) {
        let Some(&Open { file, client, .. }) = shard.opens.get(id) else { return };
        let Shard { files, opens, holders, .. } = shard;
        unlink(opens, files, holders, file, client, id.index);
        opens.remove(id);
        self.opens.give_back();
    }
}

impl Shard {
    fn link_open(&mut self, file: u32, request: &OpenRequest<'_>) -> Result<u32, Status> {
        let open = Open {
            file,
            client: request.client.index,
            in_file: Links::ALONE,
            in_client: Links::ALONE,
            owner: ShortBytes::new(request.owner),
            seqid: 0,
            access: 0,
            deny: 0,
        };
        self.holder(request.client.index);
        let index = self.opens.insert(open).ok_or(Status::NFS4ERR_DELAY)?.index;
        if let Some(file) = self.files.at_mut(file) {
            self.opens.link::<OfFile>(&mut file.opens, index);
        }
        if let Some(holder) = self.holders.get_mut(request.client.index as usize) {
            self.opens.link::<OfClient>(&mut holder.opens, index);
        }
        Ok(index)
    }

    /// Whether anybody has the file open for writing.
    pub(crate) fn has_writer(&self, file: u32) -> bool {
        let head = self.files.at(file).map_or(NONE, |f| f.opens);
        self.opens.list::<OfFile>(head).any(|(_, open)| open.access & WRITE != 0)
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
        How::Existing | How::Unchecked { .. } => Ok(false),
        How::Guarded { .. } => Err(Status::NFS4ERR_EXIST),
        // The same verifier: a retry of the create that made it, which succeeds again (RFC 8881 section 18.16.3).
        How::Exclusive { verifier, .. } if shard.files.at(file).is_some_and(|f| f.verifier == Some(verifier)) => {
            Ok(true)
        }
        How::Exclusive { .. } => Err(Status::NFS4ERR_EXIST),
    }
}

fn new_file(name: &[u8], request: &OpenRequest<'_>) -> Result<File, Status> {
    let (mode, verifier) = match request.how {
        How::Existing => return Err(Status::NFS4ERR_NOENT),
        How::Unchecked { mode, .. } | How::Guarded { mode } => (mode, None),
        How::Exclusive { mode, verifier } => (mode, Some(verifier)),
    };
    Ok(File {
        name: ShortBytes::new(name),
        change: 1,
        verifier,
        opens: NONE,
        delegations: NONE,
        contended_until_s: 0,
        created_s: request.now_s,
        mode,
    })
}
