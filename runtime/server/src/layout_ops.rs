//! Operations on layouts: GETDEVICEINFO, LAYOUTGET, LAYOUTCOMMIT, LAYOUTRETURN, LAYOUTERROR, LAYOUTSTATS (RFC 8881 sections 18.40 to 18.44,
//! RFC 7862 sections 15.6 and 15.7).

use crate::arena::Id;
use crate::compound::Compound;
use crate::layouts::Given;
use crate::opens::{READ, WRITE};
use crate::operations::write;
use crate::stateids::Kind;
use ringback_rpc::nfs4::fore::{
    FlexDataServer, FlexDevice, FlexLayout, FlexMirror, FlexVersion, GetDeviceInfoArgs, GetDeviceInfoFailure,
    GetDeviceInfoOk, Layout4, LayoutCommitArgs, LayoutCommitOk, LayoutErrorArgs, LayoutGetArgs, LayoutGetFailure,
    LayoutGetOk, LayoutReturn, LayoutReturnArgs, LayoutReturnOk, LayoutStatsArgs, NetAddr4, OpRes,
};
use ringback_rpc::nfs4::{FileHandle, LayoutIomode4, LayoutType4, List, Stateid4, Status, UniversalAddress};
use ringback_rpc::xdr::{self, Encode, Writer};
use std::net::SocketAddr;
use std::sync::Arc;

/// The body of a layout or of a device takes less.
const BODY_BYTES_MAX: usize = 512;
/// What GETDEVICEINFO says besides the body.
const DEVICE_BYTES: u32 = 64;
/// What data servers speak here, whatever the metadata server does.
const DATA_SERVER_MINOR_VERSION: u32 = 1;
/// As often as LAYOUTSTATS is to come, in seconds.
const STATS_SECONDS: u32 = 60;
/// What a READ or WRITE takes besides its data.
const OVERHEAD_BYTES: u32 = 4096;

impl Compound<'_> {
    /// Where the data server is, if there are layouts at all.
    fn data_server(&self, layout_type: LayoutType4) -> Result<SocketAddr, Status> {
        let address = self.server.config.layouts.ok_or(Status::NFS4ERR_NOTSUPP)?;
        if layout_type == LayoutType4::FLEX_FILES { Ok(address) } else { Err(Status::NFS4ERR_UNKNOWN_LAYOUTTYPE) }
    }

    pub(crate) fn get_device_info(&self, args: &GetDeviceInfoArgs, w: &mut Writer<'_>) -> xdr::Result<Status> {
        let mut space = [0; BODY_BYTES_MAX];
        let mut body = Writer::new(&mut space);
        let found = self.device(args, &mut body).and_then(|notification| {
            let ok = GetDeviceInfoOk { layout_type: args.layout_type, body: body.written(), notification };
            let bytes = body.written().len() as u32 + DEVICE_BYTES;
            match args.bytes_max {
                0 => Ok(GetDeviceInfoOk { body: &[], ..ok }),
                most if most < bytes => Err(GetDeviceInfoFailure::TooSmall(bytes)),
                _ => Ok(ok),
            }
        });
        write(&OpRes::GetDeviceInfo(found), w)
    }

    fn device(
        &self,
        args: &GetDeviceInfoArgs,
        body: &mut Writer<'_>,
    ) -> Result<ringback_rpc::nfs4::Bitmap4, GetDeviceInfoFailure> {
        let client = &self.session()?.client;
        let address = self.data_server(args.layout_type)?;
        let number = self.server.device_number(&args.device_id).ok_or(Status::NFS4ERR_NOENT)?;
        let notification = self.server.layouts.ask(client, number, &args.notify_types)?;
        let universal = UniversalAddress::new(address);
        let text = universal.to_string();
        let address =
            NetAddr4::new(universal.netid().as_bytes(), text.as_bytes()).ok_or(Status::NFS4ERR_SERVERFAULT)?;
        let config = &self.server.config;
        let version = FlexVersion {
            version: 4,
            minor_version: DATA_SERVER_MINOR_VERSION,
            read_bytes_max: config.response_bytes_max.saturating_sub(OVERHEAD_BYTES),
            write_bytes_max: config.request_bytes_max.saturating_sub(OVERHEAD_BYTES),
            tightly_coupled: true,
        };
        let device = FlexDevice { addresses: List::Slice(&[address]), versions: List::Slice(&[version]) };
        device.encode(body).map_err(|_| Status::NFS4ERR_SERVERFAULT)?;
        Ok(notification)
    }

    pub(crate) fn layout_get(&mut self, args: &LayoutGetArgs, w: &mut Writer<'_>) -> xdr::Result<Status> {
        let given =
            self.file().map_err(LayoutGetFailure::from).and_then(|file| Ok((file, self.give_layout(args, file)?)));
        let mut space = [0; BODY_BYTES_MAX];
        let mut body = Writer::new(&mut space);
        let result = given.and_then(|(file, given)| {
            self.stateid = Some(given.stateid);
            self.layout_body(file, &given, &mut body)?;
            if body.written().len() > args.bytes_max as usize {
                return Err(Status::NFS4ERR_TOOSMALL.into());
            }
            Ok(given)
        });
        let layouts = result.map(|given| {
            let iomode = if given.rw { LayoutIomode4::Rw } else { LayoutIomode4::Read };
            [Layout4 { offset: 0, length: u64::MAX, iomode, layout_type: args.layout_type, body: body.written() }]
        });
        let ok = result.and_then(|given| {
            let layouts = layouts.as_ref().map_err(|failure| *failure)?;
            Ok(LayoutGetOk { return_on_close: false, stateid: given.stateid, layouts: List::Slice(layouts) })
        });
        write(&OpRes::LayoutGet(ok), w)
    }

    fn give_layout(&mut self, args: &LayoutGetArgs, file: Id) -> Result<Given, LayoutGetFailure> {
        let client = Arc::clone(&self.session()?.client);
        self.data_server(args.layout_type)?;
        self.may_take_new(&client)?;
        let rw = match args.iomode {
            LayoutIomode4::Read => false,
            LayoutIomode4::Rw => true,
            LayoutIomode4::Any => return Err(Status::NFS4ERR_BADIOMODE.into()),
        };
        if args.length == 0 || args.length_min > args.length {
            return Err(Status::NFS4ERR_INVAL.into());
        }
        let (server, stateid) = (self.server, self.meant(&args.stateid)?);
        {
            let (shard, number, index) = server.files.live(file)?;
            shard.files.at(index).ok_or(Status::NFS4ERR_STALE)?.data()?;
            match server.files.kind_of(&stateid)? {
                Kind::Layout => {
                    server.layouts.check(&client, file, &stateid, &server.files)?;
                    if rw && !shard.may_write(index, &client) {
                        return Err(Status::NFS4ERR_OPENMODE.into());
                    }
                }
                _ => {
                    let access = if rw { WRITE } else { READ };
                    server.files.check_io(&shard, number, index, &client, &stateid, access)?;
                }
            }
        }
        // Without a callback path a layout could not be recalled.
        if !self.has_path() {
            return Err(LayoutGetFailure::TryLater(false));
        }
        let given = server.layouts.get(&client, file, rw, &server.files, &server.callbacks);
        given.map_err(|status| match status {
            Status::NFS4ERR_LAYOUTTRYLATER => LayoutGetFailure::TryLater(false),
            status => LayoutGetFailure::Other(status),
        })
    }

    fn layout_body(&self, file: Id, given: &Given, body: &mut Writer<'_>) -> Result<(), Status> {
        let handle = self.server.files.handle(file);
        let handles = [FileHandle::new(&handle).ok_or(Status::NFS4ERR_SERVERFAULT)?];
        let servers = [FlexDataServer {
            device_id: self.server.device_id(given.device),
            efficiency: 1,
            // The current one, whatever becomes of it (RFC 8881 section 8.2.2).
            stateid: Stateid4 { seqid: 0, ..given.stateid },
            handles: List::Slice(&handles),
            // A tightly coupled data server goes by the credentials of the client.
            user: b"0",
            group: b"0",
        }];
        let mirrors = [FlexMirror { data_servers: List::Slice(&servers) }];
        let mirrors = List::Slice(&mirrors[..]);
        let layout = FlexLayout { stripe_unit: 0, mirrors, flags: 0, stats_seconds: STATS_SECONDS };
        layout.encode(body).map_err(|_| Status::NFS4ERR_SERVERFAULT)
    }

    /// Whether the stateid is that of the caller's layout of the current file.
    fn check_layout(&self, stateid: &Stateid4) -> Result<(), Status> {
        let client = &self.session()?.client;
        let stateid = self.meant(stateid)?;
        self.server.layouts.check(client, self.file()?, &stateid, &self.server.files)
    }

    /// LAYOUTCOMMIT. What was written at the data server is in the file already, with its size and times.
    pub(crate) fn layout_commit(&self, args: &LayoutCommitArgs<'_>) -> Result<LayoutCommitOk, Status> {
        self.data_server(args.layout_type)?;
        if args.reclaim {
            return Err(Status::NFS4ERR_NO_GRACE);
        }
        self.check_layout(&args.stateid)?;
        Ok(LayoutCommitOk { new_size: None })
    }

    pub(crate) fn layout_return(&mut self, args: &LayoutReturnArgs<'_>) -> Result<LayoutReturnOk, Status> {
        self.data_server(args.layout_type)?;
        // Layouts are not had over a restart.
        if args.reclaim {
            return Err(Status::NFS4ERR_NO_GRACE);
        }
        let client = Arc::clone(&self.session()?.client);
        let (server, callbacks) = (self.server, &self.server.callbacks);
        match args.what {
            LayoutReturn::File { offset, length, stateid, .. } => {
                self.check_layout(&stateid)?;
                // A part of it is not given back for itself.
                let is_whole = (offset, length) == (0, u64::MAX);
                let iomode = is_whole.then_some(args.iomode);
                let left = server.layouts.give_back(&client, self.file()?, iomode, &server.files, callbacks);
                Ok(LayoutReturnOk { stateid: left })
            }
            LayoutReturn::Fsid | LayoutReturn::All => {
                if args.what == LayoutReturn::Fsid {
                    self.file()?;
                }
                server.layouts.give_back_all(&client, callbacks);
                Ok(LayoutReturnOk { stateid: None })
            }
        }
    }

    pub(crate) fn layout_error(&self, args: &LayoutErrorArgs<'_>) -> Result<(), Status> {
        self.data_server(LayoutType4::FLEX_FILES)?;
        self.check_layout(&args.stateid)?;
        self.server.layouts.count_errors(args.errors.iter().count() as u64);
        Ok(())
    }

    pub(crate) fn layout_stats(&self, args: &LayoutStatsArgs<'_>) -> Result<(), Status> {
        self.data_server(args.layout_type)?;
        self.check_layout(&args.stateid)
    }
}
