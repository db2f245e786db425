//! Layouts of flexible files: given, used at the data server, recalled, returned; and what clients are told of the device.

use super::*;
use ringback_rpc::nfs4::callback::{CbLayoutRecallArgs, CbNotifyDeviceIdArgs, DeviceNotification, LayoutRecall};

fn world() -> World {
    World::with(Config {
        layouts: Some("10.77.0.1:2049".parse().unwrap()),
        write_delegations: true,
        ..Config::default()
    })
}

/// A layout as a client has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Got {
    stateid: Stateid4,
    iomode: LayoutIomode4,
    /// What READ and WRITE carry.
    at_data_server: Stateid4,
    device: DeviceId4,
}

fn layout_get_args(stateid: Stateid4, iomode: LayoutIomode4) -> LayoutGetArgs {
    LayoutGetArgs {
        signal: false,
        layout_type: LayoutType4::FLEX_FILES,
        iomode,
        offset: 0,
        length: u64::MAX,
        length_min: 4096,
        stateid,
        bytes_max: 4096,
    }
}

impl Peer<'_> {
    fn layout_get(&mut self, handle: &[u8], args: LayoutGetArgs) -> Result<Got, Status> {
        let reply = self.call(&[Self::put_fh(handle), OpArgs::LayoutGet(args)]);
        let OpRes::LayoutGet(Ok(ok)) = reply.last() else { return Err(reply.status()) };
        let layouts: Vec<_> = ok.layouts.iter().collect();
        let [layout] = layouts[..] else { panic!("{layouts:?}") };
        assert_eq!((layout.offset, layout.length, layout.layout_type), (0, u64::MAX, LayoutType4::FLEX_FILES));
        let mut r = Reader::new(layout.body);
        let body = FlexLayout::decode(&mut r).unwrap();
        r.finish("a layout").unwrap();
        let server = body.mirrors.iter().next().unwrap().data_servers.iter().next().unwrap();
        assert_eq!(server.handles.iter().next().unwrap().as_bytes(), handle);
        Ok(Got { stateid: ok.stateid, iomode: layout.iomode, at_data_server: server.stateid, device: server.device_id })
    }

    fn layout(&mut self, handle: &[u8], stateid: Stateid4, iomode: LayoutIomode4) -> Got {
        self.layout_get(handle, layout_get_args(stateid, iomode)).unwrap()
    }

    fn layout_return(&mut self, handle: &[u8], what: LayoutReturn<'_>) -> Status {
        let (layout_type, iomode) = (LayoutType4::FLEX_FILES, LayoutIomode4::Any);
        let args = LayoutReturnArgs { reclaim: false, layout_type, iomode, what };
        self.call(&[Self::put_fh(handle), OpArgs::LayoutReturn(args)]).status()
    }

    fn return_file(&mut self, handle: &[u8], stateid: Stateid4) -> Status {
        self.layout_return(handle, LayoutReturn::File { offset: 0, length: u64::MAX, stateid, body: &[] })
    }

    fn write_at(&mut self, handle: &[u8], stateid: Stateid4, data: &[u8]) -> Status {
        let args = WriteArgs { stateid, offset: 0, stable: StableHow4::Unstable, data };
        self.call(&[Self::put_fh(handle), OpArgs::Write(args)]).status()
    }

    fn read_at(&mut self, handle: &[u8], stateid: Stateid4) -> Result<Vec<u8>, Status> {
        let args = ReadArgs { stateid, offset: 0, count: 100 };
        match self.call(&[Self::put_fh(handle), OpArgs::Read(args)]).last() {
            OpRes::Read(Ok(ok)) => Ok(ok.data.to_vec()),
            other => Err(other.status()),
        }
    }

    fn device_info(
        &mut self,
        device_id: DeviceId4,
        bytes_max: u32,
    ) -> Result<(Vec<u8>, Bitmap4), GetDeviceInfoFailure> {
        let (layout_type, notify_types) = (LayoutType4::FLEX_FILES, Bitmap4::of(&[1, 2, 3]));
        let args = GetDeviceInfoArgs { device_id, layout_type, bytes_max, notify_types };
        match self.call(&[OpArgs::GetDeviceInfo(args)]).last() {
            OpRes::GetDeviceInfo(res) => res.map(|ok| (ok.body.to_vec(), ok.notification)),
            other => Err(other.status().into()),
        }
    }

    fn cut(&mut self, handle: &[u8]) -> Status {
        let attributes = Fattr { mask: Bitmap4::of(&[attr::SIZE]), values: &[0; 8] };
        let args = SetAttrArgs { stateid: Stateid4::ANONYMOUS, attributes };
        self.call(&[Self::put_fh(handle), OpArgs::SetAttr(args)]).status()
    }

    /// The next CB_LAYOUTRECALL, answered: whether it was of a file, and then the stateid.
    fn layout_recalled(&self, status: Status) -> Option<(Vec<u8>, Stateid4)> {
        let record = self.callbacks.recv_timeout(PATIENCE).unwrap();
        let (header, sequence, args) = parse_call(&record[4..]);
        let CbArgs::LayoutRecall(CbLayoutRecallArgs { layout_type, iomode, changed, recall }) = args else {
            panic!("no CB_LAYOUTRECALL: {args:?}")
        };
        assert_eq!((layout_type, iomode, changed), (LayoutType4::FLEX_FILES, LayoutIomode4::Any, false));
        self.answer_call(&header, sequence, &CbRes::LayoutRecall(status));
        match recall {
            LayoutRecall::File { fh, offset: 0, length: u64::MAX, stateid } => Some((fh.as_bytes().to_vec(), stateid)),
            LayoutRecall::Fsid(_) | LayoutRecall::All => None,
            other => panic!("{other:?}"),
        }
    }

    /// The next CB_NOTIFY_DEVICEID, answered.
    fn device_told(&self) -> DeviceNotification {
        let record = self.callbacks.recv_timeout(PATIENCE).unwrap();
        let (header, sequence, args) = parse_call(&record[4..]);
        let CbArgs::NotifyDeviceId(CbNotifyDeviceIdArgs { changes }) = args else { panic!("{args:?}") };
        let told = changes.iter().next().unwrap().device_notifications().next().unwrap().unwrap();
        self.answer_call(&header, sequence, &CbRes::NotifyDeviceId(Status::NFS4_OK));
        told
    }
}

#[test]
fn whoever_has_no_layouts_has_none() {
    let world = World::new();
    let mut a = world.client("a");
    let open = a.open("file", share_access::BOTH);
    assert_eq!(a.exchange_id(0).unwrap().2 & exchange_id_flag::USE_PNFS_MDS, 0);
    let args = layout_get_args(open.open().stateid, LayoutIomode4::Rw);
    assert_eq!(a.layout_get(&open.handle(), args), Err(Status::NFS4ERR_NOTSUPP));
    assert_eq!(a.device_info(DeviceId4([0; 16]), 4096), Err(Status::NFS4ERR_NOTSUPP.into()));
}

#[test]
fn a_layout_is_used_at_the_data_server_until_it_is_returned() {
    let world = world();
    let mut a = world.client("a");
    let flags = a.exchange_id(0).unwrap().2;
    let both = exchange_id_flag::USE_PNFS_MDS | exchange_id_flag::USE_PNFS_DS;
    assert_eq!(flags & (both | exchange_id_flag::USE_NON_PNFS), both);
    let open = a.open("file", share_access::BOTH);
    let (handle, stateid) = (open.handle(), open.open().stateid);
    let read = a.layout(&handle, stateid, LayoutIomode4::Read);
    assert_eq!((read.iomode, read.stateid.seqid, read.at_data_server.seqid), (LayoutIomode4::Read, 1, 0));
    assert_eq!(a.write_at(&handle, read.at_data_server, b"x"), Status::NFS4ERR_OPENMODE);
    let rw = a.layout(&handle, read.stateid, LayoutIomode4::Rw);
    assert_eq!((rw.iomode, rw.stateid.seqid), (LayoutIomode4::Rw, 2));
    assert_eq!(rw.at_data_server, read.at_data_server);
    // At the data server the client has another client id, and what it does is done for the one that has the layout: its
    // own delegation is not in its way.
    let mut b = world.client("a at the data server");
    assert_eq!(b.write_at(&handle, rw.at_data_server, b"content"), Status::NFS4_OK);
    assert_eq!(b.read_at(&handle, rw.at_data_server), Ok(b"content".to_vec()));
    assert_eq!(a.read_at(&handle, stateid), Ok(b"content".to_vec()));
    let elsewhere = a.open("elsewhere", share_access::BOTH).handle();
    assert_eq!(b.read_at(&elsewhere, rw.at_data_server), Err(Status::NFS4ERR_BAD_STATEID), "of another file");
    let commit = LayoutCommitArgs {
        offset: 0,
        length: 7,
        reclaim: false,
        stateid: rw.stateid,
        last_write_offset: Some(6),
        time_modify: None,
        layout_type: LayoutType4::FLEX_FILES,
        body: &[],
    };
    let commit_of = |commit| OpArgs::LayoutCommit(commit);
    assert_eq!(a.call(&[Peer::put_fh(&handle), commit_of(commit)]).status(), Status::NFS4_OK);
    let reclaim = LayoutCommitArgs { reclaim: true, ..commit };
    assert_eq!(a.call(&[Peer::put_fh(&handle), commit_of(reclaim)]).status(), Status::NFS4ERR_NO_GRACE);
    a.minor_version = 2;
    let error = DeviceError4 { device_id: rw.device, status: Status::NFS4ERR_NXIO, op: Op::WRITE };
    let (offset, length) = (0, u64::MAX);
    let errors = List::Slice(std::slice::from_ref(&error));
    let failed = OpArgs::LayoutError(LayoutErrorArgs { offset, length, stateid: rw.stateid, errors });
    assert_eq!(a.call(&[Peer::put_fh(&handle), failed]).status(), Status::NFS4_OK);
    assert_eq!(world.inner().layouts.counts(), (1, 0, 1));
    let info = IoInfo4 { count: 1, bytes: 7 };
    let (device_id, layout_type) = (rw.device, LayoutType4::FLEX_FILES);
    let stats = LayoutStatsArgs {
        offset,
        length,
        stateid: rw.stateid,
        read: info,
        write: info,
        device_id,
        layout_type,
        body: &[],
    };
    assert_eq!(a.call(&[Peer::put_fh(&handle), OpArgs::LayoutStats(stats)]).status(), Status::NFS4_OK);
    a.minor_version = 1;
    let future = Stateid4 { seqid: rw.stateid.seqid + 1, ..rw.stateid };
    assert_eq!(a.return_file(&handle, future), Status::NFS4ERR_BAD_STATEID);
    assert_eq!(b.return_file(&handle, rw.stateid), Status::NFS4ERR_BAD_STATEID, "another's");
    for (length, iomode) in [(4096, LayoutIomode4::Any), (u64::MAX, LayoutIomode4::Read)] {
        let what = LayoutReturn::File { offset: 0, length, stateid: rw.stateid, body: &[] };
        let (layout_type, reclaim) = (LayoutType4::FLEX_FILES, false);
        let part = OpArgs::LayoutReturn(LayoutReturnArgs { reclaim, layout_type, iomode, what });
        let reply = a.call(&[Peer::put_fh(&handle), part]);
        let OpRes::LayoutReturn(Ok(LayoutReturnOk { stateid: Some(left) })) = reply.last() else {
            panic!("all is gone")
        };
        assert!(left.seqid > rw.stateid.seqid && left.other == rw.stateid.other);
    }
    assert_eq!(a.return_file(&handle, rw.stateid), Status::NFS4_OK);
    assert_eq!(b.write_at(&handle, rw.at_data_server, b"late"), Status::NFS4ERR_BAD_STATEID);
    assert_eq!(world.inner().layouts.counts(), (0, 0, 1));
    assert_eq!(world.server.runtime().stats().started, 0, "nobody was called back");
}

#[test]
fn what_cannot_be_given_is_refused() {
    let world = world();
    let (mut a, mut b) = (world.client("a"), world.client("b"));
    let open = a.open("file", share_access::READ | share_access::WANT_NO_DELEG);
    let (handle, stateid) = (open.handle(), open.open().stateid);
    let good = layout_get_args(stateid, LayoutIomode4::Read);
    let cases = [
        (LayoutGetArgs { layout_type: LayoutType4::BLOCK_VOLUME, ..good }, Status::NFS4ERR_UNKNOWN_LAYOUTTYPE),
        (LayoutGetArgs { iomode: LayoutIomode4::Any, ..good }, Status::NFS4ERR_BADIOMODE),
        (LayoutGetArgs { iomode: LayoutIomode4::Rw, ..good }, Status::NFS4ERR_OPENMODE),
        (LayoutGetArgs { length: 0, length_min: 0, ..good }, Status::NFS4ERR_INVAL),
        (LayoutGetArgs { length: 10, length_min: 11, ..good }, Status::NFS4ERR_INVAL),
        (LayoutGetArgs { bytes_max: 20, ..good }, Status::NFS4ERR_TOOSMALL),
    ];
    for (args, status) in cases {
        assert_eq!(a.layout_get(&handle, args), Err(status), "{args:?}");
    }
    assert_eq!(b.layout_get(&handle, good), Err(Status::NFS4ERR_BAD_STATEID), "another's");
    let got = a.layout(&handle, stateid, LayoutIomode4::Read);
    let more = layout_get_args(got.stateid, LayoutIomode4::Rw);
    assert_eq!(a.layout_get(&handle, more), Err(Status::NFS4ERR_OPENMODE), "it is open for reading");
    let root = a.call(&[OpArgs::PutRootFh, OpArgs::LayoutGet(good)]);
    assert_eq!(root.status(), Status::NFS4ERR_ISDIR);
    let request = Bitmap4::of(&[attr::FS_LAYOUT_TYPES]);
    let reply = a.call(&[OpArgs::PutRootFh, OpArgs::GetAttr(GetAttrArgs { request })]);
    let OpRes::GetAttr(Ok(ok)) = reply.last() else { panic!("{:?}", reply.last()) };
    assert_eq!(ok.attributes.values, [0, 0, 0, 1, 0, 0, 0, 4]);
}

#[test]
fn who_cuts_a_file_waits_for_its_layouts() {
    let world = world();
    let (mut a, mut b) = (world.client("a"), world.client("b"));
    let open = a.open("file", share_access::BOTH | share_access::WANT_NO_DELEG);
    let (handle, stateid) = (open.handle(), open.open().stateid);
    let got = a.layout(&handle, stateid, LayoutIomode4::Rw);
    assert_eq!(a.cut(&handle), Status::NFS4_OK, "its own is in nobody's way");
    assert_eq!(b.cut(&handle), Status::NFS4ERR_DELAY);
    let (recalled, seqid) = a.layout_recalled(Status::NFS4_OK).unwrap();
    assert_eq!((recalled, seqid), (handle.clone(), Stateid4 { seqid: got.stateid.seqid + 1, ..got.stateid }));
    let again = a.layout_get(&handle, layout_get_args(got.stateid, LayoutIomode4::Rw));
    assert_eq!(again, Err(Status::NFS4ERR_RECALLCONFLICT));
    assert_eq!(a.return_file(&handle, seqid), Status::NFS4_OK);
    let truncate = Fattr { mask: Bitmap4::of(&[attr::SIZE]), values: &[0; 8] };
    let args = b.open_args(b"file", share_access::BOTH, true);
    let args = OpenArgs { how: OpenHow::Unchecked(truncate), ..args };
    a.layout(&handle, stateid, LayoutIomode4::Rw);
    assert_eq!(b.open_with(args).status(), Status::NFS4ERR_DELAY, "an OPEN that cuts it does, too");
    let (_, seqid) = a.layout_recalled(Status::NFS4_OK).unwrap();
    assert_eq!(a.return_file(&handle, seqid), Status::NFS4_OK);
    assert_eq!(b.open_with(args).status(), Status::NFS4_OK);
    world.until("nothing is left", || world.inner().layouts.counts() == (0, 0, 0));
}

#[test]
fn all_layouts_are_recalled_by_hand() {
    let world = world();
    let (mut a, mut b) = (world.client("a"), world.client("b"));
    let opens: Vec<Reply> =
        ["one", "two"].map(|name| a.open(name, share_access::BOTH | share_access::WANT_NO_DELEG)).into();
    let of = |n: usize| (opens[n].handle(), opens[n].open().stateid);
    let started = |request| match world.server.answer(&request) {
        crate::admin::Reply::Started(count) => count,
        other => panic!("{other:?}"),
    };
    use crate::admin::Request;
    assert_eq!(started(Request::LayoutRecallAll), 0);
    let (handle, stateid) = of(0);
    let got = a.layout(&handle, stateid, LayoutIomode4::Rw);
    assert_eq!(started(Request::LayoutRecallFile("/one".to_owned())), 1);
    assert_eq!(a.layout_recalled(Status::NFS4_OK).unwrap().0, handle);
    assert_eq!(a.return_file(&handle, got.stateid), Status::NFS4_OK);
    for request in [Request::LayoutRecallFsid, Request::LayoutRecallAll] {
        for n in [0, 1] {
            let (handle, stateid) = of(n);
            a.layout(&handle, stateid, LayoutIomode4::Rw);
        }
        let open = b.open("other", share_access::READ);
        b.layout(&open.handle(), open.open().stateid, LayoutIomode4::Read);
        assert_eq!(started(request.clone()), 2);
        assert_eq!(a.layout_recalled(Status::NFS4_OK), None);
        // One that has no layouts, as far as it knows, is believed.
        assert_eq!(b.layout_recalled(Status::NFS4ERR_NOMATCHING_LAYOUT), None);
        let (handle, stateid) = of(0);
        let more = a.layout_get(&handle, layout_get_args(stateid, LayoutIomode4::Rw));
        assert_eq!(more, Err(Status::NFS4ERR_RECALLCONFLICT));
        let what = if request == Request::LayoutRecallFsid { LayoutReturn::Fsid } else { LayoutReturn::All };
        assert_eq!(a.layout_return(&handle, what), Status::NFS4_OK);
        world.until("nothing is left", || world.inner().layouts.counts() == (0, 0, 0));
    }
}

#[test]
fn a_layout_that_is_not_returned_is_taken_away() {
    let world = World::with(Config {
        layouts: Some("10.77.0.1:2049".parse().unwrap()),
        lease: Duration::from_secs(1),
        ..Config::default()
    });
    let (mut a, mut b) = (world.client("a"), world.client("b"));
    let open = a.open("file", share_access::BOTH | share_access::WANT_NO_DELEG);
    let (handle, stateid) = (open.handle(), open.open().stateid);
    let got = a.layout(&handle, stateid, LayoutIomode4::Rw);
    assert_eq!(b.cut(&handle), Status::NFS4ERR_DELAY);
    a.layout_recalled(Status::NFS4_OK).unwrap();
    world.until("it is taken away", || world.inner().layouts.counts().0 == 0);
    assert_eq!(a.write_at(&handle, got.at_data_server, b"late"), Status::NFS4ERR_BAD_STATEID, "it is fenced off");
    assert_eq!(b.cut(&handle), Status::NFS4_OK);
    let got = a.layout(&handle, stateid, LayoutIomode4::Rw);
    world.server.answer(&crate::admin::Request::LayoutRecallAll);
    assert_eq!(a.layout_recalled(Status::NFS4_OK), None);
    world.until("all are taken away", || world.inner().layouts.counts() == (0, 0, 0));
    assert_eq!(a.write_at(&handle, got.at_data_server, b"late"), Status::NFS4ERR_BAD_STATEID);
}

#[test]
fn clients_are_told_of_their_device() {
    let world = world();
    let (mut a, mut b) = (world.client("a"), world.client("b"));
    let open = a.open("file", share_access::BOTH | share_access::WANT_NO_DELEG);
    let (handle, stateid) = (open.handle(), open.open().stateid);
    let got = a.layout(&handle, stateid, LayoutIomode4::Rw);
    let (body, notification) = a.device_info(got.device, 4096).unwrap();
    assert_eq!(notification, Bitmap4::of(&[1, 2]), "what there is of what was asked for");
    let device = FlexDevice::decode(&mut Reader::new(&body)).unwrap();
    let address = device.addresses.iter().next().unwrap();
    assert_eq!((address.netid(), address.address()), (&b"tcp"[..], &b"10.77.0.1.8.1"[..]));
    assert!(device.versions.iter().all(|v| v.tightly_coupled && (v.version, v.minor_version) == (4, 1)));
    assert_eq!(a.device_info(got.device, 0).unwrap().0, b"", "only to be told");
    let small = a.device_info(got.device, 10).unwrap_err();
    assert!(matches!(small, GetDeviceInfoFailure::TooSmall(bytes) if bytes > 10), "{small:?}");
    let unknown = DeviceId4([7; 16]);
    assert_eq!(a.device_info(unknown, 4096), Err(Status::NFS4ERR_NOENT.into()));
    b.device_info(got.device, 4096).unwrap();
    use crate::admin::{Reply, Request};
    assert_eq!(world.server.answer(&Request::DeviceChanged), Reply::Started(2));
    for peer in [&a, &b] {
        let DeviceNotification::Change(change) = peer.device_told() else { panic!("not changed") };
        assert!(change.immediate && change.device_id == got.device);
    }
    // Who has a layout that names it hears of that when it is back.
    assert_eq!(world.server.answer(&Request::DeviceDeleted), Reply::Started(2));
    let DeviceNotification::Delete(gone) = b.device_told() else { panic!("not deleted") };
    assert_eq!(gone.device_id, got.device);
    assert_eq!(a.layout_recalled(Status::NFS4_OK), None);
    assert!(a.callbacks.recv_timeout(Duration::from_millis(50)).is_err(), "not yet");
    assert_eq!(a.return_file(&handle, got.stateid), Status::NFS4_OK);
    assert_eq!(a.device_told(), DeviceNotification::Delete(gone));
    assert_eq!(a.device_info(got.device, 4096), Err(Status::NFS4ERR_NOENT.into()));
    world.until("all is said", || world.inner().layouts.counts() == (0, 0, 0));
    let next = a.layout(&handle, stateid, LayoutIomode4::Rw);
    assert_ne!(next.device, got.device);
    assert!(a.device_info(next.device, 4096).is_ok());
}

#[test]
fn a_client_that_goes_takes_its_layouts_along() {
    let world = world();
    let mut a = world.client("a");
    let open = a.open("file", share_access::BOTH | share_access::WANT_NO_DELEG);
    let got = a.layout(&open.handle(), open.open().stateid, LayoutIomode4::Rw);
    a.device_info(got.device, 4096).unwrap();
    assert_eq!(a.close(open.open().stateid, &open.handle()), Status::NFS4_OK);
    let session = OpArgs::DestroySession(DestroySessionArgs { session_id: a.session });
    assert_eq!(a.bare(&[session]).status(), Status::NFS4_OK);
    let destroy = OpArgs::DestroyClientId(DestroyClientIdArgs { client_id: a.client_id });
    assert_eq!(a.bare(&[destroy]).status(), Status::NFS4ERR_CLIENTID_BUSY);
    world.inner().drop_client(&mut world.inner().clients(), a.client_id.0).unwrap();
    assert_eq!(world.inner().layouts.counts(), (0, 0, 0));
    assert_eq!(world.server.answer(&crate::admin::Request::DeviceChanged), crate::admin::Reply::Started(0));
}
