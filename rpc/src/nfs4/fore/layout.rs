//! Layouts and devices of pNFS: GETDEVICEINFO, LAYOUTGET, LAYOUTCOMMIT, LAYOUTRETURN (RFC 8881 sections 18.40 to 18.44), LAYOUTERROR
//! and LAYOUTSTATS (RFC 7862 sections 15.6 and 15.7). What only a layout type knows is opaque here; that of flexible files is in
//! `flex_files.rs`.

use super::{Failure, Op};
use crate::nfs4::wire::{Field, undefined, wire_field, wire_struct};
use crate::nfs4::{Bitmap4, DeviceId4, LayoutIomode4, LayoutType4, List, NfsTime4, Stateid4, Status};
use crate::xdr::{Decode, Encode, Reader, Result, Writer};

wire_struct! {
    /// Arguments of GETDEVICEINFO.
    pub struct GetDeviceInfoArgs {
        /// The device.
        pub device_id: DeviceId4 = "gdia_device_id",
        /// What kind of layout names it.
        pub layout_type: LayoutType4 = "gdia_layout_type",
        /// Most bytes of the results; zero: only the notifications are wanted.
        pub bytes_max: u32 = "gdia_maxcount",
        /// Of what the client wants to be told with CB_NOTIFY_DEVICEID, as bits.
        pub notify_types: Bitmap4 = "gdia_notify_types",
    }
}

wire_struct! {
    /// Results of GETDEVICEINFO.
    pub struct GetDeviceInfoOk<'a> {
        /// What kind of layout names it.
        pub layout_type: LayoutType4 = "da_layout_type",
        /// What that layout type knows of a device.
        pub body: &'a [u8] = "da_addr_body",
        /// Of what the client will be told.
        pub notification: Bitmap4 = "gdir_notification",
    }
}

/// How GETDEVICEINFO fails: NFS4ERR_TOOSMALL says how many bytes it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GetDeviceInfoFailure {
    /// NFS4ERR_TOOSMALL, and gdir_mincount.
    TooSmall(u32),
    /// Any other status.
    Other(Status),
}

impl Failure<'_> for GetDeviceInfoFailure {
    fn read(status: Status, r: &mut Reader<'_>) -> Result<Self> {
        match status {
            Status::NFS4ERR_TOOSMALL => r.u32("gdir_mincount").map(GetDeviceInfoFailure::TooSmall),
            status => Ok(GetDeviceInfoFailure::Other(status)),
        }
    }

    fn status(&self) -> Status {
        match self {
            GetDeviceInfoFailure::TooSmall(_) => Status::NFS4ERR_TOOSMALL,
            GetDeviceInfoFailure::Other(status) => *status,
        }
    }

    fn put(&self, w: &mut Writer<'_>) -> Result<()> {
        match self {
            GetDeviceInfoFailure::TooSmall(bytes) => w.u32(*bytes),
            GetDeviceInfoFailure::Other(_) => Ok(()),
        }
    }
}

impl From<Status> for GetDeviceInfoFailure {
    fn from(status: Status) -> Self {
        GetDeviceInfoFailure::Other(status)
    }
}

wire_struct! {
    /// Arguments of LAYOUTGET.
    pub struct LayoutGetArgs {
        /// Tell me with CB_RECALLABLE_OBJ_AVAIL when there is one, if there is none now.
        pub signal: bool = "loga_signal_layout_avail",
        /// Of which kind.
        pub layout_type: LayoutType4 = "loga_layout_type",
        /// For which use.
        pub iomode: LayoutIomode4 = "loga_iomode",
        /// The first byte.
        pub offset: u64 = "loga_offset",
        /// How many bytes; all ones: to the end of the file.
        pub length: u64 = "loga_length",
        /// How many of these there must be at least.
        pub length_min: u64 = "loga_minlength",
        /// The open, lock or delegation under which it is asked for, or the layout that there is.
        pub stateid: Stateid4 = "loga_stateid",
        /// Most bytes of the layouts.
        pub bytes_max: u32 = "loga_maxcount",
    }
}

wire_struct! {
    /// One layout (RFC 8881 section 3.3.13, `layout4`).
    pub struct Layout4<'a> {
        /// The first byte.
        pub offset: u64 = "lo_offset",
        /// How many bytes.
        pub length: u64 = "lo_length",
        /// For which use.
        pub iomode: LayoutIomode4 = "lo_iomode",
        /// Of which kind.
        pub layout_type: LayoutType4 = "loc_type",
        /// What that layout type says.
        pub body: &'a [u8] = "loc_body",
    }
}

wire_struct! {
    /// Results of LAYOUTGET.
    pub struct LayoutGetOk<'a> {
        /// It has to be returned before the file's last CLOSE.
        pub return_on_close: bool = "logr_return_on_close",
        /// The stateid of the client's layouts of the file.
        pub stateid: Stateid4 = "logr_stateid",
        /// The layouts.
        pub layouts: List<'a, Layout4<'a>> = "logr_layout",
    }
}

/// How LAYOUTGET fails: NFS4ERR_LAYOUTTRYLATER says whether the client will be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayoutGetFailure {
    /// NFS4ERR_LAYOUTTRYLATER, and logr_will_signal_layout_avail.
    TryLater(bool),
    /// Any other status.
    Other(Status),
}

impl Failure<'_> for LayoutGetFailure {
    fn read(status: Status, r: &mut Reader<'_>) -> Result<Self> {
        match status {
            Status::NFS4ERR_LAYOUTTRYLATER => r.bool("logr_will_signal_layout_avail").map(LayoutGetFailure::TryLater),
            status => Ok(LayoutGetFailure::Other(status)),
        }
    }

    fn status(&self) -> Status {
        match self {
            LayoutGetFailure::TryLater(_) => Status::NFS4ERR_LAYOUTTRYLATER,
            LayoutGetFailure::Other(status) => *status,
        }
    }

    fn put(&self, w: &mut Writer<'_>) -> Result<()> {
        match self {
            LayoutGetFailure::TryLater(signals) => w.bool(*signals),
            LayoutGetFailure::Other(_) => Ok(()),
        }
    }
}

impl From<Status> for LayoutGetFailure {
    fn from(status: Status) -> Self {
        LayoutGetFailure::Other(status)
    }
}

/// A value that is there or not, as a union by a boolean.
fn get_optional<'a, T: Field<'a>>(r: &mut Reader<'a>, what: &'static str) -> Result<Option<T>> {
    if r.bool(what)? { T::get(r, what).map(Some) } else { Ok(None) }
}

fn put_optional<'a, T: Field<'a>>(value: Option<&T>, w: &mut Writer<'_>) -> Result<()> {
    w.bool(value.is_some())?;
    value.map_or(Ok(()), |value| value.put(w))
}

/// Arguments of LAYOUTCOMMIT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayoutCommitArgs<'a> {
    /// The first byte.
    pub offset: u64,
    /// How many bytes.
    pub length: u64,
    /// In a grace period, of what was written before it.
    pub reclaim: bool,
    /// The layout.
    pub stateid: Stateid4,
    /// The last byte that was written.
    pub last_write_offset: Option<u64>,
    /// When.
    pub time_modify: Option<NfsTime4>,
    /// Of which kind the layout is.
    pub layout_type: LayoutType4,
    /// What that layout type says.
    pub body: &'a [u8],
}

impl<'a> Decode<'a> for LayoutCommitArgs<'a> {
    fn decode(r: &mut Reader<'a>) -> Result<Self> {
        Ok(LayoutCommitArgs {
            offset: r.u64("loca_offset")?,
            length: r.u64("loca_length")?,
            reclaim: r.bool("loca_reclaim")?,
            stateid: Stateid4::decode(r)?,
            last_write_offset: get_optional(r, "no_newoffset")?,
            time_modify: get_optional(r, "nt_timechanged")?,
            layout_type: LayoutType4::decode(r)?,
            body: Field::get(r, "lou_body")?,
        })
    }
}

impl Encode for LayoutCommitArgs<'_> {
    fn encode(&self, w: &mut Writer<'_>) -> Result<()> {
        w.u64(self.offset)?;
        w.u64(self.length)?;
        w.bool(self.reclaim)?;
        self.stateid.encode(w)?;
        put_optional(self.last_write_offset.as_ref(), w)?;
        put_optional(self.time_modify.as_ref(), w)?;
        self.layout_type.encode(w)?;
        w.opaque(self.body)
    }
}

/// Results of LAYOUTCOMMIT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayoutCommitOk {
    /// The file's size, if it has changed.
    pub new_size: Option<u64>,
}

impl Decode<'_> for LayoutCommitOk {
    fn decode(r: &mut Reader<'_>) -> Result<Self> {
        Ok(LayoutCommitOk { new_size: get_optional(r, "ns_sizechanged")? })
    }
}

impl Encode for LayoutCommitOk {
    fn encode(&self, w: &mut Writer<'_>) -> Result<()> {
        put_optional(self.new_size.as_ref(), w)
    }
}

/// What is returned (RFC 8881 section 18.44.1, `layoutreturn4`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayoutReturn<'a> {
    /// LAYOUTRETURN4_FILE: of the current file.
    File {
        /// The first byte.
        offset: u64,
        /// How many bytes; all ones: to the end of the file.
        length: u64,
        /// The layout.
        stateid: Stateid4,
        /// What the layout type says.
        body: &'a [u8],
    },
    /// LAYOUTRETURN4_FSID: all of the file system of the current file.
    Fsid,
    /// LAYOUTRETURN4_ALL: all.
    All,
}

impl<'a> Decode<'a> for LayoutReturn<'a> {
    fn decode(r: &mut Reader<'a>) -> Result<Self> {
        let at = r.offset();
        match r.u32("lr_returntype")? {
            1 => Ok(LayoutReturn::File {
                offset: r.u64("lrf_offset")?,
                length: r.u64("lrf_length")?,
                stateid: Stateid4::decode(r)?,
                body: Field::get(r, "lrf_body")?,
            }),
            2 => Ok(LayoutReturn::Fsid),
            3 => Ok(LayoutReturn::All),
            value => Err(undefined("lr_returntype", at, value)),
        }
    }
}

impl Encode for LayoutReturn<'_> {
    fn encode(&self, w: &mut Writer<'_>) -> Result<()> {
        match self {
            LayoutReturn::File { offset, length, stateid, body } => {
                w.u32(1)?;
                w.u64(*offset)?;
                w.u64(*length)?;
                stateid.encode(w)?;
                w.opaque(body)
            }
            LayoutReturn::Fsid => w.u32(2),
            LayoutReturn::All => w.u32(3),
        }
    }
}

wire_field!(LayoutReturn<'a>);

wire_struct! {
    /// Arguments of LAYOUTRETURN.
    pub struct LayoutReturnArgs<'a> {
        /// In a grace period, of what was had before it.
        pub reclaim: bool = "lora_reclaim",
        /// Of which kind.
        pub layout_type: LayoutType4 = "lora_layout_type",
        /// Of which use.
        pub iomode: LayoutIomode4 = "lora_iomode",
        /// What.
        pub what: LayoutReturn<'a> = "lora_layoutreturn",
    }
}

/// Results of LAYOUTRETURN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayoutReturnOk {
    /// The stateid of the layouts that the client has left of the file.
    pub stateid: Option<Stateid4>,
}

impl Decode<'_> for LayoutReturnOk {
    fn decode(r: &mut Reader<'_>) -> Result<Self> {
        Ok(LayoutReturnOk { stateid: get_optional(r, "lrs_present")? })
    }
}

impl Encode for LayoutReturnOk {
    fn encode(&self, w: &mut Writer<'_>) -> Result<()> {
        put_optional(self.stateid.as_ref(), w)
    }
}

/// An operation that failed on a device (RFC 7862 section 15.6, `device_error4`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceError4 {
    /// The device.
    pub device_id: DeviceId4,
    /// How.
    pub status: Status,
    /// Which operation.
    pub op: Op,
}

impl Decode<'_> for DeviceError4 {
    fn decode(r: &mut Reader<'_>) -> Result<Self> {
        Ok(DeviceError4 {
            device_id: DeviceId4::decode(r)?,
            status: Status(r.u32("de_status")?),
            op: Op(r.u32("de_opnum")?),
        })
    }
}

impl Encode for DeviceError4 {
    fn encode(&self, w: &mut Writer<'_>) -> Result<()> {
        self.device_id.encode(w)?;
        w.u32(self.status.0)?;
        w.u32(self.op.0)
    }
}

wire_struct! {
    /// Arguments of LAYOUTERROR.
    pub struct LayoutErrorArgs<'a> {
        /// The first byte.
        pub offset: u64 = "lea_offset",
        /// How many bytes.
        pub length: u64 = "lea_length",
        /// The layout.
        pub stateid: Stateid4 = "lea_stateid",
        /// What has failed.
        pub errors: List<'a, DeviceError4> = "lea_errors",
    }
}

wire_struct! {
    /// How much was read or written (RFC 7862 section 15.7, `io_info4`).
    pub struct IoInfo4 {
        /// How many operations.
        pub count: u64 = "ii_count",
        /// How many bytes.
        pub bytes: u64 = "ii_bytes",
    }
}

wire_struct! {
    /// Arguments of LAYOUTSTATS.
    pub struct LayoutStatsArgs<'a> {
        /// The first byte.
        pub offset: u64 = "lsa_offset",
        /// How many bytes.
        pub length: u64 = "lsa_length",
        /// The layout.
        pub stateid: Stateid4 = "lsa_stateid",
        /// What was read.
        pub read: IoInfo4 = "lsa_read",
        /// What was written.
        pub write: IoInfo4 = "lsa_write",
        /// On which device.
        pub device_id: DeviceId4 = "lsa_deviceid",
        /// Of which kind the layout is.
        pub layout_type: LayoutType4 = "lou_type",
        /// What that layout type says.
        pub body: &'a [u8] = "lou_body",
    }
}
