//! Seeds of pNFS on the fore channel: layouts of flexible files, and their device.

use super::fore::{CLIENT, STATEID, call, reply};
use super::{Seed, written};
use ringback_rpc::nfs4::fore::*;
use ringback_rpc::nfs4::{Bitmap4, DeviceId4, FileHandle, LayoutIomode4, LayoutType4, List, NfsTime4, Status};
use ringback_rpc::xdr::Encode;

const DEVICE: DeviceId4 = DeviceId4(*b"device no. 00001");
const FLEX: LayoutType4 = LayoutType4::FLEX_FILES;

pub(super) fn seeds(seeds: &mut Vec<Seed>) {
    devices(seeds);
    layouts(seeds);
    returns(seeds);
    reports(seeds);
}

fn devices(seeds: &mut Vec<Seed>) {
    let notify_types = Bitmap4::of(&[1, 2]);
    let args = GetDeviceInfoArgs { device_id: DEVICE, layout_type: FLEX, bytes_max: 4096, notify_types };
    call(seeds, "getdeviceinfo", &[OpArgs::GetDeviceInfo(args)]);
    let address = NetAddr4::new(b"tcp", b"192.0.2.1.8.1").expect("below the limit");
    let version = FlexVersion {
        version: 4,
        minor_version: 1,
        read_bytes_max: 1 << 20,
        write_bytes_max: 1 << 20,
        tightly_coupled: true,
    };
    let device = FlexDevice { addresses: List::Slice(&[address]), versions: List::Slice(&[version]) };
    let body = written(|w| device.encode(w));
    let ok = GetDeviceInfoOk { layout_type: FLEX, body: &body, notification: notify_types };
    reply(seeds, "getdeviceinfo", &[OpRes::GetDeviceInfo(Ok(ok))]);
    reply(seeds, "getdeviceinfo_small", &[OpRes::GetDeviceInfo(Err(GetDeviceInfoFailure::TooSmall(100)))]);
}

fn layouts(seeds: &mut Vec<Seed>) {
    let args = LayoutGetArgs {
        signal: true,
        layout_type: FLEX,
        iomode: LayoutIomode4::Rw,
        offset: 0,
        length: u64::MAX,
        length_min: 4096,
        stateid: STATEID,
        bytes_max: 4096,
    };
    call(seeds, "layoutget", &[OpArgs::LayoutGet(args)]);
    let handles = [FileHandle::new(b"filehandle").expect("below the limit")];
    let server = FlexDataServer {
        device_id: DEVICE,
        efficiency: 1,
        stateid: STATEID,
        handles: List::Slice(&handles),
        user: b"0",
        group: b"0",
    };
    let mirror = FlexMirror { data_servers: List::Slice(std::slice::from_ref(&server)) };
    let mirrors = List::Slice(std::slice::from_ref(&mirror));
    let layout = FlexLayout { stripe_unit: 0, mirrors, flags: flex_flag::NO_LAYOUTCOMMIT, stats_seconds: 60 };
    let body = written(|w| layout.encode(w));
    let layout = Layout4 { offset: 0, length: u64::MAX, iomode: LayoutIomode4::Rw, layout_type: FLEX, body: &body };
    let layouts = List::Slice(std::slice::from_ref(&layout));
    let ok = LayoutGetOk { return_on_close: true, stateid: STATEID, layouts };
    reply(seeds, "layoutget", &[OpRes::LayoutGet(Ok(ok))]);
    reply(seeds, "layoutget_later", &[OpRes::LayoutGet(Err(LayoutGetFailure::TryLater(true)))]);
    let commit = LayoutCommitArgs {
        offset: 0,
        length: u64::MAX,
        reclaim: false,
        stateid: STATEID,
        last_write_offset: Some(CLIENT.0),
        time_modify: Some(NfsTime4 { seconds: 1, nseconds: 2 }),
        layout_type: FLEX,
        body: &[],
    };
    call(seeds, "layoutcommit", &[OpArgs::LayoutCommit(commit)]);
    reply(seeds, "layoutcommit", &[OpRes::LayoutCommit(Ok(LayoutCommitOk { new_size: Some(7) }))]);
}

fn returns(seeds: &mut Vec<Seed>) {
    let file = LayoutReturn::File { offset: 0, length: u64::MAX, stateid: STATEID, body: b"four" };
    for (name, what) in [("file", file), ("fsid", LayoutReturn::Fsid), ("all", LayoutReturn::All)] {
        let args = LayoutReturnArgs { reclaim: false, layout_type: FLEX, iomode: LayoutIomode4::Any, what };
        call(seeds, &format!("layoutreturn_{name}"), &[OpArgs::LayoutReturn(args)]);
    }
    reply(seeds, "layoutreturn", &[OpRes::LayoutReturn(Ok(LayoutReturnOk { stateid: Some(STATEID) }))]);
}

fn reports(seeds: &mut Vec<Seed>) {
    let error = DeviceError4 { device_id: DEVICE, status: Status::NFS4ERR_NXIO, op: Op::READ };
    let (offset, length, stateid) = (0, u64::MAX, STATEID);
    let errors = List::Slice(std::slice::from_ref(&error));
    call(seeds, "layouterror", &[OpArgs::LayoutError(LayoutErrorArgs { offset, length, stateid, errors })]);
    let info = IoInfo4 { count: 1, bytes: 4096 };
    let stats = LayoutStatsArgs {
        offset,
        length,
        stateid,
        read: info,
        write: info,
        device_id: DEVICE,
        layout_type: FLEX,
        body: &[],
    };
    call(seeds, "layoutstats", &[OpArgs::LayoutStats(stats)]);
    reply(seeds, "layouterror", &[OpRes::LayoutError(Ok(())), OpRes::LayoutStats(Ok(()))]);
    for op in [Op::GETDEVICEINFO, Op::LAYOUTGET, Op::LAYOUTCOMMIT, Op::LAYOUTRETURN, Op::LAYOUTERROR, Op::LAYOUTSTATS] {
        reply(seeds, &format!("refused_{}", op.0), &[OpRes::Other(op, Status::NFS4ERR_NOTSUPP)]);
    }
}
