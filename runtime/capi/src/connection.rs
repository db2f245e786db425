//! Connections: sockets handed over, and embedders' own transports; and the fore-channel calls that arrive on them.

use crate::error::{Failure, guard, rb_error};
use crate::pointer::{self, User, Versioned, give, not_null};
use crate::queue::{Mailbox, Message, rb_item_kind};
use crate::{rb_connection, rb_runtime};
use ringback_rpc::record::RecordReader;
use runtime::{Call, CallToken, Outbound, Transport};
use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

/// A fore-channel call that waits for its answer.
pub struct rb_call {
    token: CallToken,
    record: Vec<u8>,
}

impl rb_call {
    pub fn new(call: Call<'_>) -> Self {
        let (token, record) = call.defer();
        rb_call { token, record }
    }

    pub fn from_parts(token: CallToken, record: Vec<u8>) -> Self {
        rb_call { token, record }
    }

    pub fn token(&self) -> &CallToken {
        &self.token
    }

    pub fn record(&self) -> &[u8] {
        &self.record
    }

    pub fn connection(&self) -> rb_connection {
        self.token.connection().to_bits()
    }
}

/// Records on their way out through an embedder's transport.
pub struct rb_outbound(Outbound);

impl rb_outbound {
    pub fn bytes(&self) -> &[u8] {
        self.0.bytes()
    }

    pub fn connection(&self) -> rb_connection {
        self.0.connection().to_bits()
    }
}

/// Bytes of the caller.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct rb_bytes {
    /// Where; may be null if there are none.
    pub data: *const u8,
    /// How many.
    pub count: usize,
}

impl rb_bytes {
    /// # Safety
    ///
    /// P2.
    pub unsafe fn get<'a>(self, what: &str) -> Result<&'a [u8], Failure> {
        // SAFETY: P2
        unsafe { pointer::slice(self.data, self.count, what) }
    }
}

/// An embedder's transport for one connection: its own event loop, RDMA, TLS. Set `size` and `user`; with `send` null all of
/// it is told on a queue (RB_ITEM_SEND, ...), else by these functions, which are called on a reactor's
/// thread, with `user`, and must neither block nor unwind.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct rb_transport {
    /// sizeof(rb_transport).
    pub size: usize,
    /// Handed to every function, and in every item.
    pub user: *mut c_void,
    /// Which queue tells of it, if `send` is null.
    pub queue: u32,
    /// 0.
    pub reserved: u32,
    /// Send this: rb_outbound_bytes() has the bytes, rb_outbound_complete() says that they were sent.
    pub send: Option<extern "C" fn(user: *mut c_void, outbound: *mut rb_outbound)>,
    /// Hand in nothing more for now, so that the peer is held back.
    pub pause: Option<extern "C" fn(user: *mut c_void)>,
    /// Go on.
    pub resume: Option<extern "C" fn(user: *mut c_void)>,
    /// The runtime is done with the connection. What is under way on it must not be sent any more.
    pub close: Option<extern "C" fn(user: *mut c_void)>,
}

// SAFETY: as the trait asks for.
unsafe impl Versioned for rb_transport {
    const NAME: &'static str = "rb_transport";
}

/// A transport whose embedder is told by functions.
struct Direct(rb_transport);

// SAFETY: functions are the same on every thread; `user` is a number to us.
unsafe impl Send for Direct {}

impl Direct {
    fn call(&self, function: Option<extern "C" fn(*mut c_void)>) {
        if let Some(function) = function {
            function(self.0.user);
        }
    }
}

impl Transport for Direct {
    fn send(&mut self, outbound: Outbound) {
        if let Some(send) = self.0.send {
            send(self.0.user, Box::into_raw(Box::new(rb_outbound(outbound))));
        }
    }

    fn pause(&mut self) {
        self.call(self.0.pause);
    }

    fn resume(&mut self) {
        self.call(self.0.resume);
    }

    fn close(&mut self) {
        self.call(self.0.close);
    }
}

/// A transport whose embedder is told on a queue.
struct Queued {
    mailbox: Arc<Mailbox>,
    user: User,
}

impl Queued {
    fn tell(&self, kind: rb_item_kind) {
        self.mailbox.post(Message::About { kind, user: self.user });
    }
}

impl Transport for Queued {
    fn send(&mut self, outbound: Outbound) {
        self.mailbox.post(Message::Send { user: self.user, outbound: Box::new(rb_outbound(outbound)) });
    }

    fn pause(&mut self) {
        self.tell(rb_item_kind::RB_ITEM_PAUSE);
    }

    fn resume(&mut self) {
        self.tell(rb_item_kind::RB_ITEM_RESUME);
    }

    fn close(&mut self) {
        self.tell(rb_item_kind::RB_ITEM_CLOSE);
    }
}

fn about(connection: rb_connection) -> impl FnOnce() -> String {
    move || format!("connection {connection:#x}")
}

/// Hands over a connected stream socket. It is the runtime's from then on; after an error it is still the caller's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rb_add_connection(
    runtime: Option<&rb_runtime>,
    fd: c_int,
    connection: Option<&mut MaybeUninit<rb_connection>>,
) -> c_int {
    guard(
        "rb_add_connection",
        || format!("descriptor {fd}"),
        || {
            let connection = not_null(connection, "connection")?;
            connection.write(0);
            let runtime = not_null(runtime, "runtime")?;
            if fd < 0 {
                return Err(Failure::new(rb_error::RB_ERR_INVALID, "no descriptor is negative"));
            }
            // SAFETY: not -1, and only used to duplicate it: the kernel says if it is not open.
            let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
            // A duplicate is handed over: the original can be kept if that is refused.
            let duplicate = rustix::io::fcntl_dupfd_cloexec(borrowed, 0)
                .map_err(|error| Failure::new(rb_error::RB_ERR_SYSTEM, format!("cannot be taken over: {error}")))?;
            let added = runtime.runtime.add_connection(duplicate)?;
            // SAFETY: open, and the caller's to give away.
            unsafe { rustix::io::close(fd) };
            connection.write(added.to_bits());
            Ok(0)
        },
    )
}

/// A connection over an embedder's own transport.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rb_add_transport(
    runtime: Option<&rb_runtime>,
    transport: *const rb_transport,
    connection: Option<&mut MaybeUninit<rb_connection>>,
) -> c_int {
    guard("rb_add_transport", String::new, || {
        let connection = not_null(connection, "connection")?;
        connection.write(0);
        let runtime = not_null(runtime, "runtime")?;
        // SAFETY: P3
        let transport = unsafe { pointer::read(transport, "transport") }?;
        let boxed: Box<dyn Transport> = if transport.send.is_some() {
            Box::new(Direct(transport))
        } else {
            let Some(mailbox) = runtime.mailboxes.get(transport.queue as usize) else {
                let text =
                    format!("transport.send is null, and there is no queue {} to tell of sends", transport.queue);
                return Err(Failure::new(rb_error::RB_ERR_INVALID, text));
            };
            Box::new(Queued { mailbox: Arc::clone(mailbox), user: User(transport.user) })
        };
        connection.write(runtime.runtime.add_transport(boxed)?.to_bits());
        Ok(0)
    })
}

/// Hands in one record (without its mark) that an embedder's transport has received. It is copied.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rb_receive(
    runtime: Option<&rb_runtime>,
    connection: rb_connection,
    record: *const u8,
    record_bytes: usize,
) -> c_int {
    guard("rb_receive", about(connection), || {
        let runtime = not_null(runtime, "runtime")?;
        // SAFETY: P2
        let record = unsafe { pointer::slice(record, record_bytes, "record") }?;
        runtime.runtime.receive(runtime.connection(connection)?, record.to_vec());
        Ok(0)
    })
}

/// Closes a connection, or says that an embedder's transport has lost it. Calls sent on it go out again on another
/// connection that is bound to their session.
#[unsafe(no_mangle)]
pub extern "C" fn rb_close_connection(runtime: Option<&rb_runtime>, connection: rb_connection) -> c_int {
    guard("rb_close_connection", about(connection), || {
        let runtime = not_null(runtime, "runtime")?;
        runtime.runtime.close_connection(runtime.connection(connection)?);
        Ok(0)
    })
}

/// The bytes to send, which live as long as `outbound` and do not move: one record or several, each with its mark.
#[unsafe(no_mangle)]
pub extern "C" fn rb_outbound_bytes(
    outbound: Option<&rb_outbound>,
    bytes: Option<&mut MaybeUninit<*const u8>>,
    bytes_count: Option<&mut MaybeUninit<usize>>,
) -> c_int {
    guard("rb_outbound_bytes", String::new, || {
        let found = not_null(outbound, "outbound")?.bytes();
        not_null(bytes, "bytes")?.write(found.as_ptr());
        not_null(bytes_count, "bytes_count")?.write(found.len());
        Ok(0)
    })
}

/// Gives up records that were sent (`error` 0), or could not be (an errno): then the connection is closed.
#[unsafe(no_mangle)]
pub extern "C" fn rb_outbound_complete(outbound: Option<&mut *mut rb_outbound>, error: c_int) -> c_int {
    guard("rb_outbound_complete", String::new, || {
        // SAFETY: P1
        let taken = unsafe { pointer::take(outbound, "outbound") }?;
        let result = if error == 0 { Ok(()) } else { Err(std::io::Error::from_raw_os_error(error.saturating_abs())) };
        taken.0.complete(result);
        Ok(0)
    })
}

/// Finds the records in the bytes that a transport receives: RPC's record marks (RFC 5531 section 11).
pub struct rb_reader(RecordReader);

/// Makes a reader for one connection; a record may have `record_bytes_max` bytes.
#[unsafe(no_mangle)]
pub extern "C" fn rb_reader_new(record_bytes_max: usize, reader: Option<&mut MaybeUninit<*mut rb_reader>>) -> c_int {
    guard("rb_reader_new", String::new, || {
        let reader = not_null(reader, "reader")?;
        reader.write(std::ptr::null_mut());
        if record_bytes_max == 0 || record_bytes_max > 1 << 30 {
            let text = format!("record_bytes_max is {record_bytes_max}, which is not in 1..={}", 1 << 30);
            return Err(Failure::new(rb_error::RB_ERR_INVALID, text));
        }
        give(reader, rb_reader(RecordReader::new(record_bytes_max)));
        Ok(0)
    })
}

/// Takes received bytes, cut anywhere, and hands each record that is complete in to `connection`, as rb_receive() does.
/// Gives how many; RB_ERR_XDR: this is no sequence of records, close the connection. Not from two threads at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rb_reader_feed(
    reader: Option<&mut rb_reader>,
    runtime: Option<&rb_runtime>,
    connection: rb_connection,
    bytes: *const u8,
    bytes_count: usize,
) -> c_int {
    guard("rb_reader_feed", about(connection), || {
        let (reader, runtime) = (not_null(reader, "reader")?, not_null(runtime, "runtime")?);
        let connection = runtime.connection(connection)?;
        // SAFETY: P2
        let mut input = unsafe { pointer::slice(bytes, bytes_count, "bytes") }?;
        let mut records = 0;
        let malformed = |error| Failure::new(rb_error::RB_ERR_XDR, format!("{error}"));
        while let Some(record) = reader.0.next(&mut input).map_err(malformed)? {
            runtime.runtime.receive(connection, record.into_vec());
            records += 1;
        }
        Ok(records)
    })
}

/// Gives a reader up.
#[unsafe(no_mangle)]
pub extern "C" fn rb_reader_free(reader: Option<&mut *mut rb_reader>) -> c_int {
    guard("rb_reader_free", String::new, || {
        // SAFETY: P1
        drop(unsafe { pointer::take(reader, "reader") }?);
        Ok(0)
    })
}

/// The record of a call, which lives as long as `call`: an RPC call header and the arguments, without the record mark.
/// `connection` may be null.
#[unsafe(no_mangle)]
pub extern "C" fn rb_call_record(
    call: Option<&rb_call>,
    connection: Option<&mut MaybeUninit<rb_connection>>,
    record: Option<&mut MaybeUninit<*const u8>>,
    record_bytes: Option<&mut MaybeUninit<usize>>,
) -> c_int {
    guard("rb_call_record", String::new, || {
        let call = not_null(call, "call")?;
        not_null(record, "record")?.write(call.record.as_ptr());
        not_null(record_bytes, "record_bytes")?.write(call.record.len());
        if let Some(connection) = connection {
            connection.write(call.connection());
        }
        Ok(0)
    })
}

/// Answers a call, from any thread, and gives it up: the reply's record (RPC header and results, no record mark) is the
/// buffers one after the other. They are copied. After an error the call is still the caller's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rb_call_reply(
    runtime: Option<&rb_runtime>,
    call: Option<&mut *mut rb_call>,
    buffers: *const rb_bytes,
    buffers_count: usize,
) -> c_int {
    guard("rb_call_reply", String::new, || {
        let runtime = not_null(runtime, "runtime")?;
        // SAFETY: P2
        let buffers = unsafe { pointer::slice(buffers, buffers_count, "buffers") }?;
        // SAFETY: P2
        let copy = |one: &rb_bytes| unsafe { one.get("buffers[].data") }.map(<[u8]>::to_vec);
        let copies = buffers.iter().map(copy).collect::<Result<Vec<_>, _>>()?;
        // SAFETY: P1
        let call = unsafe { pointer::take(call, "call") }?;
        runtime.runtime.reply(call.token, copies);
        Ok(0)
    })
}

/// Gives a call up without an answer: only for one whose connection is gone. It counts against the connection's limit of
/// unanswered calls otherwise.
#[unsafe(no_mangle)]
pub extern "C" fn rb_call_free(call: Option<&mut *mut rb_call>) -> c_int {
    guard("rb_call_free", String::new, || {
        // SAFETY: P1
        drop(unsafe { pointer::take(call, "call") }?);
        Ok(0)
    })
}
