//! What an embedder may do with the types: hand them to other threads, share them, put futures into executors.

#![cfg(not(loom))]

use ringback::*;

fn send<T: Send + 'static>() {}
fn send_and_sync<T: Send + Sync + 'static>() {}
fn an_error<T: std::error::Error + Send + Sync + 'static>() {}

#[test]
fn threads_may_have_it() {
    send_and_sync::<Runtime>();
    send_and_sync::<Builder>();
    send_and_sync::<CallToken>();
    send_and_sync::<Event>();
    send_and_sync::<SessionConfig>();
    send_and_sync::<(ClientId, SessionKey, ConnectionId, CallbackKey)>();
    send::<Outbound>();
    send::<Wait>();
    an_error::<Error>();
    an_error::<BuildError>();
    an_error::<InsertError>();
    an_error::<WaitError>();
    an_error::<AddError>();
}
