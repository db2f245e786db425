//! What an encoder writes its decoder reads, and nothing is left over; and no bytes make a decoder panic.

mod strategies;

use proptest::prelude::*;
use ringback_rpc::nfs4::callback::{CbArgs, CbCompoundArgs, CbCompoundRes, CbRes, Notify4};
use ringback_rpc::nfs4::{
    Bitmap4, CallbackSecParms, ChangeInfo4, Fattr, FileHandle, NfsTime4, OpenDelegation4, StateOwner4, Stateid4, Status,
};
use ringback_rpc::xdr::{Decode, Encode, Reader, Writer};

fn encoded(value: &impl Encode) -> Vec<u8> {
    let mut space = vec![0; 16 * 1024];
    let mut w = Writer::new(&mut space);
    value.encode(&mut w).expect("there is space enough");
    w.written().to_vec()
}

/// One test for each type: a value comes back whole; a buffer or an input that is one byte too short is an error; and
/// any bytes are refused or taken, and what was taken is written and read again as the same value.
macro_rules! round_trips {
    ($($test:ident: $ty:ident from $strategy:expr;)*) => {$(
        mod $test {
            use super::*;

            fn survives(bytes: &[u8]) {
                if let Ok(value) = $ty::decode(&mut Reader::new(bytes)) {
                    let again = encoded(&value);
                    assert_eq!($ty::decode(&mut Reader::new(&again)), Ok(value));
                }
            }

            proptest! {
                #[test]
                fn comes_back(value in $strategy) {
                    let bytes = encoded(&value);
                    prop_assert_eq!(bytes.len() % 4, 0);
                    let mut r = Reader::new(&bytes);
                    prop_assert_eq!($ty::decode(&mut r), Ok(value));
                    prop_assert_eq!(r.finish("value"), Ok(()));
                    prop_assert!($ty::decode(&mut Reader::new(&bytes[..bytes.len() - 1])).is_err());
                    let mut space = vec![0; bytes.len() - 1];
                    prop_assert!(value.encode(&mut Writer::new(&mut space)).is_err());
                }

                #[test]
                fn takes_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
                    survives(&bytes);
                }

                #[test]
                fn takes_damaged_bytes(
                    value in $strategy,
                    at: prop::sample::Index,
                    damage in prop_oneof![any::<[u8; 4]>(), Just([0; 4]), Just([0xff; 4]), Just([0, 0, 0, 1])],
                ) {
                    let mut bytes = encoded(&value);
                    let word = at.index(bytes.len() / 4) * 4;
                    bytes[word..word + 4].copy_from_slice(&damage);
                    survives(&bytes);
                }
            }
        }
    )*};
}

fn args_header() -> impl Strategy<Value = CbCompoundArgs<'static>> {
    (strategies::bytes(40), any::<(u32, u32)>()).prop_map(|(tag, (minor_version, callback_ident))| CbCompoundArgs {
        tag,
        minor_version,
        callback_ident,
        count: 0,
    })
}

fn res_header() -> impl Strategy<Value = CbCompoundRes<'static>> {
    (strategies::status(), strategies::bytes(40)).prop_map(|(status, tag)| CbCompoundRes { status, tag, count: 0 })
}

round_trips! {
    status: Status from strategies::status();
    bitmap: Bitmap4 from strategies::bitmap();
    stateid: Stateid4 from strategies::stateid();
    filehandle: FileHandle from strategies::filehandle();
    state_owner: StateOwner4 from strategies::state_owner();
    attributes: Fattr from strategies::attributes();
    time: NfsTime4 from strategies::time();
    change_info: ChangeInfo4 from strategies::change_info();
    delegation: OpenDelegation4 from strategies::delegation();
    sec_parms: CallbackSecParms from strategies::sec_parms();
    compound_args: CbCompoundArgs from args_header();
    compound_res: CbCompoundRes from res_header();
    args: CbArgs from strategies::cb_args();
    results: CbRes from strategies::cb_res();
}

proptest! {
    #[test]
    fn a_whole_compound_comes_back(
        header in args_header(),
        operations in prop::collection::vec(strategies::cb_args(), 0..5),
        results in prop::collection::vec(strategies::cb_res(), 0..5),
        status in strategies::status(),
    ) {
        let header = CbCompoundArgs { count: operations.len() as u32, ..header };
        let mut bytes = encoded(&header);
        operations.iter().for_each(|args| bytes.extend(encoded(args)));
        let mut r = Reader::new(&bytes);
        prop_assert_eq!(CbCompoundArgs::decode(&mut r), Ok(header));
        for args in &operations {
            prop_assert_eq!(CbArgs::decode(&mut r), Ok(*args));
        }
        prop_assert_eq!(r.finish("call"), Ok(()));

        let header = CbCompoundRes { status, tag: header.tag, count: results.len() as u32 };
        let mut bytes = encoded(&header);
        results.iter().for_each(|res| bytes.extend(encoded(res)));
        let mut r = Reader::new(&bytes);
        prop_assert_eq!(CbCompoundRes::decode(&mut r), Ok(header));
        for res in &results {
            prop_assert_eq!(CbRes::decode(&mut r), Ok(*res));
        }
        prop_assert_eq!(r.finish("reply"), Ok(()));
    }

    #[test]
    fn notifications_come_back_in_the_order_of_their_bits(
        mut changes in prop::collection::vec(strategies::notification(), 0..6),
    ) {
        changes.sort_by_key(|change| change.bit());
        changes.dedup_by_key(|change| change.bit());
        let mask = changes.iter().fold(Bitmap4::EMPTY, |mask, change| mask.with(change.bit()));
        let mut values: Vec<u8> = changes.iter().flat_map(encoded).collect();
        let read: Result<Vec<_>, _> = Notify4 { mask, values: &values }.notifications().collect();
        prop_assert_eq!(read, Ok(changes.clone()));
        values.extend([0; 4]);
        let read: Vec<_> = Notify4 { mask, values: &values }.notifications().collect();
        prop_assert_eq!(read.len(), changes.len() + 1, "the error about what is left over comes once, at the end");
        prop_assert!(read.last().is_some_and(|last| last.is_err()));
    }

    #[test]
    fn device_notifications_come_back(change in strategies::device_notification()) {
        let values = encoded(&change);
        let notify = Notify4 { mask: Bitmap4::of(&[change.bit()]), values: &values };
        prop_assert_eq!(notify.device_notifications().collect::<Vec<_>>(), [Ok(change)]);
    }

    #[test]
    fn no_notification_panics(mask in strategies::bitmap(), values in prop::collection::vec(any::<u8>(), 0..100)) {
        let notify = Notify4 { mask, values: &values };
        prop_assert!(notify.notifications().count() <= 7);
        prop_assert!(notify.device_notifications().count() <= 3);
    }
}

#[test]
fn a_failure_that_says_ok_is_not_encoded() {
    let mut space = [0; 64];
    let mut w = Writer::new(&mut space);
    assert!(CbRes::Getattr(Err(Status::NFS4_OK)).encode(&mut w).is_err());
    assert!(CbRes::Sequence(Err(Status::NFS4_OK)).encode(&mut w).is_err());
}

#[test]
fn a_count_that_the_bytes_cannot_hold_is_refused_at_once() {
    // A device notification of a billion changes in eight bytes.
    let bytes = [0, 0, 0, 14, 0x40, 0, 0, 0, 0, 0, 0, 0];
    let error = CbArgs::decode(&mut Reader::new(&bytes)).unwrap_err();
    assert_eq!(error.to_string(), "cnda_changes at offset 8: needs 4294967296 bytes, 4 are left");
}
