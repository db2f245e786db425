//! For tests and fuzzing: a checkpoint that is always the same, files whose checksums are made right, and whether what was
//! read is written as the same again.

use super::format::{ChunkWriter, Kind};
use super::record::{
    CallRecord, ClientRecord, CoreRecord, EntryRecord, LineRecord, PathRecord, PlaceRecord, ReactorRecord, RunRecord,
    SessionRecord, SummaryRecord, TenantRecord, TenantsRecord, from_bytes, to_bytes,
};
use super::{Checkpoint, convert, validate};
use crate::callback::Flags;
use ringback_rpc::backchannel::Counters;
use ringback_rpc::nfs4::callback::CallbackOp;

pub(crate) use super::format::mend;

fn entry(index: u32, client: u32, flags: Flags) -> EntryRecord {
    EntryRecord {
        cookie: 1000 + u64::from(index),
        generation: 3,
        client,
        age_us: 250_000 * index,
        owed_left_ms: if flags.contains(Flags::OWED) { 45_000 } else { 0 },
        flags: flags.bits() as u16,
        op: CallbackOp::Recall as u8,
        note: 0,
        reserved: 0,
    }
}

/// The call of entry 1, out on slot 0, as it was sent.
fn call() -> CallRecord {
    let xid = 7 << 12;
    let mut bytes = (0x8000_0000u32 | 196).to_be_bytes().to_vec();
    bytes.extend_from_slice(&xid_bytes(xid));
    bytes.resize(200, 0);
    CallRecord {
        runs: vec![(0, 1)],
        op: CallbackOp::Recall as u32,
        count: 1,
        conn: Some(5),
        xid,
        wake_left_ns: Some(1_000_000_000),
        sent_ago_ns: 30_000_000,
        bytes,
        ..CallRecord::default()
    }
}

fn xid_bytes(xid: u32) -> [u8; 4] {
    xid.to_be_bytes()
}

fn client(names: &[String]) -> ClientRecord {
    // Busy, free, retired.
    let slots = vec![(4, 1, false, true), (9, 0, false, false), (2, 2, false, true)];
    let session = SessionRecord {
        key: 11,
        session_id: [9; 16],
        minor_version: 1,
        slots,
        highest: 2,
        target: 2,
        ceiling: 2,
        parameters: vec![(0x4000_0000, vec![0; 8])],
        request_bytes_max: 4096,
        batch_limit: 1,
        bound: vec![5],
        ever_bound: true,
        fault: Some([3, 0, 0, 0]),
        calls: vec![call()],
        ..SessionRecord::default()
    };
    let core = CoreRecord {
        path: 1,
        xid_generation: 8,
        xids_issued: 8,
        random: 77,
        counters: vec![1; names.len()],
        fresh: vec![2],
        again: vec![3],
        delayed: vec![(4, 150_000_000)],
        connections: vec![(5, 1_000_000, 0)],
        sessions: vec![session],
        ..CoreRecord::default()
    };
    let running = Flags::LIVE | Flags::RUNNING;
    let run = |index, flags| RunRecord { index, entry: entry(index, 0, flags) };
    let runs = vec![
        run(1, running | Flags::OWED),
        run(2, running),
        run(3, running | Flags::REQUEUE),
        run(4, running | Flags::REQUEUE | Flags::REARM),
    ];
    ClientRecord { index: 0, generation: 1, core, runs, ..ClientRecord::default() }
}

/// A complete checkpoint with something of everything; `None` if it is too large, which it is not.
pub(crate) fn sample() -> Option<Vec<u8>> {
    let (counter_names, stat_names) = (Counters::names(), vec!["started".to_owned(), "released".to_owned()]);
    let place = |live| PlaceRecord { generation: 1, home: 0, live, closed: !live };
    let reactor = ReactorRecord {
        stats: vec![9, 4],
        endings: vec![("nfs4_ok".to_owned(), 4)],
        gone: vec![0; counter_names.len()],
        ..ReactorRecord::default()
    };
    let record = client(&counter_names);
    let summary = SummaryRecord {
        complete: true,
        taken_s: 1_700_000_000,
        serials: 12,
        clients: vec![place(true), place(false)],
        counter_names,
        stat_names,
        totals: vec![9, 4],
        reactors: vec![reactor],
    };
    let mut entries = vec![EntryRecord { generation: 2, ..EntryRecord::default() }];
    entries.extend(record.runs.iter().map(|run| run.entry));
    entries.push(entry(5, 0, Flags::LIVE));
    // Accepted, and not yet with its client; and on a completion queue.
    entries.push(entry(6, 0, Flags::LIVE | Flags::RUNNING));
    entries.push(entry(7, 0, Flags::LIVE | Flags::RUNNING | Flags::SETTLED));
    entries.push(entry(8, 1, Flags::LIVE));
    let mut bytes = Vec::new();
    let mut out = ChunkWriter::new(&mut bytes).ok()?;
    out.chunk(Kind::Client, 0, &to_bytes(&record).ok()?).ok()?;
    out.chunk(Kind::Entries, 0, &to_bytes(&entries).ok()?).ok()?;
    out.chunk(Kind::Own, 0, b"the embedder's").ok()?;
    let path = PathRecord {
        client: (0, 1),
        key: 10,
        program: 0x4000_0000,
        credential: vec![0; 8],
        callback_ident: 77,
        window: 4,
        address: Some("192.0.2.1:800".to_owned()),
        bound: vec![5],
    };
    out.chunk(Kind::Paths, 0, &to_bytes(&vec![path]).ok()?).ok()?;
    let tenant = TenantRecord { label: "tenant".to_owned(), calls_max: 3, refused: 2, ..TenantRecord::default() };
    let tenants = TenantsRecord { tenants: vec![tenant], clients: vec![(0, 1)] };
    out.chunk(Kind::Tenants, 0, &to_bytes(&tenants).ok()?).ok()?;
    let line = LineRecord {
        connection: 5,
        bound: vec![(0, 1)],
        unread: vec![0x80, 0, 0, 40, 1],
        unsent: vec![7; 9],
        calls_unanswered: 2,
        call_serial: 3,
        ..LineRecord::default()
    };
    out.chunk(Kind::Line, 0, &to_bytes(&line).ok()?).ok()?;
    out.chunk(Kind::Summary, 0, &to_bytes(&summary).ok()?).ok()?;
    out.finish().ok()?;
    Some(bytes)
}

/// Whether each client that was read would be written as the same again.
pub(crate) fn is_stable(checkpoint: &Checkpoint) -> bool {
    let opened = checkpoint.opened();
    opened.clients.iter().all(|range| {
        let Ok((_, image)) = validate::client(&opened.bytes[range.clone()], &opened.summary, &[]) else { return false };
        let record = convert::to_record(&image, &Counters::names());
        let Ok(bytes) = to_bytes(&record) else { return false };
        let again: Option<CoreRecord> = from_bytes(&bytes);
        again.and_then(|again| convert::to_image(&again, &Counters::names())) == Some(image)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_is_valid_and_can_be_looked_at() {
        let bytes = sample().unwrap();
        let checkpoint = Checkpoint::from_bytes(&bytes).unwrap();
        assert_eq!((checkpoint.clients(), checkpoint.callbacks(), checkpoint.in_flight()), (1, 8, 6));
        assert_eq!((checkpoint.own(), is_stable(&checkpoint)), (b"the embedder's".to_vec(), true));
        let snapshot = checkpoint.snapshot(10).unwrap();
        let client = &snapshot.clients[0];
        assert_eq!((client.in_flight, client.callbacks.len(), client.sessions[0].slots_in_use), (6, 4, 1));
        assert_eq!((snapshot.totals.started, snapshot.totals.released), (9, 4));
        let mut mended = bytes.clone();
        assert!(mend(&mut mended));
        assert_eq!(mended, bytes);
    }

    /// One client's callback runs when it is looked at. Then it is removed, and another client's takes its place and runs too.
    #[test]
    fn an_entry_that_changed_hands_as_it_was_written_runs_for_its_last_client() {
        let counter_names = Counters::names();
        let run = |client, generation| {
            let entry = EntryRecord { generation, ..entry(1, client, Flags::LIVE | Flags::RUNNING) };
            RunRecord { index: 1, entry }
        };
        let client = |index, generation| ClientRecord {
            index,
            generation: 1,
            core: CoreRecord { counters: vec![0; counter_names.len()], fresh: vec![1], ..CoreRecord::default() },
            runs: vec![run(index, generation)],
            ..ClientRecord::default()
        };
        let gone = vec![0; counter_names.len()];
        let summary = SummaryRecord {
            clients: vec![PlaceRecord { generation: 1, live: true, ..PlaceRecord::default() }; 2],
            counter_names: counter_names.clone(),
            reactors: vec![ReactorRecord { gone, ..ReactorRecord::default() }],
            ..SummaryRecord::default()
        };
        let mut bytes = Vec::new();
        let mut out = ChunkWriter::new(&mut bytes).unwrap();
        out.chunk(Kind::Client, 0, &to_bytes(&client(0, 3)).unwrap()).unwrap();
        out.chunk(Kind::Client, 0, &to_bytes(&client(1, 4)).unwrap()).unwrap();
        let entries = vec![EntryRecord::default(), run(1, 4).entry];
        out.chunk(Kind::Entries, 0, &to_bytes(&entries).unwrap()).unwrap();
        out.chunk(Kind::Summary, 0, &to_bytes(&summary).unwrap()).unwrap();
        out.finish().unwrap();
        let snapshot = Checkpoint::from_bytes(&bytes).unwrap().snapshot(10).unwrap();
        let runs: Vec<_> = snapshot.clients.iter().map(|client| (client.in_flight, client.callbacks.len())).collect();
        assert_eq!(runs, [(0, 0), (1, 1)]);
    }

    /// What stands in a file stays what it means.
    #[test]
    fn flags_keep_their_numbers() {
        let flags = [
            (Flags::LIVE, 1),
            (Flags::RUNNING, 2),
            (Flags::SETTLED, 4),
            (Flags::REQUEUE, 8),
            (Flags::REARM, 16),
            (Flags::WAKE, 32),
            (Flags::DYING, 64),
            (Flags::OWED, 128),
            (Flags::CANCEL, 256),
        ];
        flags.iter().for_each(|(flag, number)| assert_eq!(flag.bits(), *number));
        assert_eq!(flags.iter().fold(Flags::empty(), |all, (flag, _)| all | *flag), Flags::all());
    }

    /// Two reactors that have counted as far as a number goes, and a connection with as many calls.
    #[test]
    fn what_was_counted_in_a_file_overflows_nothing() {
        let reactor = |reactor| ReactorRecord { reactor, stats: vec![u64::MAX; 2], ..ReactorRecord::default() };
        let stat_names: Vec<_> = ["sends", "started"].map(str::to_owned).into();
        let summary = SummaryRecord {
            serials: 9,
            stat_names,
            totals: vec![u64::MAX; 2],
            reactors: vec![reactor(0), reactor(1)],
            ..SummaryRecord::default()
        };
        let file = |lines: &[LineRecord]| {
            let mut bytes = Vec::new();
            let mut out = ChunkWriter::new(&mut bytes).unwrap();
            lines.iter().for_each(|line| out.chunk(Kind::Line, 0, &to_bytes(line).unwrap()).unwrap());
            out.chunk(Kind::Summary, 0, &to_bytes(&summary).unwrap()).unwrap();
            out.finish().unwrap();
            Checkpoint::from_bytes(&bytes)
        };
        assert_eq!(file(&[]).unwrap().snapshot(0).unwrap().totals.sends, u64::MAX);
        let line = LineRecord { connection: 5, ..LineRecord::default() };
        assert_eq!(file(std::slice::from_ref(&line)).unwrap().connections(), 1);
        for counted in [
            LineRecord { replies_due: u64::MAX, ..line.clone() },
            LineRecord { calls_unanswered: u64::MAX, ..line.clone() },
            LineRecord { call_serial: u64::MAX, ..line.clone() },
        ] {
            let error = file(&[counted]).unwrap_err();
            assert!(error.to_string().contains("counted further"), "{error}");
        }
    }

    #[test]
    fn tiny_chunks_cannot_take_much_memory() {
        let mut bytes = Vec::new();
        let mut out = ChunkWriter::new(&mut bytes).unwrap();
        let summary = SummaryRecord { reactors: vec![ReactorRecord::default()], ..SummaryRecord::default() };
        for segment in 0..3 {
            let entries = vec![EntryRecord::default()];
            out.chunk(Kind::Entries, segment << 16, &to_bytes(&entries).unwrap()).unwrap();
        }
        out.chunk(Kind::Summary, 0, &to_bytes(&summary).unwrap()).unwrap();
        out.finish().unwrap();
        let error = Checkpoint::from_bytes(&bytes).unwrap_err();
        assert!(error.to_string().contains("entries are scattered"), "{error}");
    }
}
