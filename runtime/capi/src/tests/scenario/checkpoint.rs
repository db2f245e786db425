//! A server is suspended, and the next one goes on.

use super::*;
use crate::checkpoint::*;
use crate::options::rb_runtime_new;
use crate::snapshot::*;

/// The cookie that an object of the last process has in this one.
extern "C" fn restored(user: *mut c_void, callback: *const rb_restored, cookie: *mut u64) -> c_int {
    // SAFETY: the runtime's, for the time of the call.
    let (callback, cookie) = unsafe { (callback.read(), &mut *cookie) };
    assert_eq!((callback.cookie, callback.op), (*cookie, 4));
    // SAFETY: what the test lends.
    unsafe { &mut *user.cast::<Vec<rb_restored>>() }.push(callback);
    // 9 is there no more.
    *cookie += 100;
    c_int::from(callback.cookie != 9)
}

extern "C" fn checkpoint(_: *mut c_void, own: *mut rb_own) {
    for part in [&b"written by "[..], b"the server"] {
        // SAFETY: P1, P2
        assert_eq!(unsafe { rb_checkpoint_add(own.as_mut(), part.as_ptr(), part.len()) }, 0);
    }
}

/// Suspends the runtime, writes a checkpoint into a file and leaves; reads it.
fn hand_over(bed: &Bed) -> *mut rb_checkpoint {
    let file = std::env::temp_dir().join(format!("ringback-capi-{}", std::process::id()));
    let name = std::ffi::CString::new(file.to_str().unwrap()).unwrap();
    let mut suspended = made!(s => rb_suspend(bed.rt(), Some(&mut s)));
    let mut size = sized::<rb_checkpoint_size>();
    // SAFETY: P1 to P3
    let written = unsafe { rb_suspended_checkpoint_to(suspended.as_ref(), name.as_ptr(), &mut size) };
    assert_eq!((written, size.callbacks, size.in_flight), (0, 3, 2), "{}", last_error());
    assert_eq!(size.bytes, std::fs::metadata(&file).unwrap().len());
    assert_eq!(rb_suspended_leave(Some(&mut suspended)), 0);
    let found = made!(c => rb_checkpoint_open(name.as_ptr(), Some(&mut c)));
    std::fs::remove_file(file).unwrap();
    found
}

fn look_at(found: Option<&rb_checkpoint>, client: rb_client) {
    let (mut info, mut stats) = (sized::<rb_checkpoint_info>(), sized::<rb_client_stats>());
    // SAFETY: P3
    assert_eq!(unsafe { rb_get_checkpoint_info(found, &mut info) }, 0);
    assert_eq!((info.complete, info.mapped, info.clients, info.callbacks, info.in_flight), (1, 0, 1, 3, 2));
    assert!(info.taken_s > 1_600_000_000, "{}", info.taken_s);
    let mut own = vec![0; info.own_bytes];
    // SAFETY: P2
    let short = unsafe { rb_checkpoint_own(found, own.as_mut_ptr(), own.len() - 1) };
    // SAFETY: P2
    let whole = unsafe { rb_checkpoint_own(found, own.as_mut_ptr(), own.len()) };
    assert_eq!((short, whole, &own[..]), (rb_error::RB_ERR_NO_SPACE as c_int, 0, &b"written by the server"[..]));
    let mut there = made!(s => rb_checkpoint_snapshot(found, 1, Some(&mut s)));
    // SAFETY: just made.
    let seen = unsafe { there.as_ref() };
    // SAFETY: P3
    let shown = made!(c => rb_snapshot_client(seen, 0, Some(&mut c), &mut stats));
    assert_eq!((shown, stats.in_flight, stats.sent), (client, 2, 1), "one waits for a completion");
    // SAFETY: P2
    let metrics = text(|place, bytes, needed| unsafe { rb_snapshot_text(seen, 1, place, bytes, needed) });
    assert_eq!(rb_snapshot_free(Some(&mut there)), 0);
    assert!(metrics.contains(&format!("ringback_client_in_flight{{client=\"{client:#x}\"}} 2\n")), "{metrics}");
}

#[test]
fn the_next_server_goes_on_where_the_last_one_was_suspended() {
    let table = rb_hooks { checkpoint: Some(checkpoint), ..hooks() };
    let mut bed = Bed::with(&table, |_| ());
    let (_, mut theirs) = bed.connect();
    let (sent, gone, idle) = (bed.insert(7), bed.insert(9), bed.insert(8));
    assert_eq!(rb_try_run(bed.rt(), sent), 0);
    let record = read_record(&mut theirs).unwrap();
    // That one is answered, and its completion stays on the queue.
    let mut slots = Default::default();
    let (_, reply) = answer_recall(&record, &mut slots, Status::NFS4_OK);
    write_record(&mut theirs, &reply);
    eventually("it has ended", || {
        let mut stats = sized::<rb_stats>();
        // SAFETY: P3
        (unsafe { rb_get_stats(bed.rt(), &mut stats) }, stats.replied) == (0, 1)
    });
    assert_eq!(rb_try_run(bed.rt(), gone), 0);
    let sent_again = read_record(&mut theirs).unwrap();
    let mut found = hand_over(&bed);
    // SAFETY: just made.
    look_at(unsafe { found.as_ref() }, bed.client);
    assert_eq!(rb_try_run(bed.rt(), idle), rb_try_run_answer::RB_RUN_CLOSED as c_int);
    assert_eq!(read_record(&mut theirs), None, "its connections end with it");

    let mut asked = Vec::<rb_restored>::new();
    let table = rb_hooks { user: (&raw mut asked).cast(), restored: Some(restored), ..hooks() };
    let options = rb_options { reactors: 1, restore: found, ..sized() };
    let next = made!(r => rb_runtime_new(&options, &table, Some(&mut r)));
    assert_eq!(rb_checkpoint_free(Some(&mut found)), 0);
    asked.sort_by_key(|callback| callback.cookie);
    let asked: Vec<_> = asked.iter().map(|callback| (callback.key, callback.cookie, callback.running)).collect();
    assert_eq!(asked, [(sent, 7, 1), (idle, 8, 0), (gone, 9, 1)]);
    let former = std::mem::replace(&mut bed.runtime, next);
    assert_eq!(rb_queue_free(Some(&mut bed.queue)), 0);
    assert_eq!(rb_runtime_free(Some(&mut { former })), 0);
    bed.queue = made!(q => rb_queue_open(bed.rt(), 0, Some(&mut q)));
    let ended = completion(bed.expect(rb_item_kind::RB_ITEM_COMPLETION));
    assert_eq!((ended.run.key, ended.run.cookie, ended.outcome.status), (sent, 107, 0), "given once more");
    // The client, its session and its callbacks have the names that they had.
    let (_, mut theirs) = bed.connect();
    assert_eq!(rb_try_run(bed.rt(), gone), rb_try_run_answer::RB_RUN_STALE as c_int);
    // Who is gone is not asked for again; its session slot is: a lone CB_SEQUENCE, with the id that was used.
    let asked = read_record(&mut theirs).unwrap();
    let at = asked.windows(16).position(|bytes| bytes == [9; 16]).unwrap();
    assert_eq!(asked[at - 8..at], [0, 0, 0, 1, 0, 0, 0, 11], "one operation, CB_SEQUENCE");
    assert_eq!(asked[at..at + 24], sent_again[at..at + 24], "session, sequence id, session slot");
    bed.end();
}
