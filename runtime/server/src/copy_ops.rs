//! COPY, OFFLOAD_STATUS, OFFLOAD_CANCEL, SEEK, ALLOCATE and DEALLOCATE (RFC 7862 sections 15.2, 15.9, 15.8, 15.11, 15.1 and 15.4).

use crate::compound::Compound;
use crate::copies::{STEP_BYTES, Way};
use crate::data::Data;
use crate::delegations::Conflict;
use crate::file::now;
use crate::later::Message;
use crate::opens::{READ, WRITE};
use crate::quota::Quota;
use crate::stateids::Kind;
use ringback_rpc::nfs4::callback::WriteResponse4;
use ringback_rpc::nfs4::fore::{
    AllocateArgs, CopyArgs, CopyOk, CopyRequirements, DataContent4, OffloadStatusOk, SeekArgs, SeekOk,
};
use ringback_rpc::nfs4::{Stateid4, Status};
use std::sync::Arc;

/// The seqid of the stateid of a copy, which never changes.
pub(crate) const COPY_SEQID: u32 = 1;

impl Compound<'_> {
    /// COPY. A piece is copied at once; what is more goes on afterwards, unless the client wants to wait, which then gets the
    /// first piece.
    pub(crate) fn copy(&mut self, args: &CopyArgs<'_>) -> Result<CopyOk, Status> {
        if !args.source_servers.is_empty() {
            return Err(Status::NFS4ERR_NOTSUPP);
        }
        let client = Arc::clone(&self.session()?.client);
        let way = self.way(args)?;
        let asynchronous = !args.synchronous && way.left > STEP_BYTES as u64;
        let (callback_id, count) = if asynchronous {
            let server = self.server;
            let begun = server.copies.begin(&client, way, self.request(), &server.callbacks);
            let id = begun.ok_or(Status::NFS4ERR_OFFLOAD_DENIED)?;
            server.later.send(Message::Copy(id));
            (Some(server.files.stateid(Kind::Copy, id, COPY_SEQID)), 0)
        } else {
            (None, self.server.copy_piece(&way)?)
        };
        let response =
            WriteResponse4 { callback_id, count, committed: self.server.stability(), verifier: self.verifier() };
        let requirements = CopyRequirements { consecutive: true, synchronous: !asynchronous };
        Ok(CopyOk { response, requirements })
    }

    /// Checks what is to be copied, and has what others hold of it recalled.
    fn way(&mut self, args: &CopyArgs<'_>) -> Result<Way, Status> {
        let (from, stateid) = self.saved.ok_or(Status::NFS4ERR_NOFILEHANDLE)?;
        let src_stateid = match args.src_stateid {
            // That of the saved filehandle (RFC 8881 section 16.2.3.1.2).
            Stateid4::CURRENT => stateid.ok_or(Status::NFS4ERR_BAD_STATEID)?,
            given => given,
        };
        let dst_stateid = self.meant(&args.dst_stateid)?;
        let to = self.file()?;
        self.check_content(from, &src_stateid, READ, Conflict::Read)?;
        self.check_content(to, &dst_stateid, WRITE, Conflict::Write)?;
        let size = self.server.files.with_file(from, |file| Ok(file.data()?.map_or(0, |data| data.size())))??;
        let left = if args.count == 0 { size.checked_sub(args.src_offset) } else { Some(args.count) };
        let left = left.ok_or(Status::NFS4ERR_INVAL)?;
        let ends = (args.src_offset.checked_add(left), args.dst_offset.checked_add(left));
        let (Some(src_end), Some(dst_end)) = ends else { return Err(Status::NFS4ERR_INVAL) };
        let overlaps = from == to && args.src_offset < dst_end && args.dst_offset < src_end;
        if src_end > size || overlaps {
            return Err(Status::NFS4ERR_INVAL);
        }
        Ok(Way { from, from_offset: args.src_offset, to, to_offset: args.dst_offset, left })
    }

    /// Whether a stateid allows such use of a file's content now.
    fn check_content(
        &self,
        file: crate::arena::Id,
        stateid: &Stateid4,
        access: u8,
        about: Conflict,
    ) -> Result<(), Status> {
        let client = &self.session()?.client;
        let server = self.server;
        let (mut shard, number, index) = server.files.live(file)?;
        shard.files.at(index).ok_or(Status::NFS4ERR_STALE)?.data()?;
        server.files.check_io(&shard, number, index, client, stateid, access)?;
        match server.files.recall_of_others(&mut shard, index, &self.caller(client), about, &server.callbacks) {
            true => Err(Status::NFS4ERR_DELAY),
            false => Ok(()),
        }
    }

    pub(crate) fn offload_status(&self, stateid: &Stateid4) -> Result<OffloadStatusOk, Status> {
        let client = &self.session()?.client;
        let id = self.server.files.parse_stateid(Kind::Copy, &self.meant(stateid)?)?;
        self.server.copies.status(client, id, &self.server.callbacks)
    }

    pub(crate) fn offload_cancel(&self, stateid: &Stateid4) -> Result<(), Status> {
        let client = &self.session()?.client;
        let id = self.server.files.parse_stateid(Kind::Copy, &self.meant(stateid)?)?;
        self.server.copies.cancel(client, id, &self.server.callbacks)
    }

    /// SEEK. The end of the file is a hole.
    pub(crate) fn seek(&self, args: &SeekArgs) -> Result<SeekOk, Status> {
        let file = self.file()?;
        self.check_content(file, &self.meant(&args.stateid)?, READ, Conflict::Read)?;
        self.server.files.with_file(file, |file| {
            let data = file.data()?;
            let size = data.map_or(0, |data| data.size());
            if args.offset >= size {
                return Err(Status::NFS4ERR_NXIO);
            }
            let found = data.and_then(|data| data.seek(args.offset, args.what == DataContent4::Data));
            Ok(SeekOk { eof: found.is_none(), offset: found.unwrap_or(size) })
        })?
    }

    /// ALLOCATE and DEALLOCATE of a range of the current file, which `change` does.
    pub(crate) fn reserve(
        &self,
        args: &AllocateArgs,
        change: impl FnOnce(&mut Data, u64, u64, &Quota) -> Result<(), Status>,
    ) -> Result<(), Status> {
        let (file, quota) = (self.file()?, &self.server.files.data);
        self.check_content(file, &self.meant(&args.stateid)?, WRITE, Conflict::Write)?;
        if args.offset.checked_add(args.length).is_none() {
            return Err(Status::NFS4ERR_INVAL);
        }
        self.server.files.with_file_mut(file, |file| {
            change(file.data_mut()?, args.offset, args.length, quota)?;
            file.modify(now());
            Ok(())
        })?
    }
}
