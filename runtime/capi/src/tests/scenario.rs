//! The whole way: a client that answers, completions on a queue or in hooks, own transports, fore-channel calls.

mod arguments;
mod queue;

use super::common::{answer_all, answer_recall, eventually, pair, read_record, write_record};
use super::*;
use crate::args::*;
use crate::callback::*;
use crate::client::*;
use crate::connection::*;
use crate::drain::*;
use crate::numbers::*;
use crate::observe::*;
use crate::queue::*;
use crate::results::*;
use crate::stats::*;
use crate::wait::*;
use crate::*;
use ringback_rpc::nfs4::callback::{CallbackOp, CbArgs};
use ringback_rpc::nfs4::{Bitmap4, Fattr, Status};
use ringback_rpc::xdr::{Encode, Reader, Writer};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::IntoRawFd;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// What a function has written.
macro_rules! made {
    ($place:ident => $call:expr) => {{
        let mut $place = MaybeUninit::uninit();
        // SAFETY: P1 to P3.
        #[allow(unused_unsafe)]
        let answer = unsafe { $call };
        assert!(answer >= 0, "{}: {}", stringify!($call), last_error());
        // SAFETY: written by a function that has not failed.
        unsafe { $place.assume_init() }
    }};
}

mod checkpoint;
mod groups;
mod snapshot;
mod upgrade;

struct Bed {
    runtime: *mut rb_runtime,
    queue: *mut rb_queue,
    client: rb_client,
    session: rb_session,
}

impl Bed {
    fn new(hooks: &rb_hooks) -> Self {
        Bed::with(hooks, |_| ())
    }

    fn with(hooks: &rb_hooks, options: impl FnOnce(&mut rb_options)) -> Self {
        let runtime = runtime(options, hooks);
        // SAFETY: just made.
        let rt = unsafe { runtime.as_ref() };
        let mut place = MaybeUninit::new(none());
        let opened = rb_queue_open(rt, 0, Some(&mut place));
        // SAFETY: initialised above.
        let queue = unsafe { place.assume_init() };
        assert_eq!(opened == 0, !queue.is_null());
        let client = made!(c => rb_add_client(rt, 0, Some(&mut c)));
        let mut options = sized::<rb_session_options>();
        (options.session_id, options.program, options.minor_version) = ([9; 16], 0x4000_0000, 1);
        (options.slots, options.operations_max) = (8, 2);
        (options.request_bytes_max, options.response_bytes_max) = (4096, 4096);
        (options.security.flavor, options.security.machine_name) = (1, b"server".as_ptr());
        options.security.machine_name_bytes = 6;
        let session = made!(s => rb_add_session(rt, client, &options, Some(&mut s)));
        Bed { runtime, queue, client, session }
    }

    fn rt(&self) -> Option<&rb_runtime> {
        // SAFETY: not given up before the bed is.
        unsafe { self.runtime.as_ref() }
    }

    fn queue(&self) -> Option<&rb_queue> {
        // SAFETY: as above.
        unsafe { self.queue.as_ref() }
    }

    /// A client at the other end of a socket that is handed over.
    fn connect(&self) -> (rb_connection, TcpStream) {
        let (ours, theirs) = pair();
        let connection = made!(c => rb_add_connection(self.rt(), ours.into_raw_fd(), Some(&mut c)));
        assert_eq!(rb_bind(self.rt(), connection, self.session), 0);
        (connection, theirs)
    }

    fn insert(&self, cookie: u64) -> rb_key {
        made!(key => rb_insert(self.rt(), self.client, 4, cookie, Some(&mut key)))
    }

    /// The next item of the queue that is no path event.
    fn next(&self) -> rb_item {
        let until = Instant::now() + Duration::from_secs(10);
        loop {
            let mut item = MaybeUninit::uninit();
            // SAFETY: P2
            match unsafe { rb_queue_poll(self.queue(), item.as_mut_ptr(), 1) } {
                1 => {
                    // SAFETY: written.
                    let item = unsafe { item.assume_init() };
                    if item.kind != rb_item_kind::RB_ITEM_EVENT as i32 {
                        return item;
                    }
                }
                _ => assert!(Instant::now() < until, "nothing came"),
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn expect(&self, kind: rb_item_kind) -> rb_item_body {
        let item = self.next();
        assert_eq!(item.kind, kind as i32);
        item.body
    }

    fn end(mut self) {
        let expected = if self.queue.is_null() { NULL } else { 0 };
        assert_eq!(rb_queue_free(Some(&mut self.queue)), expected);
        assert_eq!(rb_runtime_free(Some(&mut self.runtime)), 0);
    }
}

fn completion(body: rb_item_body) -> rb_completion {
    // SAFETY: the kind was looked at.
    unsafe { body.completion }
}

/// What a function writes that has to be told how much room there is.
fn text(mut write: impl FnMut(*mut c_char, usize, Option<&mut MaybeUninit<usize>>) -> c_int) -> String {
    let mut needed = MaybeUninit::new(0);
    assert_eq!(write(none(), 0, Some(&mut needed)), rb_error::RB_ERR_NO_SPACE as c_int);
    // SAFETY: initialised above. The numbers in the text may have grown meanwhile.
    let mut bytes = vec![0xffu8; unsafe { needed.assume_init() } + 100];
    assert_eq!(write(bytes.as_mut_ptr().cast(), bytes.len(), None), 0, "{}", last_error());
    CStr::from_bytes_until_nul(&bytes).unwrap().to_str().unwrap().to_owned()
}

#[test]
fn a_recall_ends_on_the_queue() {
    let bed = Bed::with(&hooks(), |options| (options.latency, options.flight_records) = (1, 64));
    let (_, theirs) = bed.connect();
    let client = answer_all(theirs);
    let key = bed.insert(7);
    assert_eq!(rb_try_run(bed.rt(), key), rb_try_run_answer::RB_RUN_SUBMITTED as c_int);
    let ended = completion(bed.expect(rb_item_kind::RB_ITEM_COMPLETION));
    assert_eq!((ended.run.key, ended.run.cookie, ended.run.client, ended.run.op), (key, 7, bed.client, 4));
    assert_eq!((ended.outcome.ending, ended.outcome.status), (rb_ending::RB_ENDED_REPLIED as i32, 0));
    // On the queue, and told: still running.
    assert_eq!(rb_remove(bed.rt(), key), rb_remove_answer::RB_REMOVE_DEFERRED as c_int);
    assert_eq!(rb_queue_release(bed.queue()), 0);
    eventually("the callback is gone", || rb_try_run(bed.rt(), key) == rb_try_run_answer::RB_RUN_STALE as c_int);
    let (mut stats, mut census, mut memory) = (sized::<rb_stats>(), sized::<rb_census>(), sized::<rb_memory>());
    // SAFETY: P3
    assert_eq!(unsafe { rb_get_stats(bed.rt(), &mut stats) }, 0);
    // SAFETY: P3
    assert_eq!(unsafe { rb_get_census(bed.rt(), &mut census) }, 0);
    // SAFETY: P3
    assert_eq!(unsafe { rb_get_memory(bed.rt(), &mut memory) }, 0);
    assert_eq!((stats.completed, stats.released, stats.in_flight, census.slots), (1, 1, 0, 8));
    assert!(stats.size == size_of::<rb_stats>() && memory.slab > 0);
    let mut own = sized::<rb_client_stats>();
    // SAFETY: P3
    assert_eq!(unsafe { rb_get_client_stats(bed.rt(), bed.client, &mut own) }, 0);
    assert_eq!((own.started, own.completed, own.ended_ok, own.in_flight, own.slots_free), (1, 1, 1, 0, 8));
    assert_eq!((own.path, own.size), (rb_path_state::RB_PATH_UP as i32, size_of::<rb_client_stats>()));
    // SAFETY: P3
    assert_eq!(unsafe { rb_get_reactor_stats(bed.rt(), 0, &mut stats) }, 0);
    assert_eq!((stats.completed, stats.in_flight), (1, 0));
    // SAFETY: P2
    let metrics = text(|place, bytes, needed| unsafe { rb_metrics_text(bed.rt(), 1, place, bytes, needed) });
    assert!(metrics.contains("ringback_latency_seconds_count{class=\"recall\",stage=\"done\"} 1\n"), "{metrics}");
    assert!(metrics.contains(&format!("ringback_client_completed_total{{client=\"{:#x}\"}} 1\n", bed.client)));
    // SAFETY: P2
    let flight = text(|place, bytes, needed| unsafe { rb_flight_text(bed.rt(), place, bytes, needed) });
    assert!(
        flight.lines().any(|line| line.contains(&format!("\"step\":\"released\",\"client\":\"{:x}\"", bed.client)))
    );
    bed.end();
    assert_eq!(client.join().unwrap(), [7]);
}

#[test]
fn an_own_transport_is_told_on_the_queue() {
    let bed = Bed::new(&hooks());
    let mut name = 5u8;
    let user: *mut c_void = (&raw mut name).cast();
    let transport = rb_transport { user, ..sized() };
    let connection = made!(c => rb_add_transport(bed.rt(), &transport, Some(&mut c)));
    assert_eq!(rb_bind(bed.rt(), connection, bed.session), 0);
    let key = bed.insert(3);
    assert_eq!(rb_try_run(bed.rt(), key), 0);
    // SAFETY: the kind was looked at.
    let mut send = unsafe { bed.expect(rb_item_kind::RB_ITEM_SEND).send };
    assert_eq!((send.user, send.connection), (user, connection));
    // SAFETY: they live as long as the outbound.
    let sent = unsafe { std::slice::from_raw_parts(send.bytes, send.bytes_count) }.to_vec();
    assert_eq!(rb_outbound_complete(Some(&mut send.outbound), 0), 0);
    assert_eq!(rb_outbound_complete(Some(&mut send.outbound), 0), NULL);
    // The reply comes in two pieces, with a record mark.
    let (cookie, reply) = answer_recall(&sent[4..], &mut Default::default(), Status::NFS4_OK);
    let mut stream = (reply.len() as u32 | 1 << 31).to_be_bytes().to_vec();
    stream.extend_from_slice(&reply);
    let mut reader = made!(r => rb_reader_new(1 << 20, Some(&mut r)));
    let feed = |bytes: &[u8]| {
        // SAFETY: P1, P2
        unsafe { rb_reader_feed(reader.as_mut(), bed.rt(), connection, bytes.as_ptr(), bytes.len()) }
    };
    assert_eq!((feed(&stream[..9]), feed(&stream[9..])), (0, 1));
    assert_eq!(feed(&[0xff; 8]), rb_error::RB_ERR_XDR as c_int);
    assert_eq!(rb_reader_free(Some(&mut reader)), 0);
    assert_eq!((cookie, completion(bed.expect(rb_item_kind::RB_ITEM_COMPLETION)).run.cookie), (3, 3));
    assert_eq!(rb_close_connection(bed.rt(), connection), 0);
    // SAFETY: the kind was looked at.
    assert_eq!(unsafe { bed.expect(rb_item_kind::RB_ITEM_CLOSE).user }, user);
    // SAFETY: the kind was looked at.
    assert_eq!(unsafe { bed.expect(rb_item_kind::RB_ITEM_CLOSED).closed }, connection);
    bed.end();
}

#[test]
fn a_call_is_answered_once() {
    let bed = Bed::new(&hooks());
    let (connection, mut theirs) = bed.connect();
    let call_header = [[0, 0, 0, 7], [0, 0, 0, 0], [0, 0, 0, 2], [0, 1, 0x86, 0xa3], [0, 0, 0, 4], [0; 4]].concat();
    let record = [call_header, vec![0; 16]].concat();
    write_record(&mut theirs, &record);
    // SAFETY: the kind was looked at.
    let mut item = unsafe { bed.expect(rb_item_kind::RB_ITEM_CALL).call };
    assert_eq!((item.connection, item.record_bytes), (connection, record.len()));
    // SAFETY: it lives as long as the call.
    assert_eq!(unsafe { std::slice::from_raw_parts(item.record, item.record_bytes) }, record);
    // SAFETY: not given up yet.
    let call = unsafe { item.call.as_ref() };
    assert_eq!(rb_call_record(call, None, Some(&mut MaybeUninit::uninit()), Some(&mut MaybeUninit::uninit())), 0);
    let bytes = |b: &'static [u8]| rb_bytes { data: b.as_ptr(), count: b.len() };
    let reply = [bytes(b"\0\0\0\x07\0\0\0\x01"), bytes(b"\0\0\0\0")];
    let bad = rb_bytes { data: ptr::null(), count: 3 };
    // SAFETY: P1, P2
    unsafe {
        assert_eq!(rb_call_reply(bed.rt(), Some(&mut item.call), &bad, 1), NULL);
    }
    // SAFETY: P1, P2
    let answer = unsafe { rb_call_reply(bed.rt(), Some(&mut item.call), reply.as_ptr(), 2) };
    assert_eq!((answer, item.call), (0, none()));
    // SAFETY: P1, P2
    let again = unsafe { rb_call_reply(bed.rt(), Some(&mut item.call), reply.as_ptr(), 2) };
    assert_eq!((again, rb_call_free(Some(&mut item.call))), (NULL, NULL));
    assert_eq!(read_record(&mut theirs).unwrap(), b"\0\0\0\x07\0\0\0\x01\0\0\0\0");
    bed.end();
}

fn bytes(bytes: &[u8]) -> rb_bytes {
    rb_bytes { data: bytes.as_ptr(), count: bytes.len() }
}

/// What hooks have seen.
static SEEN: Mutex<Vec<&str>> = Mutex::new(Vec::new());

fn see(what: &'static str) {
    SEEN.lock().unwrap().push(what);
}

#[test]
fn hooks_are_called_in_order_and_nothing_can_be_waited_for_in_them() {
    extern "C" fn acquire(_: *mut c_void, _: u64) {
        see("acquire");
    }
    extern "C" fn prepare(user: *mut c_void, _: *const rb_run) -> c_int {
        // SAFETY: the runtime's address, once it is there.
        let runtime = unsafe { user.cast::<*mut rb_runtime>().read() };
        // SAFETY: alive while its hooks run.
        let answer = unsafe { rb_drain_all(runtime.as_ref(), 0, none()) };
        see(if answer == rb_error::RB_ERR_IN_HOOK as c_int { "prepare" } else { "a drain in a hook" });
        0
    }
    extern "C" fn done(_: *mut c_void, _: *const rb_run, outcome: *const rb_outcome, _: *const u8, _: usize) -> i64 {
        // SAFETY: the runtime's, for the time of the call.
        see(if unsafe { outcome.read() }.status == 0 { "done" } else { "done otherwise" });
        RB_DONE_FINISH
    }
    extern "C" fn release(_: *mut c_void, _: *const rb_run) {
        see("release");
    }
    extern "C" fn drop_reference(_: *mut c_void, _: u64) {
        see("drop");
    }
    let mut place: *mut rb_runtime = none();
    let table = rb_hooks {
        user: (&raw mut place).cast(),
        acquire: Some(acquire),
        prepare: Some(prepare),
        done: Some(done),
        release: Some(release),
        drop_reference: Some(drop_reference),
        ..hooks()
    };
    let bed = Bed::with(&table, |o| o.delivery = rb_delivery::RB_DELIVERY_INLINE as i32);
    // SAFETY: read by hooks, which run later.
    unsafe { (&raw mut place).write(bed.runtime) };
    assert!(bed.queue.is_null());
    let (_, theirs) = bed.connect();
    let _client = answer_all(theirs);
    assert_eq!(rb_try_run(bed.rt(), bed.insert(1)), 0);
    eventually("the run is over", || SEEN.lock().unwrap().last() == Some(&"drop"));
    assert_eq!(*SEEN.lock().unwrap(), ["acquire", "prepare", "done", "release", "drop"]);
    bed.end();
}

#[test]
fn a_wait_is_told_and_has_the_result() {
    let bed = Bed::new(&hooks());
    let (_, theirs) = bed.connect();
    let _client = answer_all(theirs);
    let key = bed.insert(1);
    let mut wait = made!(w => rb_run_and_wait(bed.rt(), key, Some(&mut w)));
    let mut name = 1u8;
    let user: *mut c_void = (&raw mut name).cast();
    // SAFETY: not given up yet.
    assert_eq!(rb_wait_notify(unsafe { wait.as_ref() }, bed.queue(), user), 0);
    let (first, second) = (bed.next(), bed.next());
    let kinds = [first.kind, second.kind];
    assert!(kinds.contains(&(rb_item_kind::RB_ITEM_NOTICE as i32)), "{kinds:?}");
    assert!(kinds.contains(&(rb_item_kind::RB_ITEM_COMPLETION as i32)), "{kinds:?}");
    let mut ended = sized::<rb_ended>();
    // SAFETY: P1, P3
    assert_eq!(unsafe { rb_wait_result(wait.as_ref(), &mut ended) }, 0);
    assert_eq!((ended.outcome.ending, ended.outcome.status, ended.is_whole), (0, 0, 1));
    // SAFETY: P1, P3
    assert_eq!(unsafe { rb_wait_block(Some(&mut wait), 1000, &mut ended) }, 0);
    assert!(wait.is_null() && rb_wait_free(Some(&mut wait)) == NULL);
    rb_queue_release(bed.queue());
    eventually("the run is over", || {
        let mut idle = made!(w => rb_wait_start(bed.rt(), key, Some(&mut w)));
        // SAFETY: P1, P3
        let answer = unsafe { rb_wait_result(idle.as_ref(), &mut sized()) };
        assert_eq!(rb_wait_free(Some(&mut idle)), 0);
        answer == rb_error::RB_ERR_IDLE as c_int
    });
    bed.end();
}

#[test]
fn a_drain_reports_by_key_on_the_thread_that_polls() {
    let bed = Bed::new(&hooks());
    let keys = [bed.insert(0), bed.insert(1)];
    assert!(keys.iter().all(|key| rb_try_run(bed.rt(), *key) == 0));
    let mut drain = made!(d => rb_drain_start(bed.rt(), 1000, bed.queue(), none(), Some(&mut d)));
    let mut told: Vec<_> = (0..2).map(|_| completion(bed.expect(rb_item_kind::RB_ITEM_COMPLETION))).collect();
    told.sort_by_key(|c| c.run.cookie);
    assert!(told.iter().all(|c| c.outcome.ending == rb_ending::RB_ENDED_CANCELLED as i32 && c.outcome.sent == 0));
    assert_eq!([told[0].run.key, told[1].run.key], keys);
    bed.expect(rb_item_kind::RB_ITEM_NOTICE);
    let mut place = [0; 1];
    let mut report = rb_drain_report { unsent: place.as_mut_ptr(), unsent_max: 1, ..sized() };
    // SAFETY: P1 to P3
    assert_eq!(unsafe { rb_drain_result(drain.as_ref(), &mut report) }, 0, "{}", last_error());
    assert_eq!((report.in_flight, report.abandoned_count, report.unsent_count), (0, 0, 2));
    assert!(keys.contains(&place[0]));
    assert_eq!((rb_drain_free(Some(&mut drain)), rb_drain_free(Some(&mut drain))), (0, NULL));
    let closed = rb_error::RB_ERR_CLOSED as c_int;
    assert_eq!(rb_add_client(bed.rt(), 0, Some(&mut MaybeUninit::uninit())), closed);
    assert_eq!(rb_try_run(bed.rt(), keys[0]), rb_try_run_answer::RB_RUN_CLOSED as c_int);
    // SAFETY: P3
    assert_eq!(unsafe { rb_shutdown(bed.rt(), 10, &mut report) }, 0);
    bed.end();
}

#[test]
fn a_drain_does_not_keep_the_runtime_alive() {
    let mut bed = Bed::with(&hooks(), |o| o.delivery = rb_delivery::RB_DELIVERY_INLINE as i32);
    let (_, mut theirs) = bed.connect();
    theirs.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    assert_eq!(rb_try_run(bed.rt(), bed.insert(1)), 0);
    let _ = read_record(&mut theirs).unwrap(); // and never answered
    let mut drain = made!(d => rb_drain_start(bed.rt(), 60_000, None, none(), Some(&mut d)));
    // From here on no hook is called, and what `user` points at may go.
    assert_eq!(rb_runtime_free(Some(&mut bed.runtime)), 0);
    assert_eq!(theirs.read(&mut [0]).unwrap(), 0, "the connection is closed");
    let mut report = sized::<rb_drain_report>();
    // SAFETY: P1 to P3
    assert_eq!(unsafe { rb_drain_result(drain.as_ref(), &mut report) }, 0, "{}", last_error());
    assert_eq!((report.in_flight, report.abandoned_count, report.unsent_count), (0, 1, 0));
    assert_eq!(rb_drain_free(Some(&mut drain)), 0);
}

#[test]
fn a_connection_that_is_refused_is_still_the_callers() {
    let bed = Bed::new(&hooks());
    // SAFETY: P3
    assert_eq!(unsafe { rb_shutdown(bed.rt(), 0, none()) }, 0);
    let (mut ours, mut theirs) = pair();
    let fd = std::os::fd::AsRawFd::as_raw_fd(&ours);
    // SAFETY: an open descriptor.
    let answer = unsafe { rb_add_connection(bed.rt(), fd, Some(&mut MaybeUninit::uninit())) };
    assert_eq!(answer, rb_error::RB_ERR_CLOSED as c_int);
    ours.write_all(b"x").unwrap();
    theirs.read_exact(&mut [0]).unwrap();
    bed.end();
}
