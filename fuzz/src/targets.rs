//! What the fuzzers run, one function for each decoder that reads what a peer sends.
//!
//! A target decodes its bytes; whatever decodes is encoded, never longer than it was, and decoded again as the same
//! value. Each returns how many values it decoded, so that a test can tell a seed that reaches the decoders from one
//! that does not. A finding is a panic.

use crate::sim::Options;
use ringback::Checkpoint;
use ringback::simulator::{is_stable, mend_checkpoint};
use ringback_rpc::message::{self, AuthSys, CallHeader, ReplyHeader};
use ringback_rpc::nfs4::callback::{CbArgs, CbCompoundArgs, CbCompoundRes, CbRes, Notify4};
use ringback_rpc::nfs4::fore::{CompoundArgs, CompoundRes, NetAddr4, OpArgs, OpRes};
use ringback_rpc::nfs4::{Bitmap4, UniversalAddress};
use ringback_rpc::record::{self, RecordError, RecordReader};
use ringback_rpc::xdr::{Decode, Encode, Reader, Writer};

/// A target: takes any bytes, panics on a finding, returns how many values it decoded.
pub type Target = fn(&[u8]) -> usize;

/// Every target by the name of its corpus.
pub const ALL: &[(&str, Target)] = &[
    ("record", record),
    ("rpc_header", rpc_header),
    ("callback_args", callback_args),
    ("callback_results", callback_results),
    ("fore", fore),
    ("server", crate::server::server),
    ("backchannel", crate::backchannel::backchannel),
    ("simulator", simulator),
    ("checkpoint", checkpoint),
];

/// Longest record that [`record()`] allows: short, so that the limit is met often.
const RECORD_BYTES_MAX: usize = 1000;

/// Encodes `value`, which was decoded from `read` bytes.
fn encoded(value: &impl Encode, read: usize) -> Vec<u8> {
    let mut space = vec![0; read];
    let mut w = Writer::new(&mut space);
    value.encode(&mut w).expect("the encoding is not longer than what was decoded");
    w.written().to_vec()
}

/// Decodes one value, and if that works encodes it and decodes it again.
macro_rules! round {
    ($ty:ident, $reader:expr) => {{
        let r: &mut Reader<'_> = $reader;
        let start = r.offset();
        let value = <$ty as Decode>::decode(r).ok();
        if let Some(value) = &value {
            // What follows stays behind it: a header refuses a count that the bytes there cannot hold.
            let mut bytes = encoded(value, r.offset() - start);
            let length = bytes.len();
            bytes.extend_from_slice(r.remaining());
            let mut again = Reader::new(&bytes);
            assert_eq!(<$ty as Decode>::decode(&mut again).as_ref(), Ok(value));
            assert_eq!(again.offset(), length);
        }
        value
    }};
}

/// Record marking. The first byte says how the rest is cut into pieces: however it is, the records are the same.
pub fn record(data: &[u8]) -> usize {
    let Some((cut, stream)) = data.split_first() else {
        return 0;
    };
    let whole = records(stream.chunks(stream.len().max(1)));
    let pieces = records(stream.chunks(usize::from(*cut) + 1));
    assert_eq!(whole, pieces);
    for record in &whole.0 {
        let mut space = vec![0; record.len() + record::MARK_BYTES];
        let mut w = Writer::new(&mut space);
        let mark = record::begin(&mut w).expect("there is space");
        w.raw(record).expect("there is space");
        record::end(&mut w, mark).expect("below the limit");
        assert_eq!(records([&space[..]].into_iter()), (vec![record.clone()], None));
    }
    whole.0.len()
}

/// The records of a stream that comes in pieces, and the error that ends it.
fn records<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Vec<u8>>, Option<RecordError>) {
    let mut reader = RecordReader::new(RECORD_BYTES_MAX);
    let mut records = Vec::new();
    for mut input in pieces {
        loop {
            match reader.next(&mut input) {
                Ok(Some(record)) => records.push(record.into_vec()),
                Ok(None) => break,
                Err(error) => return (records, Some(error)),
            }
            assert!(reader.held_bytes() <= 2 * RECORD_BYTES_MAX);
        }
        assert!(input.is_empty(), "all input is used before more is asked for");
    }
    (records, None)
}

/// Call and reply headers, and the AUTH_SYS credential of a call.
pub fn rpc_header(data: &[u8]) -> usize {
    let call = round!(CallHeader, &mut Reader::new(data));
    let reply = round!(ReplyHeader, &mut Reader::new(data));
    assert!(call.is_none() || reply.is_none(), "no message is both");
    if call.is_some() || reply.is_some() {
        assert!(message::peek(data).is_ok());
    }
    let body = call.map_or(data, |call| call.credential.body);
    let credential = round!(AuthSys, &mut Reader::new(body));
    usize::from(call.is_some()) + usize::from(reply.is_some()) + usize::from(credential.is_some())
}

/// A CB_COMPOUND call, as a client reads it.
pub fn callback_args(data: &[u8]) -> usize {
    let mut r = Reader::new(data);
    let Some(header) = round!(CbCompoundArgs, &mut r) else {
        return 0;
    };
    let mut decoded = 1;
    for _ in 0..header.count {
        let Some(args) = round!(CbArgs, &mut r) else {
            break;
        };
        decoded += 1;
        match args {
            CbArgs::Sequence(sequence) => {
                decoded += sequence.referring_call_lists.iter().map(|list| list.calls.iter().count()).sum::<usize>();
            }
            CbArgs::Notify(notify) => decoded += notify.changes.iter().map(notifications).sum::<usize>(),
            CbArgs::NotifyDeviceId(notify) => {
                decoded += notify.changes.iter().map(device_notifications).sum::<usize>();
            }
            CbArgs::Illegal(_) => break,
            _ => {}
        }
    }
    decoded
}

fn notifications(notify: Notify4<'_>) -> usize {
    let mut decoded = 0;
    for change in notify.notifications().flatten() {
        let values = encoded(&change, notify.values.len());
        let mask = Bitmap4::of(&[change.bit()]);
        let again = Notify4 { mask, values: &values };
        assert!(again.notifications().eq([Ok(change)]));
        decoded += 1;
    }
    decoded
}

fn device_notifications(notify: Notify4<'_>) -> usize {
    let mut decoded = 0;
    for change in notify.device_notifications().flatten() {
        let values = encoded(&change, notify.values.len());
        let mask = Bitmap4::of(&[change.bit()]);
        assert!(Notify4 { mask, values: &values }.device_notifications().eq([Ok(change)]));
        decoded += 1;
    }
    decoded
}

/// The reply to a CB_COMPOUND, as a server reads it.
pub fn callback_results(data: &[u8]) -> usize {
    let mut r = Reader::new(data);
    let Some(header) = round!(CbCompoundRes, &mut r) else {
        return 0;
    };
    1 + (0..header.count).map_while(|_| round!(CbRes, &mut r)).count()
}

/// A COMPOUND call and, from the same bytes, a COMPOUND reply.
pub fn fore(data: &[u8]) -> usize {
    let mut decoded = 0;
    let mut r = Reader::new(data);
    if let Some(header) = round!(CompoundArgs, &mut r) {
        decoded += 1;
        for _ in 0..header.count {
            match round!(OpArgs, &mut r) {
                None | Some(OpArgs::Other(_)) => break,
                Some(args) => {
                    decoded += 1;
                    if let OpArgs::SetClientId(args) = args {
                        universal_address(args.callback.location);
                    }
                }
            }
        }
    }
    let mut r = Reader::new(data);
    if let Some(header) = round!(CompoundRes, &mut r) {
        decoded += 1 + (0..header.count).map_while(|_| round!(OpRes, &mut r)).count();
    }
    decoded
}

/// A checkpoint: as it is, and with right checksums, so that what is behind them is reached. One that is valid is looked at,
/// which restores it.
pub fn checkpoint(data: &[u8]) -> usize {
    let mut mended = data.to_vec();
    mend_checkpoint(&mut mended);
    let mut valid = 0;
    for file in [data, &mended] {
        let Ok(checkpoint) = Checkpoint::from_bytes(file) else { continue };
        assert!(is_stable(&checkpoint));
        let snapshot = checkpoint.snapshot(8).expect("what is valid can be restored");
        assert!(snapshot.clients.len() <= file.len());
        valid += 1;
    }
    valid
}

/// What is read as a universal address is printed as one that says the same.
fn universal_address(location: NetAddr4<'_>) {
    if let Ok(address) = UniversalAddress::parse(location.netid(), location.address()) {
        let printed = address.to_string();
        assert_eq!(UniversalAddress::parse(address.netid().as_bytes(), printed.as_bytes()), Ok(address));
    }
}

/// A small simulation whose decisions the bytes are. It returns how many callbacks were run.
pub fn simulator(data: &[u8]) -> usize {
    let report = crate::sim::run_input(data, &Options::default());
    assert!(report.failures.is_empty(), "{:#?}", report.failures);
    report.runs as usize
}
