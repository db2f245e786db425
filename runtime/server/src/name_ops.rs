//! Operations on names: LOOKUP, LOOKUPP, CREATE, REMOVE, RENAME, LINK, READDIR, READLINK, SECINFO, SECINFO_NO_NAME.

use crate::arena::Id;
use crate::attributes::{VALUES_BYTES_MAX, WRITE_ONLY};
use crate::compound::Compound;
use crate::directory::Directory;
use crate::file::{File, Kind};
use crate::files::{Caller, ROOT};
use crate::operations::write;
use crate::set_attributes::{Changes, check_kind};
use crate::tree::Listed;
use ringback_rpc::message::flavor;
use ringback_rpc::nfs4::fore::{
    CreateArgs, CreateOk, CreateType, DirEntries, DirEntry, LinkOk, OpRes, ReadDirArgs, ReadDirOk, ReadLinkOk,
    RemoveOk, RenameArgs, RenameOk, SecInfo4, SecInfoOk, SecInfoStyle, file_type,
};
use ringback_rpc::nfs4::{Fattr, List, Status};
use ringback_rpc::xdr::{self, Writer};
use std::sync::Arc;

/// The modes of what is made without one.
const DIRECTORY_MODE: u16 = 0o755;
const OTHER_MODE: u16 = 0o644;
const SYMLINK_MODE: u16 = 0o777;
/// Longest target of a symbolic link (the limit of most file systems).
const LINK_BYTES_MAX: usize = 4095;
/// The results of READDIR without any entry: number, status, verifier, the end of the list, end of file.
const READDIR_BYTES: usize = 24;
/// The set-group-id bit.
const SETGID: u16 = 0o2000;

impl Compound<'_> {
    pub(crate) fn lookup(&mut self, name: &[u8]) -> Result<(), Status> {
        let found = self.server.files.lookup(self.file()?, name)?;
        self.go_to(found);
        Ok(())
    }

    pub(crate) fn lookup_parent(&mut self) -> Result<(), Status> {
        let parent = self.parent()?;
        self.go_to(parent);
        Ok(())
    }

    fn parent(&self) -> Result<Id, Status> {
        let file = self.file()?;
        match file {
            // Above the root there is nothing (RFC 8881 section 18.14.3).
            ROOT => self.server.files.with_file(file, |f| f.directory().map(|_| ()))?.and(Err(Status::NFS4ERR_NOENT)),
            _ => self.server.files.with_file(file, File::parent)?,
        }
    }

    pub(crate) fn create(&mut self, args: &CreateArgs<'_>) -> Result<CreateOk, Status> {
        let client = Arc::clone(self.client()?);
        let (directory, mut maker) = (self.file()?, self.caller(&client).maker);
        let (kind, mode) = self.new_kind(directory, &args.kind)?;
        let changes = Changes::parse(&args.attributes, maker.now)?;
        check_kind(&changes, &kind)?;
        let inherited = self.server.facts(directory)?;
        let setgid = inherited.mode & SETGID;
        if setgid != 0 {
            maker.gid = inherited.gid;
        }
        let is_directory = matches!(kind, Kind::Directory(_));
        let mut file = File::new(kind, mode, &maker);
        changes.apply_to_new(&mut file, &self.server.files.data)?;
        if is_directory {
            file.mode |= setgid;
        }
        let (files, callbacks) = (&self.server.files, &self.server.callbacks);
        let caller = Caller { maker, ..self.caller(&client) };
        let (made, change_info) = files.make(directory, args.name, file, &caller, callbacks)?;
        self.go_to(made);
        Ok(CreateOk { change_info, attributes_set: args.attributes.mask })
    }

    fn new_kind(&self, directory: Id, kind: &CreateType<'_>) -> Result<(Kind, u16), Status> {
        Ok(match *kind {
            CreateType::Plain(file_type::DIRECTORY) => (Kind::Directory(Directory::new(directory)), DIRECTORY_MODE),
            CreateType::Symlink([]) => return Err(Status::NFS4ERR_INVAL),
            CreateType::Symlink(target) if target.len() > LINK_BYTES_MAX => return Err(Status::NFS4ERR_NAMETOOLONG),
            CreateType::Symlink(target) => (Kind::Symlink(target.into()), SYMLINK_MODE),
            CreateType::Block(major, minor) | CreateType::Character(major, minor) => {
                (Kind::Special(kind.number(), (major, minor)), OTHER_MODE)
            }
            CreateType::Plain(file_type::SOCKET | file_type::FIFO) => {
                (Kind::Special(kind.number(), (0, 0)), OTHER_MODE)
            }
            // Regular files are made with OPEN (RFC 8881 section 18.4.3).
            CreateType::Plain(_) => return Err(Status::NFS4ERR_BADTYPE),
        })
    }

    pub(crate) fn remove(&mut self, name: &[u8]) -> Result<RemoveOk, Status> {
        self.server.files.grace.check()?;
        let client = Arc::clone(self.client()?);
        let (files, callbacks) = (&self.server.files, &self.server.callbacks);
        let change_info = files.remove(self.file()?, name, &self.caller(&client), callbacks)?;
        Ok(RemoveOk { change_info })
    }

    pub(crate) fn rename(&mut self, args: &RenameArgs<'_>) -> Result<RenameOk, Status> {
        self.server.files.grace.check()?;
        let client = Arc::clone(self.client()?);
        let (files, callbacks) = (&self.server.files, &self.server.callbacks);
        let (to, (from, _)) = (self.file()?, self.saved.ok_or(Status::NFS4ERR_NOFILEHANDLE)?);
        let caller = self.caller(&client);
        let (source, target) = files.rename((from, args.old_name), (to, args.new_name), &caller, callbacks)?;
        Ok(RenameOk { source, target })
    }

    pub(crate) fn link(&mut self, name: &[u8]) -> Result<LinkOk, Status> {
        self.server.files.grace.check()?;
        let client = Arc::clone(self.client()?);
        let (files, callbacks) = (&self.server.files, &self.server.callbacks);
        let (directory, (file, _)) = (self.file()?, self.saved.ok_or(Status::NFS4ERR_NOFILEHANDLE)?);
        let change_info = files.link(file, directory, name, &self.caller(&client), callbacks)?;
        Ok(LinkOk { change_info })
    }

    pub(crate) fn read_link(&self, w: &mut Writer<'_>) -> xdr::Result<Status> {
        let target = self.file().and_then(|file| {
            self.server.files.with_file(file, |f| f.target().map(<[u8]>::to_vec).ok_or(Status::NFS4ERR_WRONG_TYPE))?
        });
        let ok = target.as_ref().map(|link| ReadLinkOk { link });
        write(&OpRes::ReadLink(ok.map_err(|status| *status)), w)
    }

    /// READDIR (RFC 8881 section 18.23). Cookies stay valid even when the verifier is changed, by hand, so it is not checked.
    pub(crate) fn read_dir(&self, args: &ReadDirArgs, limit: usize, w: &mut Writer<'_>) -> xdr::Result<Status> {
        let room = limit.saturating_sub(w.position()).min(w.left());
        // maxcount counts the results without operation and status.
        let room = room.min((args.bytes_max as usize).saturating_add(8));
        let mut space = vec![0; room.saturating_sub(READDIR_BYTES)];
        let mut entries = Writer::new(&mut space);
        let eof = self.entries(args, &mut entries);
        let verifier = self.file().and_then(|file| self.server.files.cookie_verifier(file));
        let res = OpRes::ReadDir(eof.and_then(|eof| Ok((eof, verifier?))).map(|(eof, verifier)| ReadDirOk {
            verifier,
            entries: DirEntries::written(entries.written()),
            eof,
        }));
        write(&res, w)
    }

    /// Writes as many entries as have room; whether those are the last.
    fn entries(&self, args: &ReadDirArgs, w: &mut Writer<'_>) -> Result<bool, Status> {
        if matches!(args.cookie, 1 | 2) {
            return Err(Status::NFS4ERR_BAD_COOKIE);
        }
        if !args.request.and(&WRITE_ONLY).is_empty() {
            return Err(Status::NFS4ERR_INVAL);
        }
        let (mut cookie, mut written) = (args.cookie, false);
        loop {
            let (listed, all) = self.server.files.list(self.file()?, cookie, w.left())?;
            for entry in &listed {
                let before = w.position();
                match self.entry(args, entry, w) {
                    Ok(one) => written |= one,
                    Err(_) => {
                        w.rewind(before);
                        // Not even one (RFC 8881 section 18.23.3).
                        return if written { Ok(false) } else { Err(Status::NFS4ERR_TOOSMALL) };
                    }
                }
            }
            match listed.last() {
                // All of them are gone, and there are more.
                Some(last) if !written && !all => cookie = last.cookie,
                _ => return Ok(all),
            }
        }
    }

    /// Writes one entry, if its file is still there. An error says that there is no room.
    fn entry(&self, args: &ReadDirArgs, listed: &Listed, w: &mut Writer<'_>) -> xdr::Result<bool> {
        let Ok(facts) = self.server.facts(listed.id) else { return Ok(false) };
        let mut space = [0; VALUES_BYTES_MAX];
        let mut values = Writer::new(&mut space);
        let minor = self.origin.minor_version;
        let Ok(mask) = self.server.attributes(&facts, &args.request, minor, &mut values) else { return Ok(false) };
        let attributes = Fattr { mask, values: values.written() };
        DirEntry { cookie: listed.cookie, name: listed.name.as_bytes(), attributes }.put_linked(w)?;
        Ok(true)
    }

    /// SECINFO (RFC 8881 section 18.29). It uses the current filehandle up.
    pub(crate) fn sec_info(&mut self, name: &[u8], w: &mut Writer<'_>) -> xdr::Result<Status> {
        let found = self.file().and_then(|directory| self.server.files.lookup(directory, name));
        self.flavors(found.map(|_| ()), OpRes::SecInfo, w)
    }

    /// SECINFO_NO_NAME (RFC 8881 section 18.45).
    pub(crate) fn sec_info_no_name(&mut self, style: SecInfoStyle, w: &mut Writer<'_>) -> xdr::Result<Status> {
        let found = match style {
            SecInfoStyle::CurrentFileHandle => self.file(),
            SecInfoStyle::Parent => self.parent(),
        };
        self.flavors(found.map(|_| ()), OpRes::SecInfoNoName, w)
    }

    fn flavors<'r>(
        &mut self,
        found: Result<(), Status>,
        res: fn(Result<SecInfoOk<'r>, Status>) -> OpRes<'r>,
        w: &mut Writer<'_>,
    ) -> xdr::Result<Status> {
        const FLAVORS: [SecInfo4<'static>; 2] =
            [SecInfo4::Flavor(flavor::AUTH_SYS), SecInfo4::Flavor(flavor::AUTH_NONE)];
        // In minor version 0 it stays (RFC 7530 section 16.31.4).
        if found.is_ok() && !self.is_minor0() {
            self.current = None;
            self.stateid = None;
        }
        write(&res(found.map(|()| SecInfoOk { flavors: List::Slice(&FLAVORS) })), w)
    }
}
