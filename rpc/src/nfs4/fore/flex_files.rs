//! What layouts and devices of the type "flexible files" say (RFC 8435 sections 4.1 and 5.1). It is the opaque body of what
//! `layout.rs` has.

use super::NetAddr4;
use crate::nfs4::wire::wire_struct;
use crate::nfs4::{DeviceId4, FileHandle, List, Stateid4};

wire_struct! {
    /// A version that a data server speaks, and how (`ff_device_versions4`).
    pub struct FlexVersion {
        /// Of NFS.
        pub version: u32 = "ffdv_version",
        /// The minor version.
        pub minor_version: u32 = "ffdv_minorversion",
        /// Most bytes of a READ.
        pub read_bytes_max: u32 = "ffdv_rsize",
        /// Most bytes of a WRITE.
        pub write_bytes_max: u32 = "ffdv_wsize",
        /// The metadata server tells the data server what clients may do there.
        pub tightly_coupled: bool = "ffdv_tightly_coupled",
    }
}

wire_struct! {
    /// A data server (`ff_device_addr4`).
    pub struct FlexDevice<'a> {
        /// Where it is; any of these will do.
        pub addresses: List<'a, NetAddr4<'a>> = "ffda_netaddrs",
        /// What it speaks.
        pub versions: List<'a, FlexVersion> = "ffda_versions",
    }
}

wire_struct! {
    /// Where a copy of a file is (`ff_data_server4`).
    pub struct FlexDataServer<'a> {
        /// On which device.
        pub device_id: DeviceId4 = "ffds_deviceid",
        /// How good it is; larger is better.
        pub efficiency: u32 = "ffds_efficiency",
        /// What reads and writes there carry.
        pub stateid: Stateid4 = "ffds_stateid",
        /// What the file is there, for each version of the device.
        pub handles: List<'a, FileHandle<'a>> = "ffds_fh_vers",
        /// As which user.
        pub user: &'a [u8] = "ffds_user",
        /// In which group.
        pub group: &'a [u8] = "ffds_group",
    }
}

wire_struct! {
    /// Copies of which each is on one data server, or on several in stripes (`ff_mirror4`).
    pub struct FlexMirror<'a> {
        /// The data servers.
        pub data_servers: List<'a, FlexDataServer<'a>> = "ffm_data_servers",
    }
}

wire_struct! {
    /// A layout (`ff_layout4`).
    pub struct FlexLayout<'a> {
        /// Bytes of a stripe; zero: there are no stripes.
        pub stripe_unit: u64 = "ffl_stripe_unit",
        /// The copies.
        pub mirrors: List<'a, FlexMirror<'a>> = "ffl_mirrors",
        /// See [`flex_flag`].
        pub flags: u32 = "ffl_flags_flags",
        /// How often the client is to send LAYOUTSTATS, in seconds; zero: as it likes.
        pub stats_seconds: u32 = "ffl_stats_collect_hint",
    }
}

/// Bits of [`FlexLayout::flags`].
pub mod flex_flag {
    /// FF_FLAGS_NO_LAYOUTCOMMIT.
    pub const NO_LAYOUTCOMMIT: u32 = 1;
    /// FF_FLAGS_NO_IO_THRU_MDS.
    pub const NO_IO_THRU_MDS: u32 = 2;
    /// FF_FLAGS_NO_READ_IO.
    pub const NO_READ_IO: u32 = 4;
    /// FF_FLAGS_WRITE_ONE_MIRROR.
    pub const WRITE_ONE_MIRROR: u32 = 8;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xdr::{Decode, Encode, Reader, Writer};

    #[test]
    fn devices_and_layouts_come_back_as_they_were() {
        let address = NetAddr4::new(b"tcp", b"10.77.0.1.8.1").unwrap();
        let version = FlexVersion {
            version: 4,
            minor_version: 1,
            read_bytes_max: 4096,
            write_bytes_max: 8192,
            tightly_coupled: true,
        };
        let (addresses, versions) = ([address], [version, FlexVersion { minor_version: 2, ..version }]);
        let device = FlexDevice { addresses: List::Slice(&addresses), versions: List::Slice(&versions) };
        let handles = [FileHandle::new(b"handle").unwrap()];
        let server = FlexDataServer {
            device_id: DeviceId4([7; 16]),
            efficiency: 1,
            stateid: Stateid4 { seqid: 0, other: [9; 12] },
            handles: List::Slice(&handles),
            user: b"0",
            group: b"0",
        };
        let servers = [server];
        let mirrors = [FlexMirror { data_servers: List::Slice(&servers) }];
        let layout = FlexLayout {
            stripe_unit: 0,
            mirrors: List::Slice(&mirrors),
            flags: flex_flag::NO_LAYOUTCOMMIT,
            stats_seconds: 60,
        };
        let mut space = [0; 512];
        let mut w = Writer::new(&mut space);
        device.encode(&mut w).unwrap();
        let at = w.position();
        layout.encode(&mut w).unwrap();
        // As the RFC has it: one address, of a netid and a universal address.
        assert_eq!(w.written()[..12], [0, 0, 0, 1, 0, 0, 0, 3, b't', b'c', b'p', 0]);
        let mut r = Reader::new(w.written());
        assert_eq!(FlexDevice::decode(&mut r), Ok(device));
        assert_eq!(FlexLayout::decode(&mut r), Ok(layout));
        r.finish("end").unwrap();
        for len in 0..at {
            assert!(FlexDevice::decode(&mut Reader::new(&w.written()[..len])).is_err());
        }
        for len in at..w.position() {
            assert!(FlexLayout::decode(&mut Reader::new(&w.written()[at..len])).is_err());
        }
    }
}
