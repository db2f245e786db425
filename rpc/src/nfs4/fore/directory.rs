//! Directories and links: CREATE, REMOVE, RENAME, LINK, READLINK, READDIR, SECINFO, SECINFO_NO_NAME. LOOKUPP has neither
//! arguments nor results.

use crate::nfs4::sec_parms::GssService;
use crate::nfs4::wire::{wire_enum, wire_field, wire_struct};
use crate::nfs4::{Bitmap4, ChangeInfo4, Fattr, List, Verifier4};
use crate::xdr::{Decode, Encode, Reader, Result, Writer};

/// `nfs_ftype4` (RFC 8881 section 3.2).
pub mod file_type {
    /// NF4REG: regular file.
    pub const REGULAR: u32 = 1;
    /// NF4DIR: directory.
    pub const DIRECTORY: u32 = 2;
    /// NF4BLK: block device.
    pub const BLOCK: u32 = 3;
    /// NF4CHR: character device.
    pub const CHARACTER: u32 = 4;
    /// NF4LNK: symbolic link.
    pub const SYMLINK: u32 = 5;
    /// NF4SOCK: socket.
    pub const SOCKET: u32 = 6;
    /// NF4FIFO: named pipe.
    pub const FIFO: u32 = 7;
    /// NF4ATTRDIR: directory of named attributes.
    pub const ATTRIBUTE_DIRECTORY: u32 = 8;
    /// NF4NAMEDATTR: named attribute.
    pub const NAMED_ATTRIBUTE: u32 = 9;
}

/// What CREATE makes (RFC 8881 section 18.4.1, `createtype4`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CreateType<'a> {
    /// NF4LNK, and where it leads.
    Symlink(&'a [u8]),
    /// NF4BLK, with the device's major and minor number.
    Block(u32, u32),
    /// NF4CHR, with the device's major and minor number.
    Character(u32, u32),
    /// Any other of [`file_type`], or a number that is none: a server has to answer it.
    Plain(u32),
}

impl CreateType<'_> {
    /// The type's number.
    pub const fn number(&self) -> u32 {
        match self {
            CreateType::Symlink(_) => file_type::SYMLINK,
            CreateType::Block(..) => file_type::BLOCK,
            CreateType::Character(..) => file_type::CHARACTER,
            CreateType::Plain(number) => *number,
        }
    }
}

impl<'a> Decode<'a> for CreateType<'a> {
    fn decode(r: &mut Reader<'a>) -> Result<Self> {
        match r.u32("createtype4")? {
            file_type::SYMLINK => r.opaque("linkdata", u32::MAX as usize).map(CreateType::Symlink),
            file_type::BLOCK => Ok(CreateType::Block(r.u32("specdata1")?, r.u32("specdata2")?)),
            file_type::CHARACTER => Ok(CreateType::Character(r.u32("specdata1")?, r.u32("specdata2")?)),
            number => Ok(CreateType::Plain(number)),
        }
    }
}

impl Encode for CreateType<'_> {
    fn encode(&self, w: &mut Writer<'_>) -> Result<()> {
        w.u32(self.number())?;
        match self {
            CreateType::Symlink(target) => w.opaque(target),
            CreateType::Block(major, minor) | CreateType::Character(major, minor) => {
                w.u32(*major)?;
                w.u32(*minor)
            }
            CreateType::Plain(_) => Ok(()),
        }
    }
}

wire_field!(CreateType<'a>);

wire_struct! {
    /// Arguments of CREATE (RFC 8881 section 18.4).
    pub struct CreateArgs<'a> {
        /// What to make.
        pub kind: CreateType<'a> = "objtype",
        /// Its name in the current directory.
        pub name: &'a [u8] = "objname",
        /// Attributes to set.
        pub attributes: Fattr<'a> = "createattrs",
    }
}

wire_struct! {
    /// Results of CREATE.
    pub struct CreateOk {
        /// How the directory changed.
        pub change_info: ChangeInfo4 = "cinfo",
        /// The attributes that were set.
        pub attributes_set: Bitmap4 = "attrset",
    }
}

wire_struct! {
    /// Arguments of REMOVE (RFC 8881 section 18.25).
    pub struct RemoveArgs<'a> {
        /// The name in the current directory.
        pub target: &'a [u8] = "target",
    }
}

wire_struct! {
    /// Results of REMOVE.
    pub struct RemoveOk {
        /// How the directory changed.
        pub change_info: ChangeInfo4 = "cinfo",
    }
}

wire_struct! {
    /// Arguments of RENAME (RFC 8881 section 18.26).
    pub struct RenameArgs<'a> {
        /// The name in the saved directory.
        pub old_name: &'a [u8] = "oldname",
        /// The name in the current directory.
        pub new_name: &'a [u8] = "newname",
    }
}

wire_struct! {
    /// Results of RENAME.
    pub struct RenameOk {
        /// How the saved directory changed.
        pub source: ChangeInfo4 = "source_cinfo",
        /// How the current directory changed.
        pub target: ChangeInfo4 = "target_cinfo",
    }
}

wire_struct! {
    /// Arguments of LINK (RFC 8881 section 18.9).
    pub struct LinkArgs<'a> {
        /// The name in the current directory for the saved file.
        pub new_name: &'a [u8] = "newname",
    }
}

wire_struct! {
    /// Results of LINK.
    pub struct LinkOk {
        /// How the directory changed.
        pub change_info: ChangeInfo4 = "cinfo",
    }
}

wire_struct! {
    /// Results of READLINK (RFC 8881 section 18.24).
    pub struct ReadLinkOk<'a> {
        /// Where the link leads.
        pub link: &'a [u8] = "link",
    }
}

wire_struct! {
    /// Arguments of READDIR (RFC 8881 section 18.23).
    pub struct ReadDirArgs {
        /// The cookie of the entry after which to go on; zero: from the start.
        pub cookie: u64 = "cookie",
        /// The verifier that came with that cookie.
        pub verifier: Verifier4 = "cookieverf",
        /// A hint: the most bytes of names and cookies.
        pub names_bytes_max: u32 = "dircount",
        /// The most bytes of the results.
        pub bytes_max: u32 = "maxcount",
        /// The attributes asked for, of each entry.
        pub request: Bitmap4 = "attr_request",
    }
}

wire_struct! {
    /// One entry of a directory (RFC 8881 section 18.23.2, `entry4`, without the link to the next).
    pub struct DirEntry<'a> {
        /// Where to go on after it.
        pub cookie: u64 = "cookie",
        /// Its name.
        pub name: &'a [u8] = "name",
        /// Its attributes.
        pub attributes: Fattr<'a> = "attrs",
    }
}

impl DirEntry<'_> {
    /// Writes the entry with the mark before it that says that there is one.
    pub fn put_linked(&self, w: &mut Writer<'_>) -> Result<()> {
        w.bool(true)?;
        self.encode(w)
    }
}

/// The entries of a READDIR: a linked list on the wire (RFC 8881 section 18.23.2, `dirlist4`), kept as its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirEntries<'a> {
    bytes: &'a [u8],
}

impl<'a> DirEntries<'a> {
    /// The entries that [`DirEntry::put_linked`] wrote, one after the other.
    pub const fn written(bytes: &'a [u8]) -> Self {
        DirEntries { bytes }
    }

    /// The entries. It ends early if the bytes are something else, which those of a decoder never are.
    pub fn iter(&self) -> impl Iterator<Item = DirEntry<'a>> + use<'a> {
        let mut r = Reader::new(self.bytes);
        std::iter::from_fn(move || match r.bool("nextentry") {
            Ok(true) => DirEntry::decode(&mut r).ok(),
            _ => None,
        })
    }
}

impl<'a> Decode<'a> for DirEntries<'a> {
    fn decode(r: &mut Reader<'a>) -> Result<Self> {
        let rest = r.remaining();
        let start = r.offset();
        let mut end = start;
        while r.bool("nextentry")? {
            DirEntry::decode(r)?;
            end = r.offset();
        }
        Ok(DirEntries { bytes: rest.get(..end - start).unwrap_or_default() })
    }
}

impl Encode for DirEntries<'_> {
    fn encode(&self, w: &mut Writer<'_>) -> Result<()> {
        w.raw(self.bytes)?;
        w.bool(false)
    }
}

wire_field!(DirEntries<'a>);

wire_struct! {
    /// Results of READDIR.
    pub struct ReadDirOk<'a> {
        /// To be given back with a cookie.
        pub verifier: Verifier4 = "cookieverf",
        /// The entries.
        pub entries: DirEntries<'a> = "entries",
        /// Whether the end of the directory was reached.
        pub eof: bool = "eof",
    }
}

wire_struct! {
    /// Arguments of SECINFO (RFC 8881 section 18.29).
    pub struct SecInfoArgs<'a> {
        /// The name in the current directory.
        pub name: &'a [u8] = "name",
    }
}

wire_enum! {
    /// Arguments of SECINFO_NO_NAME (RFC 8881 section 18.45.1, `secinfo_style4`).
    pub enum SecInfoStyle = "secinfo_style4" {
        /// SECINFO_STYLE4_CURRENT_FH.
        CurrentFileHandle = 0,
        /// SECINFO_STYLE4_PARENT.
        Parent = 1,
    }
}

/// One way to authenticate (RFC 8881 section 18.29.2, `secinfo4`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecInfo4<'a> {
    /// RPCSEC_GSS, with mechanism, quality of protection and service.
    Gss(&'a [u8], u32, GssService),
    /// Another flavor, which has no parameters.
    Flavor(u32),
}

/// The number of RPCSEC_GSS (RFC 2203 section 4).
const RPCSEC_GSS: u32 = 6;

impl<'a> Decode<'a> for SecInfo4<'a> {
    fn decode(r: &mut Reader<'a>) -> Result<Self> {
        match r.u32("secinfo4.flavor")? {
            RPCSEC_GSS => Ok(SecInfo4::Gss(
                r.opaque("rpcsec_gss_info.oid", u32::MAX as usize)?,
                r.u32("rpcsec_gss_info.qop")?,
                GssService::decode(r)?,
            )),
            flavor => Ok(SecInfo4::Flavor(flavor)),
        }
    }
}

impl Encode for SecInfo4<'_> {
    fn encode(&self, w: &mut Writer<'_>) -> Result<()> {
        match self {
            SecInfo4::Gss(oid, qop, service) => {
                w.u32(RPCSEC_GSS)?;
                w.opaque(oid)?;
                w.u32(*qop)?;
                service.encode(w)
            }
            SecInfo4::Flavor(flavor) => w.u32(*flavor),
        }
    }
}

wire_struct! {
    /// Results of SECINFO and SECINFO_NO_NAME.
    pub struct SecInfoOk<'a> {
        /// What the server takes, best first.
        pub flavors: List<'a, SecInfo4<'a>> = "SECINFO4resok",
    }
}
