//! What an operator must know, told to a function in C.

use super::common::eventually;
use super::*;
use crate::client::{rb_add_client, rb_security};
use crate::log::{rb_log_level, rb_log_message};
use crate::path::{rb_confirm, rb_path_options, rb_set_client_id};
use crate::{rb_runtime_backend_reason, rb_runtime_free};
use std::sync::Mutex;

type Told = (i32, i32, u64, u64, String);

/// `user` is a list of its own.
extern "C" fn log(user: *mut c_void, message: *const rb_log_message) {
    // SAFETY: of the test below, which outlives its runtime.
    let told = unsafe { user.cast::<Mutex<Vec<Told>>>().as_ref() }.unwrap();
    // SAFETY: the runtime's, for the time of the call.
    let message = unsafe { message.read() };
    // SAFETY: as above.
    let text = unsafe { CStr::from_ptr(message.text) }.to_str().unwrap().to_owned();
    told.lock().unwrap().push((message.level, message.reactor, message.client, message.left_out, text));
}

#[test]
fn a_function_is_told_what_an_operator_must_know() {
    let told: Mutex<Vec<Told>> = Mutex::default();
    let user = (&raw const told).cast_mut().cast();
    let logging = |options: &mut rb_options| {
        options.log = Some(log);
        (options.log_user, options.backend, options.connect_timeout_ms) = (user, 2, 1);
    };
    let mut made = runtime(logging, &hooks());
    // SAFETY: just made.
    let rt = unsafe { made.as_ref() };
    // SAFETY: lives as long as the runtime.
    let reason = unsafe { CStr::from_ptr(rb_runtime_backend_reason(rt)) }.to_str().unwrap();
    let start = (rb_log_level::RB_LOG_INFO as i32, -1, 0, 0, format!("back end epoll: {reason}"));
    assert_eq!(*told.lock().unwrap(), [start]);
    let mut place = MaybeUninit::uninit();
    assert_eq!(rb_add_client(rt, 0, Some(&mut place)), 0);
    // SAFETY: written by a function that has not failed.
    let client = unsafe { place.assume_init() };
    let security = rb_security { flavor: 0, ..sized::<rb_path_options>().security };
    // Without an address: connections are the embedder's to make, who does not.
    let options = rb_path_options { program: 0x4000_0000, security, window: 4, ..sized() };
    let mut path = MaybeUninit::uninit();
    // SAFETY: P2, P3
    assert_eq!(unsafe { rb_set_client_id(rt, client, &options, Some(&mut path)) }, 0);
    // SAFETY: written by a function that has not failed.
    assert_eq!(rb_confirm(rt, unsafe { path.assume_init() }), 0);
    eventually("it is told", || told.lock().unwrap().len() > 1);
    let warn = (rb_log_level::RB_LOG_WARN as i32, 0, client, 0);
    let (level, reactor, of, left_out, text) = told.lock().unwrap()[1].clone();
    assert_eq!((level, reactor, of, left_out), warn, "{text}");
    assert_eq!(text, "cannot be called back: no connection was supplied in time");
    assert_eq!(rb_runtime_free(Some(&mut made)), 0);
}
