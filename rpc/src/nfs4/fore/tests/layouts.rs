//! The operations of pNFS, one value of each.

use super::Source;
use crate::nfs4::fore::*;
use crate::nfs4::{DeviceId4, LayoutIomode4, LayoutType4, List, NfsTime4, Status};

impl Source {
    fn iomode(&self) -> LayoutIomode4 {
        LayoutIomode4::ALL[self.arm % 3]
    }

    fn device(&self) -> DeviceId4 {
        DeviceId4(self.id)
    }
}

/// Calls `check` with the arguments of each of these operations.
pub(super) fn arguments(s: &Source, mut check: impl FnMut(OpArgs<'_>)) {
    let [offset, length, length_min, ..] = s.longs;
    let (stateid, device_id, iomode, body) = (s.stateid(), s.device(), s.iomode(), &s.bytes[..]);
    let layout_type = LayoutType4(s.words[1]);
    let bytes_max = s.words[2];
    check(OpArgs::GetDeviceInfo(GetDeviceInfoArgs { device_id, layout_type, bytes_max, notify_types: s.bits() }));
    check(OpArgs::LayoutGet(LayoutGetArgs {
        signal: s.flag,
        layout_type,
        iomode,
        offset,
        length,
        length_min,
        stateid,
        bytes_max,
    }));
    check(OpArgs::LayoutCommit(LayoutCommitArgs {
        offset,
        length,
        reclaim: s.flag,
        stateid,
        last_write_offset: s.flag.then_some(length_min),
        time_modify: (!s.flag).then_some(NfsTime4 { seconds: offset as i64, nseconds: bytes_max }),
        layout_type,
        body,
    }));
    let what = [LayoutReturn::File { offset, length, stateid, body }, LayoutReturn::Fsid, LayoutReturn::All];
    check(OpArgs::LayoutReturn(LayoutReturnArgs { reclaim: s.flag, layout_type, iomode, what: what[s.arm % 3] }));
    let errors = [DeviceError4 { device_id, status: Status::NFS4ERR_NXIO, op: Op::READ }; 2];
    let errors = List::Slice(&errors[..s.arm % 3]);
    check(OpArgs::LayoutError(LayoutErrorArgs { offset, length, stateid, errors }));
    let info = IoInfo4 { count: offset, bytes: length };
    let (read, write) = (info, IoInfo4 { count: length_min, bytes: offset });
    check(OpArgs::LayoutStats(LayoutStatsArgs { offset, length, stateid, read, write, device_id, layout_type, body }));
}

/// Calls `check` with results of each of these operations.
pub(super) fn results(s: &Source, mut check: impl FnMut(OpRes<'_>)) {
    let [offset, length, ..] = s.longs;
    let layout_type = LayoutType4(s.words[1]);
    let body = &s.bytes[..];
    check(OpRes::GetDeviceInfo(Ok(GetDeviceInfoOk { layout_type, body, notification: s.bits() })));
    check(OpRes::GetDeviceInfo(Err(GetDeviceInfoFailure::TooSmall(s.words[2]))));
    let layouts = [Layout4 { offset, length, iomode: s.iomode(), layout_type, body }; 2];
    let layouts = List::Slice(&layouts[..s.arm % 3]);
    check(OpRes::LayoutGet(Ok(LayoutGetOk { return_on_close: s.flag, stateid: s.stateid(), layouts })));
    check(OpRes::LayoutGet(Err(LayoutGetFailure::TryLater(s.flag))));
    check(OpRes::LayoutCommit(Ok(LayoutCommitOk { new_size: s.flag.then_some(length) })));
    check(OpRes::LayoutReturn(Ok(LayoutReturnOk { stateid: s.flag.then(|| s.stateid()) })));
    check(OpRes::LayoutError(Ok(())));
    check(OpRes::LayoutStats(Ok(())));
}
