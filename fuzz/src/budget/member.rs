//! A client of the site.

use super::Server;
use ringback::{ConnectionId, Outbound, Runtime, Transport};
use ringback_rpc::message::{CallHeader, ReplyHeader};
use ringback_rpc::nfs4::Status;
use ringback_rpc::nfs4::callback::{CbArgs, CbCompoundArgs, CbCompoundRes, CbRes, CbSequenceRes};
use ringback_rpc::record::RecordReader;
use ringback_rpc::xdr::{Decode, Encode, Reader, Writer};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Delegations that a client returns in a second.
const RETURNS_PER_SECOND: u64 = 5000;

/// What a client does with CB_RECALL_ANY.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Returns what is too much.
    Obeys,
    /// Answers NFS4_OK and returns nothing. What is recalled it returns.
    Ignores,
    /// Answers nothing at all.
    Dead,
}

/// A CB_RECALL_ANY as a client got it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Asked {
    /// When, in seconds.
    pub at_s: f64,
    /// How many it held.
    pub held: u32,
    /// craa_objects_to_keep.
    pub keep: u32,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What has arrived.
struct Wire(Arc<Mutex<Vec<u8>>>);

impl Transport for Wire {
    fn send(&mut self, outbound: Outbound) {
        lock(&self.0).extend_from_slice(outbound.bytes());
        outbound.complete(Ok(()));
    }
    fn close(&mut self) {}
}

/// The client.
pub(super) struct Member {
    pub index: usize,
    manner: Manner,
    connection: Option<ConnectionId>,
    arrived: Arc<Mutex<Vec<u8>>>,
    reader: RecordReader,
    pub asked: Vec<Asked>,
    /// It may keep so many of what it held when it was asked.
    surplus: u64,
    /// The next one that it gives up of its own choice, from the newest down.
    next: u32,
    recalled: VecDeque<u32>,
}

impl Member {
    pub fn new(index: usize, manner: Manner) -> (Self, Box<dyn Transport>) {
        let arrived = Arc::default();
        let wire = Box::new(Wire(Arc::clone(&arrived)));
        let reader = RecordReader::new(1 << 20);
        let (asked, recalled) = Default::default();
        (Member { index, manner, connection: None, arrived, reader, asked, surplus: 0, next: 0, recalled }, wire)
    }

    pub fn on(self, connection: ConnectionId) -> Self {
        Member { connection: Some(connection), ..self }
    }

    /// Answers what has arrived; whether anything was answered.
    pub fn answer(&mut self, runtime: &Runtime, now_s: f64, held: u32) -> bool {
        let bytes = std::mem::take(&mut *lock(&self.arrived));
        let (mut input, mut answered) = (bytes.as_slice(), false);
        while let Some(call) = self.reader.next(&mut input).expect("the runtime sends records") {
            if self.manner == Manner::Dead {
                continue;
            }
            let reply = self.reply(&call, now_s, held);
            runtime.receive(self.connection.expect("it has one"), reply);
            answered = true;
        }
        answered
    }

    fn reply(&mut self, call: &[u8], now_s: f64, held: u32) -> Vec<u8> {
        let mut r = Reader::new(call);
        let header = CallHeader::decode(&mut r).expect("a call");
        let compound = CbCompoundArgs::decode(&mut r).expect("a CB_COMPOUND");
        let mut space = [0; 4096];
        let mut w = Writer::new(&mut space);
        let head = CbCompoundRes { status: Status::NFS4_OK, tag: b"", count: compound.count };
        ReplyHeader::success(header.xid).encode(&mut w).expect("there is room");
        head.encode(&mut w).expect("there is room");
        for _ in 0..compound.count {
            let result = self.obey(&CbArgs::decode(&mut r).expect("an operation"), now_s, held);
            result.encode(&mut w).expect("there is room");
        }
        w.written().to_vec()
    }

    fn obey(&mut self, args: &CbArgs<'_>, now_s: f64, held: u32) -> CbRes<'static> {
        match args {
            CbArgs::Sequence(sequence) => CbRes::Sequence(Ok(CbSequenceRes {
                session_id: sequence.session_id,
                sequence_id: sequence.sequence_id,
                slot_id: sequence.slot_id,
                highest_slot_id: 15,
                target_highest_slot_id: 15,
            })),
            CbArgs::RecallAny(any) => {
                self.asked.push(Asked { at_s: now_s, held, keep: any.objects_to_keep });
                if self.manner == Manner::Obeys {
                    self.surplus = held.saturating_sub(any.objects_to_keep).into();
                    self.next = self.next.max(held);
                }
                CbRes::RecallAny(Status::NFS4_OK)
            }
            CbArgs::Recall(recall) => {
                let mut cookie = [0; 8];
                cookie.copy_from_slice(&recall.stateid.other[..8]);
                self.recalled.push_back(u64::from_be_bytes(cookie) as u32);
                CbRes::Recall(Status::NFS4_OK)
            }
            other => panic!("nobody sends {other:?} here"),
        }
    }

    /// Returns what it can in a part of a second.
    pub fn act(&mut self, server: &Server, parts: u64) {
        let mut left = RETURNS_PER_SECOND / parts;
        while left > 0
            && let Some(number) = self.recalled.pop_front()
        {
            left -= u64::from(server.end(self.index, number));
        }
        while left > 0 && self.surplus > 0 && self.next > 0 {
            self.next -= 1;
            let returned = u64::from(server.end(self.index, self.next));
            (left, self.surplus) = (left - returned, self.surplus - returned);
        }
    }
}
