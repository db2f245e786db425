//! Operations on content: READ, WRITE, COMMIT (RFC 8881 sections 18.22, 18.32 and 18.3).

use crate::clients::Client;
use crate::compound::Compound;
use crate::delegations::Conflict;
use crate::files::{Files, Shard, shard_number};
use crate::opens::{READ, WRITE};
use crate::operations::write;
use crate::stateids::Kind;
use ringback_rpc::nfs4::fore::{CommitOk, OpRes, ReadArgs, ReadOk, WriteArgs, WriteOk};
use ringback_rpc::nfs4::{StableHow4, Stateid4, Status, Verifier4};
use ringback_rpc::xdr::{self, Writer};
use std::sync::Arc;

/// The results of READ without data: number, status, end of file, length, padding.
const READ_BYTES: usize = 20;

impl Files {
    /// Another life of the server has another one.
    pub(crate) fn verifier(&self) -> Verifier4 {
        Verifier4(u64::from(self.instance).to_be_bytes())
    }

    /// Whether a stateid allows such use of a file of the locked shard (RFC 8881 section 9.1.2).
    pub(crate) fn check_io(
        &self,
        shard: &Shard,
        number: usize,
        file: u32,
        client: &Client,
        stateid: &Stateid4,
        access: u8,
    ) -> Result<(), Status> {
        if matches!(*stateid, Stateid4::ANONYMOUS | Stateid4::READ_BYPASS) {
            // What it would be in the way of may not have been reclaimed yet (section 8.4.2.1).
            self.grace.check()?;
            return if shard.is_denied(file, access) { Err(Status::NFS4ERR_LOCKED) } else { Ok(()) };
        }
        let open = match self.kind_of(stateid)? {
            Kind::Delegation => {
                self.check_held(shard, number, file, client, stateid)?;
                let id = crate::files::local(self.parse_stateid(Kind::Delegation, stateid)?);
                let write = shard.delegations.get(id).is_some_and(|d| d.write);
                return if access == READ || write { Ok(()) } else { Err(Status::NFS4ERR_OPENMODE) };
            }
            Kind::Copy | Kind::Layout => return Err(Status::NFS4ERR_BAD_STATEID),
            Kind::Lock => self.open_of_lock(shard, number, client, stateid)?,
            Kind::Open => {
                let id = self.parse_stateid(Kind::Open, stateid)?;
                if shard_number(id) != number {
                    return Err(Status::NFS4ERR_BAD_STATEID);
                }
                crate::files::local(id)
            }
        };
        let open = shard.opens.get(open).filter(|o| o.client == client.index && o.file == file);
        let open = open.ok_or(Status::NFS4ERR_BAD_STATEID)?;
        if self.kind_of(stateid)? == Kind::Open {
            crate::stateids::check_seqid(stateid.seqid, open.seqid)?;
        }
        // Who writes may read: a client fills the rest of a page that it writes to (RFC 8881 section 18.22.3).
        match access {
            WRITE if open.access & WRITE == 0 => Err(Status::NFS4ERR_OPENMODE),
            _ => Ok(()),
        }
    }
}

impl Compound<'_> {
    /// READ. It copies what it reads once, to where the reply is sent from.
    pub(crate) fn read(&self, args: &ReadArgs, limit: usize, w: &mut Writer<'_>) -> xdr::Result<Status> {
        let room = limit.saturating_sub(w.position()).min(w.left()).saturating_sub(READ_BYTES);
        let mut space = vec![0; room.min(args.count as usize)];
        let read = self.read_into(args, &mut space);
        let ok = read.map(|(len, eof)| ReadOk { eof, data: space.get(..len).unwrap_or_default() });
        write(&OpRes::Read(ok), w)
    }

    /// For whom content is read or written with a stateid; whether a layout allows it.
    fn actor(&self, stateid: &Stateid4, access: u8) -> Result<(Arc<Client>, bool), Status> {
        match self.server.files.kind_of(stateid) {
            Ok(Kind::Layout) if !self.is_minor0() => {
                let (layouts, files) = (&self.server.layouts, &self.server.files);
                Ok((layouts.actor(self.file()?, stateid, access == WRITE, files)?, true))
            }
            _ => Ok((Arc::clone(self.client()?), false)),
        }
    }

    fn read_into(&self, args: &ReadArgs, space: &mut [u8]) -> Result<(usize, bool), Status> {
        let (server, stateid) = (self.server, self.meant(&args.stateid)?);
        let (client, allowed) = self.actor(&stateid, READ)?;
        let (mut shard, number, index) = server.files.live(self.file()?)?;
        shard.files.at(index).ok_or(Status::NFS4ERR_STALE)?.data()?;
        if !allowed {
            server.files.check_io(&shard, number, index, &client, &stateid, READ)?;
        }
        let caller = self.caller(&client);
        if server.files.recall_of_others(&mut shard, index, &caller, Conflict::Read, &server.callbacks) {
            return Err(Status::NFS4ERR_DELAY);
        }
        let file = shard.files.at_mut(index).ok_or(Status::NFS4ERR_STALE)?;
        let Some(data) = file.data()? else { return Ok((0, true)) };
        let len = data.read(args.offset, space);
        let eof = args.offset.saturating_add(len as u64) >= data.size();
        Ok((len, eof))
    }

    /// WRITE. Without a store what is in memory is as safe as it ever gets, so all data is committed at once. With one, it is
    /// when it is asked for.
    pub(crate) fn write(&mut self, args: &WriteArgs<'_>) -> Result<WriteOk, Status> {
        let stable = self.server.store.is_none() || args.stable != StableHow4::Unstable;
        if stable && !self.may_store() {
            return Err(Status::NFS4ERR_DELAY);
        }
        let (server, stateid) = (self.server, self.meant(&args.stateid)?);
        let (client, allowed) = self.actor(&stateid, WRITE)?;
        let (mut shard, number, index) = server.files.live(self.file()?)?;
        shard.files.at(index).ok_or(Status::NFS4ERR_STALE)?.data()?;
        if !allowed {
            server.files.check_io(&shard, number, index, &client, &stateid, WRITE)?;
        }
        let caller = self.caller(&client);
        if server.files.recall_of_others(&mut shard, index, &caller, Conflict::Write, &server.callbacks) {
            return Err(Status::NFS4ERR_DELAY);
        }
        let file = shard.files.at_mut(index).ok_or(Status::NFS4ERR_STALE)?;
        if !args.data.is_empty() {
            file.data_mut()?.write(args.offset, args.data, &server.files.data)?;
            file.modify(caller.maker.now);
        }
        drop(shard);
        if stable {
            self.save(server.now_ns())?;
        }
        let count = args.data.len() as u32;
        let committed = if stable { StableHow4::FileSync } else { StableHow4::Unstable };
        Ok(WriteOk { count, committed, verifier: self.verifier() })
    }

    pub(crate) fn commit(&mut self) -> Result<CommitOk, Status> {
        self.server.files.with_file(self.file()?, |file| file.data().map(|_| ()))??;
        if !self.may_store() {
            return Err(Status::NFS4ERR_DELAY);
        }
        self.save(self.asked_ns.unwrap_or_else(|| self.server.now_ns()))?;
        Ok(CommitOk { verifier: self.verifier() })
    }

    pub(crate) fn verifier(&self) -> Verifier4 {
        self.server.files.verifier()
    }
}
