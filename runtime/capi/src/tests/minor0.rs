//! A client of minor version 0, from C.

use super::common::eventually;
use super::*;
use crate::client::{rb_add_client, rb_security};
use crate::numbers::rb_connect_policy;
use crate::path::{rb_confirm, rb_is_path_down, rb_path_options, rb_set_client_id};
use crate::queue::{rb_event, rb_event_kind};
use crate::stats::{rb_get_stats, rb_stats};
use crate::{rb_runtime_free, rb_session};
use std::io::Read;
use std::net::TcpListener;
use std::sync::Mutex;

static EVENTS: Mutex<Vec<rb_event>> = Mutex::new(Vec::new());

extern "C" fn event(_: *mut c_void, event: *const rb_event) {
    // SAFETY: the runtime's, for the time of the call.
    EVENTS.lock().unwrap().push(unsafe { event.read() });
}

/// A sockaddr_in of 127.0.0.1.
fn loopback() -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..2].copy_from_slice(&2u16.to_ne_bytes());
    bytes[2..8].copy_from_slice(&[3, 255, 127, 0, 0, 1]);
    bytes
}

#[test]
fn a_path_is_connected_to_when_it_is_confirmed_and_supplied_where_no_address_is_given() {
    let table = rb_hooks { event: Some(event), ..hooks() };
    let mut made = runtime(|options| (options.connects_max, options.connect_timeout_ms) = (4, 10_000), &table);
    // SAFETY: just made.
    let rt = unsafe { made.as_ref() };
    let mut place = MaybeUninit::uninit();
    assert_eq!(rb_add_client(rt, 0, Some(&mut place)), 0);
    // SAFETY: written by a function that has not failed.
    let client = unsafe { place.assume_init() };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let [high, low] = listener.local_addr().unwrap().port().to_be_bytes();
    let (uaddr, peer) = (format!("127.0.0.1.{high}.{low}"), loopback());
    let options = rb_path_options {
        program: 0x4000_0000,
        callback_ident: 70,
        security: rb_security { flavor: 0, ..sized::<rb_path_options>().security },
        r_netid: b"tcp".as_ptr(),
        r_netid_bytes: 3,
        r_addr: uaddr.as_ptr(),
        r_addr_bytes: uaddr.len(),
        peer: peer.as_ptr(),
        peer_bytes: peer.len(),
        window: 4,
        ..sized()
    };
    let set = |options: &rb_path_options| {
        let mut path = MaybeUninit::uninit();
        // SAFETY: P2, P3
        let answer = unsafe { rb_set_client_id(rt, client, options, Some(&mut path)) };
        // SAFETY: written whatever the answer is.
        (answer, unsafe { path.assume_init() })
    };
    let (answer, first) = set(&options);
    assert_eq!(answer, 0, "{}", last_error());
    let (answer, path) = set(&options);
    assert_eq!((answer, path.client), (0, client));
    let stale = rb_error::RB_ERR_STALE as c_int;
    assert_eq!((rb_confirm(rt, first), rb_confirm(rt, path), rb_confirm(rt, path)), (stale, 0, stale));
    let (mut stream, _) = listener.accept().unwrap();
    let mut probe = [0; 44];
    stream.read_exact(&mut probe).unwrap();
    assert_eq!(probe[16..28], [0x40, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0], "program, version, CB_NULL");
    assert_eq!(rb_is_path_down(rt, client), 0, "nobody knows yet");
    let elsewhere = "192.0.2.1.8.1";
    assert_eq!(set(&rb_path_options { r_addr: elsewhere.as_ptr(), r_addr_bytes: 13, ..options }).0, INVALID);
    assert!(last_error().contains("the policy does not allow"), "{}", last_error());
    let supplied = rb_path_options { r_netid: ptr::null(), r_addr: ptr::null(), ..options };
    let (answer, path) = set(&supplied);
    assert_eq!((answer, rb_confirm(rt, path)), (0, 0));
    let wanted = |event: &rb_event| {
        let session = rb_session { client: event.session.client, serial: event.session.serial };
        event.kind == rb_event_kind::RB_EVENT_CONNECTION_WANTED as i32 && session == path
    };
    eventually("a connection is asked for", || EVENTS.lock().unwrap().iter().any(wanted));
    assert_eq!(stream.read(&mut probe).unwrap(), 0, "the former path's connection is closed");
    let mut stats = sized::<rb_stats>();
    // SAFETY: P3
    assert_eq!(unsafe { rb_get_stats(rt, &mut stats) }, 0);
    assert_eq!(stats.connects, 1);
    assert_eq!(rb_runtime_free(Some(&mut made)), 0);
}

/// What a policy was asked, and what it is to answer.
type Asked = Mutex<(Vec<(Vec<u8>, Vec<u8>)>, c_int)>;

extern "C" fn allows(
    user: *mut c_void,
    address: *const u8,
    address_bytes: usize,
    peer: *const u8,
    peer_bytes: usize,
) -> c_int {
    // SAFETY: of the test below, which outlives its runtime.
    let asked = unsafe { user.cast::<Asked>().as_ref() }.unwrap();
    // SAFETY: the runtime's, for the time of the call.
    let address = unsafe { std::slice::from_raw_parts(address, address_bytes) };
    // SAFETY: as above.
    let peer = unsafe { std::slice::from_raw_parts(peer, peer_bytes) };
    let (said, answer) = &mut *asked.lock().unwrap();
    said.push((address.to_vec(), peer.to_vec()));
    *answer
}

#[test]
fn a_function_says_to_where_connections_are_made() {
    let asked: Asked = Mutex::new((Vec::new(), 0));
    let user = (&raw const asked).cast_mut().cast();
    let asking = |options: &mut rb_options| {
        options.connect_policy = rb_connect_policy::RB_CONNECT_ASK as i32;
        options.connect_allows = Some(allows);
        options.connect_user = user;
    };
    let mut made = runtime(asking, &hooks());
    // SAFETY: just made.
    let rt = unsafe { made.as_ref() };
    let mut place = MaybeUninit::uninit();
    assert_eq!(rb_add_client(rt, 0, Some(&mut place)), 0);
    // SAFETY: written by a function that has not failed.
    let client = unsafe { place.assume_init() };
    let peer = loopback();
    let set = |netid: &[u8], uaddr: &str| {
        let options = rb_path_options {
            program: 0x4000_0000,
            security: rb_security { flavor: 0, ..sized::<rb_path_options>().security },
            r_netid: netid.as_ptr(),
            r_netid_bytes: netid.len(),
            r_addr: uaddr.as_ptr(),
            r_addr_bytes: uaddr.len(),
            peer: peer.as_ptr(),
            peer_bytes: peer.len(),
            window: 4,
            ..sized()
        };
        let mut path = MaybeUninit::uninit();
        // SAFETY: P2, P3
        unsafe { rb_set_client_id(rt, client, &options, Some(&mut path)) }
    };
    assert_eq!(set(b"tcp", "192.0.2.1.8.1"), INVALID);
    assert!(last_error().contains("the policy does not allow"), "{}", last_error());
    asked.lock().unwrap().1 = 1;
    assert_eq!(set(b"tcp6", "2001:db8::1.8.1"), 0, "{}", last_error());
    // Nor is it asked about what is no host's address.
    assert_eq!(set(b"tcp", "224.0.0.1.8.1"), INVALID);
    let said = asked.lock().unwrap().0.clone();
    assert_eq!(
        said.iter().map(|(address, from)| (address.len(), from == &peer)).collect::<Vec<_>>(),
        [(16, true), (28, true)]
    );
    assert_eq!(said[0].0[2..8], [8, 1, 192, 0, 2, 1]);
    assert_eq!((&said[1].0[2..4], said[1].0[8..12].to_vec()), (&[8, 1][..], vec![0x20, 1, 0xd, 0xb8]));
    assert_eq!(rb_runtime_free(Some(&mut made)), 0);
}
