//! Operations on attributes: GETFH, GETATTR, SETATTR, ACCESS, VERIFY, NVERIFY.

use crate::attributes::VALUES_BYTES_MAX;
use crate::clients::Principal;
use crate::compound::Compound;
use crate::delegations::Conflict;
use crate::opens::WRITE;
use crate::operations::write;
use crate::set_attributes::Changes;
use ringback_rpc::nfs4::callback::notify_type;
use ringback_rpc::nfs4::fore::{
    AccessOk, GetAttrOk, GetFhOk, OpRes, SetAttrArgs, SetAttrFailure, SetAttrOk, access, file_type,
};
use ringback_rpc::nfs4::{Bitmap4, Fattr, FileHandle, Status, attr};
use ringback_rpc::xdr::{self, Writer};
use std::sync::Arc;

/// All bits of ACCESS.
const ACCESS_ALL: u32 =
    access::READ | access::LOOKUP | access::MODIFY | access::EXTEND | access::DELETE | access::EXECUTE;

impl Compound<'_> {
    pub(crate) fn get_fh(&self, w: &mut Writer<'_>) -> xdr::Result<Status> {
        let handle = self.file().map(|file| self.server.files.handle(file));
        let found = handle.as_ref().map_err(|status| *status).and_then(|bytes| {
            let object = FileHandle::new(bytes).ok_or(Status::NFS4ERR_SERVERFAULT)?;
            Ok(GetFhOk { object })
        });
        write(&OpRes::GetFh(found), w)
    }

    pub(crate) fn get_attr(&mut self, asked: &Bitmap4, w: &mut Writer<'_>) -> xdr::Result<Status> {
        let mut space = [0; VALUES_BYTES_MAX];
        let mut values = Writer::new(&mut space);
        let found = self
            .seen(asked)
            .and_then(|facts| self.server.attributes(&facts, asked, self.origin.minor_version, &mut values));
        let res = OpRes::GetAttr(found.map(|mask| GetAttrOk { attributes: Fattr { mask, values: values.written() } }));
        write(&res, w)
    }

    pub(crate) fn set_attr(&mut self, args: &SetAttrArgs<'_>) -> Result<SetAttrOk, SetAttrFailure> {
        Ok(self.change_attributes(args)?)
    }

    fn change_attributes(&mut self, args: &SetAttrArgs<'_>) -> Result<SetAttrOk, Status> {
        self.server.files.grace.check()?;
        let client = Arc::clone(self.client()?);
        let (id, caller, server) = (self.file()?, self.caller(&client), self.server);
        let changes = Changes::parse(&args.attributes, caller.maker.now)?;
        let stateid = self.meant(&args.stateid)?;
        let (mut shard, number, index) = server.files.live(id)?;
        if changes.size.is_some() {
            server.files.check_io(&shard, number, index, &client, &stateid, WRITE)?;
        }
        let callbacks = &server.callbacks;
        let is_directory = shard.files.at(index).is_some_and(|file| file.directory().is_ok());
        let is_held = match is_directory {
            true => {
                server.files.recall_of_watchers(&mut shard, index, &caller, notify_type::CHANGE_DIR_ATTRS, callbacks)
            }
            false => server.files.recall_of_others(&mut shard, index, &caller, Conflict::Write, callbacks),
        };
        let is_cut = changes.size.is_some() && server.layouts.recall_of_others(&client, id, callbacks);
        if is_held || is_cut {
            return Err(Status::NFS4ERR_DELAY);
        }
        let file = shard.files.at_mut(index).ok_or(Status::NFS4ERR_STALE)?;
        changes.apply(file, &server.files.data, caller.maker.now)?;
        if is_directory {
            server.files.tell_attributes(&mut shard, index, &client, callbacks);
        }
        Ok(SetAttrOk { attributes_set: args.attributes.mask })
    }

    /// ACCESS (RFC 8881 section 18.1), by the bits of the mode. Clients ask it before they use a file; the server itself
    /// refuses nothing because of them, as AUTH_SYS would let any client say what it likes.
    pub(crate) fn access(&self, asked: u32) -> Result<AccessOk, Status> {
        let facts = self.server.facts(self.file()?)?;
        let supported = asked & ACCESS_ALL;
        let directory = facts.kind == file_type::DIRECTORY;
        let Principal::Uid(uid) = self.origin.principal else {
            return Ok(AccessOk { supported, access: supported & allowed(facts.mode & 7, directory) });
        };
        if uid == 0 {
            // The superuser executes what somebody may execute.
            let execute = directory || facts.mode & 0o111 != 0;
            let access = if execute { supported } else { supported & !access::EXECUTE };
            return Ok(AccessOk { supported, access });
        }
        let member = self.origin.gid == facts.gid || self.origin.groups.contains(facts.gid);
        let bits = match (uid == facts.uid, member) {
            (true, _) => facts.mode >> 6,
            (false, true) => facts.mode >> 3,
            (false, false) => facts.mode,
        };
        Ok(AccessOk { supported, access: supported & allowed(bits & 7, directory) })
    }

    pub(crate) fn verify(&mut self, given: &Fattr<'_>) -> Result<(), Status> {
        if self.is_same(given)? { Ok(()) } else { Err(Status::NFS4ERR_NOT_SAME) }
    }

    pub(crate) fn not_verify(&mut self, given: &Fattr<'_>) -> Result<(), Status> {
        if self.is_same(given)? { Err(Status::NFS4ERR_SAME) } else { Ok(()) }
    }

    /// Whether the attributes have those values: values are compared as they are encoded, which is unique.
    fn is_same(&mut self, given: &Fattr<'_>) -> Result<bool, Status> {
        if given.mask.contains(attr::RDATTR_ERROR) {
            return Err(Status::NFS4ERR_INVAL);
        }
        if given.mask.and(&self.server.supported(self.origin.minor_version)) != given.mask {
            return Err(Status::NFS4ERR_ATTRNOTSUPP);
        }
        let facts = self.seen(&given.mask)?;
        let mut space = [0; VALUES_BYTES_MAX];
        let mut values = Writer::new(&mut space);
        self.server.attributes(&facts, &given.mask, self.origin.minor_version, &mut values)?;
        Ok(values.written() == given.values)
    }
}

/// What the three bits of one class allow.
fn allowed(bits: u16, directory: bool) -> u32 {
    let mut allowed = 0;
    if bits & 4 != 0 {
        allowed |= access::READ;
    }
    if bits & 2 != 0 {
        allowed |= access::MODIFY | access::EXTEND;
        allowed |= if directory { access::DELETE } else { 0 };
    }
    if bits & 1 != 0 {
        allowed |= if directory { access::LOOKUP } else { access::EXECUTE };
    }
    allowed
}
