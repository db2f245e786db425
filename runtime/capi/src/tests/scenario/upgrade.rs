//! A server is handed over to the next one, in the middle of a recall, with calls taken and not taken.

use super::*;
use crate::checkpoint::{rb_checkpoint_free, rb_checkpoint_own, rb_own, rb_restored};
use crate::options::rb_runtime_new;
use crate::upgrade::*;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

const PATIENCE_MS: u64 = 20_000;

/// The cookie of the next process, and that nothing is forgotten.
extern "C" fn restored(_: *mut c_void, callback: *const rb_restored, cookie: *mut u64) -> c_int {
    // SAFETY: the runtime's, for the time of the call.
    let (callback, cookie) = unsafe { (callback.read(), &mut *cookie) };
    *cookie += 100;
    assert_eq!((callback.op, callback.running), (4, 1));
    1
}

/// Adds the two numbers that `user` points to.
extern "C" fn checkpoint(user: *mut c_void, own: *mut rb_own) {
    // SAFETY: P1, P2
    assert_eq!(unsafe { crate::checkpoint::rb_checkpoint_add(own.as_mut(), user.cast(), 16) }, 0);
}

fn call_of(xid: u8) -> Vec<u8> {
    let words = [u32::from(xid), 0, 2, 100_003, 4, 0, 0, 0, 0, 0];
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

fn taken(bed: &Bed) -> rb_call_item {
    // SAFETY: the kind was looked at.
    unsafe { bed.expect(rb_item_kind::RB_ITEM_CALL).call }
}

fn reply(rt: Option<&rb_runtime>, mut call: *mut rb_call, text: &'static [u8]) {
    // SAFETY: P1, P2
    assert_eq!(unsafe { rb_call_reply(rt, Some(&mut call), &bytes(text), 1) }, 0, "{}", last_error());
}

/// The next process: what the last one said for itself, and its runtime.
fn take_over(from: &UnixStream) -> ([u64; 2], usize) {
    let mut upgrade = made!(u => rb_upgrade_receive(from.as_raw_fd(), PATIENCE_MS, Some(&mut u)));
    // SAFETY: just made.
    let found = unsafe { upgrade.as_ref() };
    let mut known = made!(c => rb_upgrade_checkpoint(found, Some(&mut c)));
    let mut own = [0u64; 2];
    // SAFETY: P1, P2
    assert_eq!(unsafe { rb_checkpoint_own(known.as_ref(), own.as_mut_ptr().cast(), 16) }, 0, "{}", last_error());
    assert_eq!(rb_checkpoint_free(Some(&mut known)), 0);
    let table = rb_hooks { restored: Some(restored), ..hooks() };
    let options = rb_options { reactors: 1, upgrade, ..sized() };
    let next = made!(r => rb_runtime_new(&options, &table, Some(&mut r)));
    let mut upgraded = sized::<rb_upgraded>();
    // SAFETY: P1, P3
    assert_eq!(unsafe { rb_upgrade_confirm(Some(&mut upgrade), &mut upgraded) }, 0, "{}", last_error());
    assert_eq!((upgraded.connections, upgraded.clients, upgraded.callbacks, upgraded.in_flight), (1, 1, 1, 1));
    (own, next.expose_provenance())
}

#[test]
fn the_next_server_takes_the_reply_and_the_calls() {
    let mut own = [0u64; 2];
    let table = rb_hooks { user: (&raw mut own).cast(), checkpoint: Some(checkpoint), ..hooks() };
    let mut bed = Bed::with(&table, |_| ());
    let (connection, mut theirs) = bed.connect();
    let key = bed.insert(7);
    assert_eq!(rb_try_run(bed.rt(), key), 0);
    let recall = read_record(&mut theirs).unwrap();
    // One call is taken, and to be answered by the next process; one stays on the queue.
    write_record(&mut theirs, &call_of(1));
    let mut item = taken(&bed);
    write_record(&mut theirs, &call_of(2));
    eventually("it has come", || {
        let mut stats = sized::<rb_stats>();
        // SAFETY: P3
        (unsafe { rb_get_stats(bed.rt(), &mut stats) }, stats.fore_calls) == (0, 2)
    });
    // SAFETY: not given up yet.
    let call = unsafe { item.call.as_ref() };
    assert_eq!(rb_call_parts(call, Some(&mut MaybeUninit::uninit()), None), NULL);
    own[1] = made!(serial => {
        let mut of = MaybeUninit::uninit();
        let answer = rb_call_parts(call, Some(&mut of), Some(&mut serial));
        own[0] = of.assume_init();
        answer
    });
    assert_eq!(own[0], connection);

    // Refused once: what was on the queue is there.
    let (ours, other) = UnixStream::pair().unwrap();
    drop(other);
    // SAFETY: P1 to P3
    let refused = unsafe { rb_upgrade_to(bed.rt(), ours.as_raw_fd(), none(), 0, PATIENCE_MS, none()) };
    assert_eq!(refused, rb_error::RB_ERR_UPGRADE as c_int, "{}", last_error());

    let (ours, from) = UnixStream::pair().unwrap();
    let thread = std::thread::spawn(move || take_over(&from));
    let mut given = sized::<rb_upgraded>();
    // SAFETY: P1 to P3
    let answer = unsafe { rb_upgrade_to(bed.rt(), ours.as_raw_fd(), none(), 0, PATIENCE_MS, &mut given) };
    assert_eq!((answer, given.connections, given.in_flight, given.undone), (0, 1, 1, 0), "{}", last_error());
    let (parts, next) = thread.join().unwrap();
    assert_eq!(parts, own);
    // What is left of the old process: the queue tells nothing of what went over, and calls are answered for nobody.
    let mut items = [MaybeUninit::<rb_item>::uninit(); 4];
    // SAFETY: P2
    let left = unsafe { rb_queue_poll(bed.queue(), items[0].as_mut_ptr(), 4) };
    // SAFETY: as many were written.
    let kinds = items[..left as usize].iter().map(|item| unsafe { item.assume_init_ref() }.kind);
    let told: Vec<_> = kinds.filter(|kind| *kind != rb_item_kind::RB_ITEM_EVENT as i32).collect();
    assert_eq!(told, [] as [i32; 0]);
    assert_eq!(rb_call_free(Some(&mut item.call)), 0);
    assert_eq!(rb_try_run(bed.rt(), key), rb_try_run_answer::RB_RUN_CLOSED as c_int, "it runs elsewhere");
    assert_eq!((rb_queue_free(Some(&mut bed.queue)), rb_runtime_free(Some(&mut bed.runtime))), (0, 0));

    bed.runtime = std::ptr::with_exposed_provenance_mut(next);
    bed.queue = made!(q => rb_queue_open(bed.rt(), 0, Some(&mut q)));
    let item = taken(&bed);
    // SAFETY: it lives as long as the call.
    assert_eq!(unsafe { std::slice::from_raw_parts(item.record, item.record_bytes) }, call_of(2));
    assert_eq!(item.connection, connection);
    reply(bed.rt(), item.call, b"two!");
    assert_eq!(read_record(&mut theirs).unwrap(), b"two!");
    let first = made!(call => rb_call_from_parts(parts[0], parts[1], Some(&mut call)));
    reply(bed.rt(), first, b"one!");
    assert_eq!(read_record(&mut theirs).unwrap(), b"one!");
    let (_, answer) = answer_recall(&recall, &mut Default::default(), Status::NFS4_OK);
    write_record(&mut theirs, &answer);
    let ended = completion(bed.expect(rb_item_kind::RB_ITEM_COMPLETION));
    assert_eq!((ended.run.key, ended.run.cookie, ended.outcome.status), (key, 107, 0));
    bed.end();
    assert_eq!(read_record(&mut theirs), None, "nothing was sent twice");
}

/// What an upgrade that fails after the checkpoint has taken off the queues comes back.
#[test]
fn what_was_on_the_queues_comes_back_if_the_upgrade_fails() {
    let bed = Bed::new(&hooks());
    let (_, mut theirs) = bed.connect();
    (1..=3).for_each(|xid| write_record(&mut theirs, &call_of(xid)));
    eventually("they have come", || {
        let mut stats = sized::<rb_stats>();
        // SAFETY: P3
        (unsafe { rb_get_stats(bed.rt(), &mut stats) }, stats.fore_calls) == (0, 3)
    });
    let (ours, from) = UnixStream::pair().unwrap();
    let thread = std::thread::spawn(move || {
        let mut upgrade = made!(u => rb_upgrade_receive(from.as_raw_fd(), PATIENCE_MS, Some(&mut u)));
        assert_eq!(rb_upgrade_free(Some(&mut upgrade)), 0);
    });
    // SAFETY: P1 to P3
    let answer = unsafe { rb_upgrade_to(bed.rt(), ours.as_raw_fd(), none(), 0, PATIENCE_MS, none()) };
    thread.join().unwrap();
    assert_eq!(answer, rb_error::RB_ERR_UPGRADE as c_int, "{}", last_error());
    for xid in 1..=3 {
        let item = taken(&bed);
        // SAFETY: it lives as long as the call.
        assert_eq!(unsafe { std::slice::from_raw_parts(item.record, item.record_bytes) }, call_of(xid));
        reply(bed.rt(), item.call, b"done");
        assert_eq!(read_record(&mut theirs).unwrap(), b"done");
    }
    bed.end();
}

/// What is asked for while it stands still is told, with what it was about, on the queue of the old process.
#[test]
fn what_is_left_undone_is_told_in_words_and_numbers() {
    extern "C" fn ask(user: *mut c_void, _: *mut rb_own) {
        // SAFETY: the runtime's address is put there before the upgrade.
        let rt = unsafe { user.cast::<*mut rb_runtime>().read().as_ref() };
        assert_eq!(rb_close_connection(rt, 77 << 16), 0);
    }
    let mut at = none::<rb_runtime>();
    let table = rb_hooks { user: (&raw mut at).cast(), checkpoint: Some(ask), ..hooks() };
    let bed = Bed::new(&table);
    at = bed.runtime;
    let (ours, from) = UnixStream::pair().unwrap();
    let thread = std::thread::spawn(move || {
        let mut upgrade = made!(u => rb_upgrade_receive(from.as_raw_fd(), PATIENCE_MS, Some(&mut u)));
        let options = rb_options { reactors: 1, upgrade, ..sized() };
        let mut next = made!(r => rb_runtime_new(&options, &hooks(), Some(&mut r)));
        // SAFETY: P1
        assert_eq!(unsafe { rb_upgrade_confirm(Some(&mut upgrade), none()) }, 0, "{}", last_error());
        assert_eq!(rb_runtime_free(Some(&mut next)), 0);
    });
    let mut given = sized::<rb_upgraded>();
    // SAFETY: P1 to P3
    let answer = unsafe { rb_upgrade_to(bed.rt(), ours.as_raw_fd(), none(), 0, PATIENCE_MS, &mut given) };
    thread.join().unwrap();
    assert_eq!((answer, given.undone), (0, 1), "{}", last_error());
    let mut item = MaybeUninit::uninit();
    loop {
        // SAFETY: P2
        assert_eq!(unsafe { rb_queue_poll(bed.queue(), item.as_mut_ptr(), 1) }, 1);
        // SAFETY: written.
        let item = unsafe { item.assume_init() };
        assert_eq!(item.kind, rb_item_kind::RB_ITEM_EVENT as i32);
        // SAFETY: the kind was looked at.
        let event = unsafe { item.body.event };
        if event.kind == rb_event_kind::RB_EVENT_LEFT_UNDONE as i32 {
            // SAFETY: until the next poll.
            let text = unsafe { CStr::from_ptr(event.text) }.to_str().unwrap();
            assert_eq!(event.connection, 77 << 16);
            assert!(text.starts_with("close_connection came too late"), "{text}");
            break;
        }
    }
    assert!(!at.is_null());
    bed.end();
}
