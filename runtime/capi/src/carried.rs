//! What is on the queues when a runtime is handed over, and was not taken: it goes along, behind the program's own part of the
//! checkpoint, and is told in the next process.
//!
//! Calls, events, and connections that are gone: whoever is to answer or to know is in the next process. What is about an embedder's
//! own transports ends here, as they do, and so do notices, whose handles are of this process. Completions are the
//! runtime's, which gives them again.

use crate::connection::rb_call;
use crate::queue::{Mailbox, Message, rb_event};
use crate::rb_session;
use runtime::{CallToken, ConnectionId};
use std::ffi::CString;
use std::sync::Arc;

/// Ends what was added; before it is how many bytes that were.
const MAGIC: [u8; 8] = *b"rbqueues";
const CALL: u64 = 1;
const EVENT: u64 = 2;
const CLOSED: u64 = 3;

/// Messages that were taken off the queues, of each queue.
pub struct Carried(Vec<Vec<Message>>);

impl Carried {
    /// Takes off the queues what goes along.
    pub fn take(mailboxes: &[Arc<Mailbox>]) -> Self {
        let goes =
            |message: &Message| matches!(message, Message::Event(..) | Message::Call(_) | Message::Closed { .. });
        Carried(mailboxes.iter().map(|mailbox| mailbox.extract(goes)).collect())
    }

    /// It stays here: the upgrade came to nothing. What has come meanwhile is told after it.
    pub fn put_back(self, mailboxes: &[Arc<Mailbox>]) {
        for (mailbox, messages) in mailboxes.iter().zip(self.0) {
            let later = mailbox.extract(|_| true);
            messages.into_iter().chain(later).for_each(|message| mailbox.post(message));
        }
    }

    /// Appends it to what the program has to say.
    pub fn append(&self, own: &mut Vec<u8>) {
        let begin = own.len();
        for message in self.0.iter().flatten() {
            append(message, own);
        }
        let bytes = (own.len() - begin) as u64;
        own.extend_from_slice(&bytes.to_le_bytes());
        own.extend_from_slice(&MAGIC);
    }
}

/// What the program has said, and what was on the queues.
pub fn split(own: &[u8]) -> (&[u8], &[u8]) {
    let found = own.strip_suffix(&MAGIC).and_then(|rest| {
        let (rest, bytes) = rest.split_last_chunk::<8>()?;
        let begin = rest.len().checked_sub(usize::try_from(u64::from_le_bytes(*bytes)).ok()?)?;
        Some(rest.split_at(begin))
    });
    found.unwrap_or((own, &[]))
}

fn append(message: &Message, out: &mut Vec<u8>) {
    let mut numbers = |numbers: &[u64]| numbers.iter().for_each(|n| out.extend_from_slice(&n.to_le_bytes()));
    match message {
        Message::Call(call) => {
            let (connection, serial) = call.token().to_parts();
            numbers(&[CALL, connection.to_bits(), serial, call.record().len() as u64]);
            out.extend_from_slice(call.record());
        }
        Message::Event(event, text) => {
            let (kind, detail) = (event.kind as u32, event.detail as u32);
            let session = event.session;
            numbers(&[EVENT, u64::from(kind) << 32 | u64::from(detail), event.client, session.client, session.serial]);
            numbers(&[event.connection, event.key, event.cookie, event.held, event.keep, event.recalled]);
            numbers(&[text.as_bytes().len() as u64]);
            out.extend_from_slice(text.as_bytes());
        }
        Message::Closed { connection } => numbers(&[CLOSED, *connection]),
        Message::Send { .. } | Message::About { .. } => {}
    }
}

/// The messages in some bytes, up to one that is none.
pub fn messages(mut bytes: &[u8]) -> Vec<Message> {
    std::iter::from_fn(|| message(&mut bytes)).collect()
}

fn message(bytes: &mut &[u8]) -> Option<Message> {
    match number(bytes)? {
        CALL => {
            let (connection, serial) = (number(bytes)?, number(bytes)?);
            let token = CallToken::from_parts(ConnectionId::from_bits(connection), serial);
            Some(Message::Call(Box::new(rb_call::from_parts(token, text(bytes)?.to_vec()))))
        }
        EVENT => {
            let kind = number(bytes)?;
            let mut event = rb_event { kind: (kind >> 32) as i32, detail: kind as u32 as i32, ..rb_event::default() };
            event.client = number(bytes)?;
            event.session = rb_session { client: number(bytes)?, serial: number(bytes)? };
            let mut next = || number(bytes);
            (event.connection, event.key, event.cookie) = (next()?, next()?, next()?);
            (event.held, event.keep, event.recalled) = (next()?, next()?, next()?);
            Some(Message::Event(event, CString::new(text(bytes)?).ok()?))
        }
        CLOSED => Some(Message::Closed { connection: number(bytes)? }),
        _ => None,
    }
}

fn number(bytes: &mut &[u8]) -> Option<u64> {
    let (number, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(u64::from_le_bytes(*number))
}

fn text<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let count = usize::try_from(number(bytes)?).ok()?;
    let (text, rest) = bytes.split_at_checked(count)?;
    *bytes = rest;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that nobody has written are what the program has said, or no message: whatever is cut off or turned over.
    #[test]
    fn bytes_of_anybody_are_no_messages() {
        assert_eq!(split(b"own"), (&b"own"[..], &b""[..]));
        let event = rb_event { kind: 5, detail: -1, key: 7, ..rb_event::default() };
        let call = rb_call::from_parts(CallToken::from_parts(ConnectionId::from_bits(9), 3), b"record".to_vec());
        let all = [
            Message::Event(event, c"why".to_owned()),
            Message::Call(Box::new(call)),
            Message::Closed { connection: 4 },
        ];
        let mut own = b"own".to_vec();
        Carried(vec![all.into()]).append(&mut own);
        let (said, queued) = split(&own);
        assert_eq!(said, b"own");
        let found = messages(queued);
        let [Message::Event(told, text), Message::Call(call), Message::Closed { connection: 4 }] = &found[..] else {
            panic!("{} messages", found.len())
        };
        assert_eq!((told.kind, told.detail, told.key, &text[..]), (5, -1, 7, c"why"));
        assert_eq!((call.connection(), call.record(), call.token().to_parts().1), (9, &b"record"[..], 3));
        for end in 0..queued.len() {
            assert!(messages(&queued[..end]).len() < 3);
        }
        for at in 0..own.len() {
            let mut other = own.clone();
            other[at] = !other[at];
            assert!(messages(split(&other).1).len() <= 3);
        }
        let huge = [&b"own"[..], &u64::MAX.to_le_bytes(), &MAGIC].concat();
        assert_eq!(split(&huge), (&huge[..], &b""[..]));
    }
}
