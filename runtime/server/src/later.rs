//! A thread for what cannot be done at once: compounds that wait for the answer to a CB_GETATTR, copies that go on after
//! the reply, and what is done once in a second. Reactors never wait; they hand the call over and get the thread's reply as bytes.

use crate::Inner;
use crate::arena::Id;
use crate::compound::{Compound, Suspended};
use crate::copies::STEP_BYTES;
use crate::holder_attributes::{Answer, Question, Reported};
use ringback::{CallToken, Wait};
use ringback_rpc::message::{AcceptStatus, CallHeader, ReplyHeader};
use ringback_rpc::nfs4::ClientId4;
use ringback_rpc::nfs4::fore::CompoundArgs;
use ringback_rpc::xdr::{self, Decode, Encode, Reader, Writer};
use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::pin::Pin;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How often it looks around.
const TICK: Duration = Duration::from_secs(1);

/// A call whose compound waits.
pub(crate) struct Waiting {
    token: CallToken,
    record: Vec<u8>,
    suspended: Box<Suspended>,
}

pub(crate) enum Message {
    Wait(Waiting),
    /// A copy is to be worked on.
    Copy(Id),
    /// A delegation is to be revoked, when that is stored.
    Revoke(Id),
    /// A client may be put into the store again.
    Remember(ClientId4),
    /// What waits is to be given up, and how much does so is told.
    Settle(Sender<usize>),
    /// An answer may have come for the waiting call of that number.
    Woken(u64),
    Stop,
}

/// The way to the thread.
pub(crate) struct Later {
    sender: Sender<Message>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Later {
    pub(crate) fn new(sender: Sender<Message>) -> Self {
        Later { sender, thread: Mutex::default() }
    }

    pub(crate) fn start(inner: &Arc<Inner>, receiver: Receiver<Message>) -> std::io::Result<()> {
        let (shared, sender) = (Arc::clone(inner), inner.later.sender.clone());
        let thread = Thread {
            inner: shared,
            receiver,
            sender,
            waiting: HashMap::new(),
            count: 0,
            unrevoked: Vec::new(),
            slowed: BTreeSet::new(),
        };
        let handle = thread::Builder::new().name("nfs-later".to_owned()).spawn(move || thread.run())?;
        *inner.later.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(handle);
        Ok(())
    }

    /// Has a compound go on when its question is answered.
    pub(crate) fn wait(&self, token: CallToken, record: Vec<u8>, suspended: Box<Suspended>) {
        self.send(Message::Wait(Waiting { token, record, suspended }));
    }

    /// Has all that waits end soon; whether nothing does any more.
    pub(crate) fn is_settled(&self) -> bool {
        let (answer, answers) = channel();
        self.send(Message::Settle(answer));
        answers.recv().is_ok_and(|waiting| waiting == 0)
    }

    /// If the thread has ended the server has.
    pub(crate) fn send(&self, message: Message) {
        let _ = self.sender.send(message);
    }

    pub(crate) fn stop(&self) {
        self.send(Message::Stop);
        if let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // A thread that panicked has said so itself.
            let _ = thread.join();
        }
    }
}

/// Tells the thread which of its futures to poll.
struct Knock {
    number: u64,
    sender: Sender<Message>,
}

impl Wake for Knock {
    fn wake(self: Arc<Self>) {
        let _ = self.sender.send(Message::Woken(self.number));
    }
}

struct Thread {
    inner: Arc<Inner>,
    receiver: Receiver<Message>,
    sender: Sender<Message>,
    waiting: HashMap<u64, (Waiting, Wait, Instant)>,
    /// Calls that have waited so far.
    count: u64,
    /// Delegations that could not be revoked yet, as that could not be stored.
    unrevoked: Vec<Id>,
    /// Copies that have to wait, and until when.
    slowed: BTreeSet<(Instant, Id)>,
}

impl Thread {
    fn run(mut self) {
        let mut next = Instant::now() + TICK;
        loop {
            let wake = self.slowed.first().map_or(next, |(due, _)| next.min(*due));
            match self.receiver.recv_timeout(wake.saturating_duration_since(Instant::now())) {
                Ok(Message::Wait(waiting)) => self.wait(waiting),
                Ok(Message::Woken(number)) => self.poll(number),
                Ok(Message::Settle(answer)) => {
                    self.give_up(Duration::ZERO);
                    // Nobody wants to know any more.
                    let _ = answer.send(self.waiting.len());
                }
                // What else has come has its turn between two pieces.
                Ok(Message::Copy(id)) => self.copy(id),
                Ok(Message::Revoke(id)) => self.revoke(id),
                // It will come again to be told, if it could not be stored.
                Ok(Message::Remember(id)) => drop(self.inner.remember(id)),
                Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {}
            }
            while let Some((due, id)) = self.slowed.first().copied().filter(|(due, _)| *due <= Instant::now()) {
                self.slowed.remove(&(due, id));
                self.copy(id);
            }
            if Instant::now() >= next {
                next = Instant::now() + TICK;
                self.tick();
            }
        }
    }

    /// Copies a piece; the next one follows when its time has come.
    fn copy(&mut self, id: Id) {
        let begun = Instant::now();
        if !self.inner.copy_on(id) {
            return;
        }
        match self.inner.config.copy_rate {
            None => self.inner.later.send(Message::Copy(id)),
            Some(rate) => {
                let pause = Duration::from_secs_f64(STEP_BYTES as f64 / rate.get() as f64);
                self.slowed.insert((begun + pause.min(TICK), id));
            }
        }
    }

    fn revoke(&mut self, id: Id) {
        if !self.inner.revoke_now(id) {
            self.unrevoked.push(id);
        }
    }

    fn wait(&mut self, waiting: Waiting) {
        let Question::Attributes { callback, .. } = waiting.suspended.question else {
            return self.resume(waiting, None);
        };
        let (_, wait) = {
            let _present = self.inner.present();
            let Some(runtime) = self.inner.callbacks.runtime() else { return };
            runtime.run_and_wait(callback)
        };
        self.count += 1;
        self.waiting.insert(self.count, (waiting, wait, Instant::now()));
        self.poll(self.count);
    }

    fn poll(&mut self, number: u64) {
        let Some((_, wait, _)) = self.waiting.get_mut(&number) else { return };
        let waker = Waker::from(Arc::new(Knock { number, sender: self.sender.clone() }));
        let Poll::Ready(ended) = Pin::new(wait).poll(&mut Context::from_waker(&waker)) else { return };
        let Some((waiting, ..)) = self.waiting.remove(&number) else { return };
        let results = ended.ok().filter(|e| e.is_whole() && e.status().is_some_and(|s| s.is_ok()));
        let reported = results.and_then(|ended| match ended.outcome() {
            ringback::Outcome::Replied { results, .. } => Reported::parse(results).ok().flatten(),
            _ => None,
        });
        let Question::Attributes { file, .. } = waiting.suspended.question else { return };
        self.resume(waiting, Some(Answer { file, reported }));
    }

    fn resume(&mut self, waiting: Waiting, answer: Option<Answer>) {
        let Waiting { token, record, suspended } = waiting;
        let mut space = vec![0; self.inner.reply_bytes(&record)];
        let mut w = Writer::new(&mut space);
        match self.inner.resume(&record, *suspended, answer, self.inner.now_ns(), &mut w) {
            Ok(Some(suspended)) => return self.wait(Waiting { token, record, suspended }),
            Ok(None) => {}
            // The client is told that there will be no answer: a call that is not answered counts against its limit.
            Err(_) => {
                w.rewind(0);
                let xid = CallHeader::decode(&mut Reader::new(&record)).map_or(0, |header| header.xid);
                let _ = ReplyHeader::accepted(xid, AcceptStatus::SystemErr).encode(&mut w);
            }
        }
        let len = w.written().len();
        space.truncate(len);
        let _present = self.inner.present();
        if let Some(runtime) = self.inner.callbacks.runtime() {
            runtime.reply(token, vec![space]);
        }
    }

    fn tick(&mut self) {
        std::mem::take(&mut self.unrevoked).into_iter().for_each(|id| self.revoke(id));
        let now_ns = self.inner.now_ns();
        self.inner.end_grace_in_time(now_ns);
        let every_ns = u64::try_from(self.inner.config.save_every.as_nanos()).unwrap_or(u64::MAX);
        // If it fails it has been said, and is done again the next time.
        let _ = self.inner.save_files(now_ns.saturating_sub(every_ns));
        {
            let _present = self.inner.present();
            self.inner.serve_wants();
        }
        self.give_up(self.inner.config.getattr_patience);
    }

    /// Ends the questions of calls that have waited for so long: they go on without an answer.
    fn give_up(&self, patience: Duration) {
        let late = self.waiting.values().filter(|(_, _, since)| since.elapsed() >= patience);
        for (waiting, ..) in late {
            if let Question::Attributes { callback, .. } = waiting.suspended.question {
                self.inner.callbacks.give_up(callback);
            }
        }
    }
}

impl Inner {
    /// Goes on with a compound that has got its answer.
    pub(crate) fn resume(
        &self,
        record: &[u8],
        suspended: Suspended,
        answer: Option<Answer>,
        now_ns: u64,
        w: &mut Writer<'_>,
    ) -> xdr::Result<Option<Box<Suspended>>> {
        let mut r = Reader::new(record);
        let header = CallHeader::decode(&mut r)?;
        let args = CompoundArgs::decode(&mut r)?;
        ReplyHeader::success(header.xid).encode(w)?;
        let (compound, results) = Compound::resumed(self, suspended, answer, now_ns);
        compound.run(&args, &mut r, &results, 0, w)
    }
}
