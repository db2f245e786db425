//! Functions of live upgrades.

use super::*;
use crate::upgrade::*;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;

const UPGRADE: c_int = rb_error::RB_ERR_UPGRADE as c_int;
const SYSTEM: c_int = rb_error::RB_ERR_SYSTEM as c_int;
const SIZE: c_int = rb_error::RB_ERR_SIZE as c_int;
const PATIENCE_MS: u64 = 20_000;

/// Every function that takes a pointer is given none.
pub fn nulls() -> BTreeSet<String> {
    let (mut place, mut number) = (MaybeUninit::uninit(), MaybeUninit::uninit());
    let (socket, _peer) = UnixStream::pair().unwrap();
    let fd = socket.as_raw_fd();
    answers! {
        rb_upgrade_to(None, fd, none(), 0, 1, none()) => NULL;
        rb_upgrade_to(None, fd, none(), 1, 1, none()) => NULL;
        rb_upgrade_receive(fd, 1, None) => NULL;
        rb_get_upgrade_info(None, none()) => NULL;
        rb_get_upgrade_info(None, &mut sized()) => NULL;
        rb_upgrade_checkpoint(None, None) => NULL;
        rb_upgrade_checkpoint(None, Some(&mut place)) => NULL;
        rb_upgrade_take_files(None, none(), 0) => NULL;
        rb_upgrade_confirm(None, none()) => NULL;
        rb_upgrade_confirm(Some(&mut none()), none()) => NULL;
        rb_upgrade_free(None) => NULL;
        rb_upgrade_free(Some(&mut none())) => NULL;
        rb_call_parts(None, None, None) => NULL;
        rb_call_parts(None, Some(&mut number), None) => NULL;
        rb_call_from_parts(1, 1, None) => NULL;
    }
}

/// What goes over a thread's edge as a number, and is one thread's at a time.
struct Handle<T>(*mut T);

// SAFETY: all functions may be called from any thread.
unsafe impl<T> Send for Handle<T> {}

/// Hands the runtime over on a thread of its own: what that answers, and the other end of the socket.
pub fn hand_over(rt: *mut rb_runtime) -> (UnixStream, JoinHandle<(c_int, String)>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let rt = Handle(rt);
    let thread = std::thread::spawn(move || {
        let rt = rt;
        let ours = OwnedFd::from(ours);
        let fd = ours.as_raw_fd();
        // SAFETY: P1 to P3
        let answer = unsafe { rb_upgrade_to(rt.0.as_ref(), fd, &fd, 1, PATIENCE_MS, none()) };
        (answer, last_error())
    });
    (theirs, thread)
}

pub fn received(from: &UnixStream) -> *mut rb_upgrade {
    let mut place = MaybeUninit::uninit();
    answers! { rb_upgrade_receive(from.as_raw_fd(), PATIENCE_MS, Some(&mut place)) => 0; };
    // SAFETY: written by a function that has not failed.
    unsafe { place.assume_init() }
}

fn build(upgrade: *const rb_upgrade, set: impl FnOnce(&mut rb_options)) -> (c_int, *mut rb_runtime) {
    let mut options = rb_options { reactors: 1, upgrade, ..sized() };
    set(&mut options);
    let mut made = MaybeUninit::new(none());
    // SAFETY: P1 to P3
    let answer = unsafe { rb_runtime_new(&options, &hooks(), Some(&mut made)) };
    // SAFETY: initialised above.
    (answer, unsafe { made.assume_init() })
}

#[test]
fn what_is_wrong_with_an_upgrade_is_told() {
    let mut made = runtime(|_| (), &hooks());
    // SAFETY: just made.
    let rt = unsafe { made.as_ref() };
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (fd, other) = (ours.as_raw_fd(), theirs.as_raw_fd());
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let place = || MaybeUninit::<*mut rb_upgrade>::uninit();
    let small = rb_upgraded { size: 8, ..sized() };
    answers! {
        rb_upgrade_to(rt, -1, none(), 0, 1, none()) => INVALID;
        rb_upgrade_to(rt, 1_000_000, none(), 0, 1, none()) => SYSTEM;
        rb_upgrade_to(rt, fd, none(), 1, 1, none()) => NULL;
        rb_upgrade_to(rt, fd, &-1, 1, 1, none()) => INVALID;
        rb_upgrade_to(rt, fd, std::ptr::without_provenance(8), usize::MAX, 1, none()) => INVALID;
        rb_upgrade_to(rt, fd, none(), 0, 1, &mut { small }) => SIZE;
        rb_upgrade_receive(-1, 1, Some(&mut place())) => INVALID;
        rb_upgrade_receive(1_000_000, 1, Some(&mut place())) => SYSTEM;
        // That is no Unix socket.
        rb_upgrade_to(rt, listener.as_raw_fd(), none(), 0, 1, none()) => SYSTEM;
        rb_upgrade_receive(listener.as_raw_fd(), 1, Some(&mut place())) => SYSTEM;
        // Nobody says anything, in as much time as there is.
        rb_upgrade_to(rt, fd, none(), 0, 1, none()) => rb_error::RB_ERR_TIMED_OUT as c_int;
        // The other one has said why it gave up, and is gone.
        rb_upgrade_receive(other, PATIENCE_MS, Some(&mut place())) => UPGRADE;
        rb_upgrade_to(rt, fd, none(), 0, 1, none()) => UPGRADE;
        rb_call_from_parts(0, 1, Some(&mut MaybeUninit::uninit())) => rb_error::RB_ERR_NO_SUCH_CONNECTION as c_int;
        rb_runtime_free(Some(&mut made)) => 0;
    };
}

/// Each time something is wrong in the new process, the old one goes on; at last nothing is.
#[test]
fn the_old_runtime_goes_on_until_an_upgrade_is_confirmed() {
    let mut made = runtime(|options| options.clients_max = 2, &hooks());
    // SAFETY: just made.
    let rt = unsafe { made.as_ref() };
    answers! { rb_add_client(rt, 0, Some(&mut MaybeUninit::uninit())) => 0; };
    let gone = |thread: JoinHandle<(c_int, String)>| {
        let (answer, text) = thread.join().unwrap();
        assert_eq!(answer, UPGRADE, "{text}");
        answers! { rb_add_client(rt, 0, Some(&mut MaybeUninit::uninit())) => rb_error::RB_ERR_FULL as c_int; };
    };
    answers! { rb_add_client(rt, 0, Some(&mut MaybeUninit::uninit())) => 0; };

    // Given up, twice.
    let (from, thread) = hand_over(made);
    let mut upgrade = received(&from);
    answers! {
        rb_upgrade_free(Some(&mut upgrade)) => 0;
        rb_upgrade_free(Some(&mut upgrade)) => NULL;
        rb_upgrade_confirm(Some(&mut upgrade), none()) => NULL;
    };
    gone(thread);

    // Confirmed, but no runtime was made of it.
    let (from, thread) = hand_over(made);
    let mut upgrade = received(&from);
    answers! {
        rb_upgrade_confirm(Some(&mut upgrade), &mut rb_upgraded { size: 8, ..sized() }) => SIZE;
        rb_upgrade_confirm(Some(&mut upgrade), none()) => UPGRADE;
    };
    assert!(last_error().contains("no runtime was built of the upgrade"), "{}", last_error());
    answers! { rb_upgrade_confirm(Some(&mut upgrade), none()) => NULL; };
    gone(thread);

    // A runtime that does not suit, and then a second one.
    let (from, thread) = hand_over(made);
    let mut upgrade = received(&from);
    // SAFETY: just made.
    let found = unsafe { upgrade.as_ref() };
    let mut checkpoint = MaybeUninit::uninit();
    answers! { rb_upgrade_checkpoint(found, Some(&mut checkpoint)) => 0; };
    // SAFETY: written by a function that has not failed.
    let mut checkpoint = unsafe { checkpoint.assume_init() };
    assert_eq!(build(upgrade, |options| options.restore = checkpoint).0, INVALID);
    assert!(last_error().contains("restore and upgrade are both set"), "{}", last_error());
    answers! { rb_checkpoint_free(Some(&mut checkpoint)) => 0; };
    assert_eq!(build(upgrade, |options| options.clients_max = 1).0, INVALID, "{}", last_error());
    assert_eq!(build(upgrade, |_| ()).0, UPGRADE);
    assert!(last_error().contains("a runtime was built of this upgrade before"), "{}", last_error());
    answers! { rb_upgrade_free(Some(&mut upgrade)) => 0; };
    gone(thread);

    let (from, thread) = hand_over(made);
    let mut upgrade = received(&from);
    let (answer, mut next) = build(upgrade, |_| ());
    assert_eq!(answer, 0, "{}", last_error());
    assert_eq!(build(upgrade, |_| ()).0, UPGRADE, "the first one has it");
    // SAFETY: as above.
    let found = unsafe { upgrade.as_mut() }.unwrap();
    let (mut info, mut files) = (sized::<rb_upgrade_info>(), [-1; 2]);
    answers! {
        rb_get_upgrade_info(Some(found), none()) => NULL;
        rb_get_upgrade_info(Some(found), &mut rb_upgrade_info { size: 1, ..sized() }) => SIZE;
        rb_get_upgrade_info(Some(found), &mut info) => 0;
        rb_upgrade_checkpoint(Some(found), None) => NULL;
        rb_upgrade_take_files(Some(found), none(), 0) => rb_error::RB_ERR_NO_SPACE as c_int;
        rb_upgrade_take_files(Some(found), none(), 1) => NULL;
        rb_upgrade_take_files(Some(found), files.as_mut_ptr(), 2) => 1;
        rb_upgrade_take_files(Some(found), files.as_mut_ptr(), 2) => 0;
    };
    assert_eq!((info.connections, info.files, files[1]), (0, 1, -1));
    // SAFETY: given to us.
    unsafe { rustix::io::close(files[0]) };
    let mut upgraded = sized::<rb_upgraded>();
    answers! { rb_upgrade_confirm(Some(&mut upgrade), &mut upgraded) => 0; };
    assert_eq!((upgraded.clients, upgraded.connections, upgraded.undone), (2, 0, 0));
    assert!(upgraded.pause_ns > 0);
    assert_eq!(thread.join().unwrap().0, 0);
    // It has let go.
    let (socket, _peer) = UnixStream::pair().unwrap();
    answers! {
        rb_add_client(rt, 0, Some(&mut MaybeUninit::uninit())) => rb_error::RB_ERR_CLOSED as c_int;
        rb_upgrade_to(rt, socket.as_raw_fd(), none(), 0, 1, none()) => rb_error::RB_ERR_TIMED_OUT as c_int;
        rb_runtime_free(Some(&mut made)) => 0;
        // SAFETY: just made.
        rb_add_client(unsafe { next.as_ref() }, 0, Some(&mut MaybeUninit::uninit())) => 0;
        rb_runtime_free(Some(&mut next)) => 0;
    };
}
