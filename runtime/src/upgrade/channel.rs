//! Messages and descriptors between two processes, over a Unix socket.

use super::UpgradeError;
use crate::checkpoint::pace::Pace;
use rustix::io::{Errno, IoSlice, IoSliceMut};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use std::io::{self, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// Descriptors in one message: the kernel takes no more (SCM_MAX_FD).
pub(super) const DESCRIPTORS_PER_MESSAGE_MAX: usize = 253;
/// Longest message, without what is in files.
const MESSAGE_BYTES_MAX: usize = 4096;
/// Begins each message.
const MAGIC: u32 = u32::from_le_bytes(*b"rbup");
const HEAD_BYTES: usize = 16;
/// How long saying no may take.
const REFUSAL_NS: u64 = 100_000_000;

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Kind {
    Hello = 1,
    Refused = 2,
    State = 3,
    Files = 4,
    Sockets = 5,
    Received = 6,
    Ready = 7,
    Go = 8,
}

/// A message that has come.
pub(super) struct Message {
    kind: u32,
    pub payload: Vec<u8>,
    pub files: Vec<OwnedFd>,
}

impl Message {
    /// A number of the payload.
    pub fn number(&self, at: usize) -> Result<u64, UpgradeError> {
        let bytes = self.payload.get(at * 8..at * 8 + 8).and_then(|bytes| bytes.try_into().ok());
        bytes.map(u64::from_le_bytes).ok_or(UpgradeError::Malformed("a message is too short"))
    }
}

/// One end of the socket.
#[derive(Debug)]
pub(super) struct Channel {
    stream: UnixStream,
    pub pace: Pace,
    /// Nothing is waited for after that.
    until_ns: Option<u64>,
}

impl Channel {
    /// Refuses a process of another user.
    pub fn new(stream: UnixStream, pace: Pace, until_ns: u64) -> Result<Self, UpgradeError> {
        stream.set_nonblocking(false)?;
        let found = rustix::net::sockopt::socket_peercred(&stream).map_err(io::Error::from)?.uid.as_raw();
        let expected = rustix::process::geteuid().as_raw();
        if found != expected {
            return Err(UpgradeError::User { found, expected });
        }
        Ok(Channel { stream, pace, until_ns: Some(until_ns) })
    }

    /// Waits as long as it takes from now on.
    pub fn wait_for_ever(&mut self) {
        self.until_ns = None;
    }

    /// What is left of the time, for the next call of the kernel.
    fn set_timeouts(&self) -> Result<(), UpgradeError> {
        let now_ns = self.pace.now_ns();
        let left = self.until_ns.map(|until_ns| Duration::from_nanos(until_ns.saturating_sub(now_ns)));
        if left == Some(Duration::ZERO) {
            return Err(UpgradeError::TimedOut);
        }
        if self.pace.is_stepped() {
            return Ok(());
        }
        self.stream.set_read_timeout(left)?;
        self.stream.set_write_timeout(left)?;
        Ok(())
    }

    pub fn send(&mut self, kind: Kind, payload: &[u8], files: &[BorrowedFd<'_>]) -> Result<(), UpgradeError> {
        self.set_timeouts()?;
        let mut bytes = Vec::with_capacity(HEAD_BYTES + payload.len());
        for word in [MAGIC, kind as u32, files.len() as u32, payload.len() as u32] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes.extend_from_slice(payload);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_PER_MESSAGE_MAX))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !files.is_empty() && !control.push(SendAncillaryMessage::ScmRights(files)) {
            return Err(UpgradeError::Malformed("there are more descriptors than fit into a message"));
        }
        let send = || sendmsg(&self.stream, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL);
        let sent = rustix::io::retry_on_intr(send).map_err(failed)?;
        // The descriptors are with the first byte.
        self.stream.write_all(&bytes[sent..]).map_err(|error| of_io(&error))
    }

    /// Says no. That the other one does not hear it changes nothing.
    pub fn refuse(&mut self, error: &UpgradeError) {
        if matches!(error, UpgradeError::Gone | UpgradeError::User { .. }) {
            return;
        }
        self.until_ns = Some(self.pace.now_ns() + REFUSAL_NS);
        let why = error.to_string();
        let _ = self.send(Kind::Refused, &why.as_bytes()[..why.len().min(MESSAGE_BYTES_MAX)], &[]);
    }

    /// The next message, which is to be of that kind.
    pub async fn expect(&mut self, kind: Kind) -> Result<Message, UpgradeError> {
        if !self.pace.readable(&self.stream, self.until_ns).await {
            return Err(UpgradeError::TimedOut);
        }
        let message = self.receive()?;
        match message.kind {
            found if found == kind as u32 => Ok(message),
            found if found == Kind::Refused as u32 => {
                Err(UpgradeError::Refused { why: String::from_utf8_lossy(&message.payload).into_owned() })
            }
            _ => Err(UpgradeError::Malformed("a message came out of turn")),
        }
    }

    fn receive(&mut self) -> Result<Message, UpgradeError> {
        let mut head = [0; HEAD_BYTES];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_PER_MESSAGE_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        self.set_timeouts()?;
        let receive =
            || recvmsg(&self.stream, &mut [IoSliceMut::new(&mut head)], &mut control, RecvFlags::CMSG_CLOEXEC);
        let received = rustix::io::retry_on_intr(receive).map_err(failed)?;
        if received.bytes == 0 {
            return Err(UpgradeError::Gone);
        }
        let lost = received.flags.contains(ReturnFlags::CTRUNC);
        let mut files = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                files.extend(rights);
            }
        }
        self.read(&mut head[received.bytes..])?;
        let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let (sent, length) = (word(8) as usize, word(12) as usize);
        if word(0) != MAGIC || length > MESSAGE_BYTES_MAX || sent > DESCRIPTORS_PER_MESSAGE_MAX {
            return Err(UpgradeError::Malformed("this is no message"));
        }
        let mut payload = vec![0; length];
        self.read(&mut payload)?;
        if files.len() != sent || lost {
            return Err(UpgradeError::Descriptors { sent, arrived: files.len() });
        }
        Ok(Message { kind: word(4), payload, files })
    }

    fn read(&mut self, mut bytes: &mut [u8]) -> Result<(), UpgradeError> {
        while !bytes.is_empty() {
            // Each time: of who sends byte by byte no more is borne than of who sends nothing.
            self.set_timeouts()?;
            match self.stream.read(bytes) {
                Ok(0) => return Err(UpgradeError::Gone),
                Ok(count) => bytes = &mut bytes[count..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(of_io(&error)),
            }
        }
        Ok(())
    }
}

fn of_io(error: &io::Error) -> UpgradeError {
    match Errno::from_io_error(error) {
        Some(errno) => failed(errno),
        None => UpgradeError::Gone,
    }
}

fn failed(errno: Errno) -> UpgradeError {
    match errno {
        Errno::AGAIN => UpgradeError::TimedOut,
        Errno::PIPE | Errno::CONNRESET => UpgradeError::Gone,
        errno => UpgradeError::Io(errno.into()),
    }
}
