//! The core takes no memory once a session has been added: not to queue, send and settle callbacks, one by one or in
//! batches, not to delay them, and not to lose and regain a connection. The allocator that counts is the whole program's, which
//! is why it is a program apart.

use ringback_rpc::backchannel::{
    Backchannel, Config, ConnToken, Credential, Event, Handled, Host, Outcome, Requeue, Sending, SessionKey,
    SessionParams, Token, Transmit,
};
use ringback_rpc::nfs4::callback::CallbackOp;
use ringback_rpc::nfs4::{SessionId, Status};
use ringback_rpc::xdr::{Result, Writer};

const RUNS: usize = 2000;
const SLOTS: u32 = 16;
const S: u64 = 1_000_000_000;

struct Driver {
    links: Vec<Option<Token>>,
    notes: Vec<u8>,
    requeue: Vec<bool>,
    done: usize,
}

impl Host for Driver {
    type Known = ();

    fn link(&self, token: Token) -> Option<Token> {
        self.links[token.0 as usize]
    }
    fn set_link(&mut self, token: Token, next: Option<Token>) {
        self.links[token.0 as usize] = next;
    }
    fn note(&self, token: Token) -> u8 {
        self.notes[token.0 as usize]
    }
    fn set_note(&mut self, token: Token, note: u8) {
        self.notes[token.0 as usize] = note;
    }
    fn op(&self, _: Token) -> CallbackOp {
        CallbackOp::Recall
    }
    fn started_ns(&self, _: Token) -> u64 {
        0
    }
    fn look(&self, token: Token) -> Sending<()> {
        Sending { token, op: self.op(token), started_ns: self.started_ns(token), known: () }
    }
    fn take_requeue(&mut self, run: &Sending<()>) -> bool {
        std::mem::take(&mut self.requeue[run.token.0 as usize])
    }
    fn prepare(&mut self, _: &Sending<()>) -> bool {
        true
    }
    fn encode(&mut self, run: &Sending<()>, args: &mut Writer<'_>) -> Result<()> {
        args.u32(run.token.0)
    }
    fn done(&mut self, _: Token, _: &Outcome<'_>) -> Option<u64> {
        self.done += 1;
        None
    }
    fn requeued(&mut self, token: Token, _: Requeue) {
        self.requeue[token.0 as usize] = true;
    }
    fn event(&mut self, _: Event) {}
}

/// The reply to the call in `call`: CB_SEQUENCE is fine, the operations are so up to `failing`, which has `status`.
fn reply(call: &[u8], (failing, status): (u32, Status), space: &mut [u8; 256]) -> usize {
    // What stands before the number of operations: mark, RPC header with two AUTH_NONE, tag, minor version, ident.
    let count_at = 28 + 8 + 8 + 12;
    let count = u32::from_be_bytes(call[count_at..count_at + 4].try_into().unwrap()) - 1;
    let stops = status != Status::NFS4_OK && failing < count;
    let (results, session_at) = (if stops { failing + 1 } else { count }, count_at + 8);
    let status_of = |position: u32| if position == failing { status } else { Status::NFS4_OK };
    let mut w = Writer::new(space);
    w.raw(&call[4..8]).unwrap();
    for word in [1, 0, 0, 0, 0, status_of(results - 1).0, 0, 1 + results, CallbackOp::Sequence as u32, 0] {
        w.u32(word).unwrap();
    }
    w.raw(&call[session_at..session_at + 24]).unwrap();
    w.u32(SLOTS - 1).unwrap();
    w.u32(SLOTS - 1).unwrap();
    for position in 0..results {
        w.u32(CallbackOp::Recall as u32).unwrap();
        w.u32(status_of(position).0).unwrap();
    }
    w.position()
}

/// Sends and answers all that there is. In every 7th call an operation gets NFS4ERR_DELAY, every 50th call loses its
/// connection.
fn serve(core: &mut Backchannel, now_ns: u64, conn: &mut u64, driver: &mut Driver) {
    let (mut space, mut answer, mut count) = ([0; 1024], [0; 256], 0);
    loop {
        match core.poll_transmit(now_ns, ConnToken(*conn), &mut space, driver) {
            Transmit::Wrote(len) => {
                count += 1;
                if count % 50 == 0 {
                    core.handle_disconnect(ConnToken(*conn), driver);
                    *conn += 1;
                    core.bind(now_ns, SessionKey(1), ConnToken(*conn), driver).unwrap();
                    continue;
                }
                let status = if count % 7 == 0 { Status::NFS4ERR_DELAY } else { Status::NFS4_OK };
                let bytes = reply(&space[..len], (count % 5, status), &mut answer);
                let handled = core.handle_record(now_ns, ConnToken(*conn), &answer[..bytes], driver);
                assert_eq!(handled, Handled::Settled);
            }
            Transmit::Again => {}
            Transmit::Idle => break,
            Transmit::NoSpace => panic!("1 KiB is enough"),
        }
    }
}

#[test]
fn no_memory_is_taken_after_the_session() {
    play(2);
}

#[test]
fn no_memory_is_taken_for_batches() {
    assert!(play(17) < play(2) / 4, "there were batches");
}

/// Returns how many calls were sent.
fn play(operations_max: u32) -> u64 {
    let mut driver = Driver { links: vec![None; RUNS], notes: vec![0; RUNS], requeue: vec![false; RUNS], done: 0 };
    let mut core = Backchannel::new(Config::default());
    let params = SessionParams {
        session_id: SessionId([5; 16]),
        program: 0x4000_0000,
        credential: Credential::none(),
        slots: SLOTS,
        request_bytes_max: 1020,
        response_bytes_max: 1024,
        operations_max,
        minor_version: 1,
    };
    core.add_session(SessionKey(1), &params, &mut driver).unwrap();
    let mut conn = 1;
    core.bind(0, SessionKey(1), ConnToken(conn), &mut driver).unwrap();
    let taken = allocation_counter::measure(|| {
        (0..RUNS).for_each(|token| core.enqueue(Token(token as u32), &mut driver));
        for second in 1..60 {
            serve(&mut core, second * S, &mut conn, &mut driver);
            while core.poll_timeout().is_some_and(|due| due <= second * S) {
                core.handle_timeout(second * S, &mut driver);
            }
        }
    });
    assert_eq!((driver.done, core.is_idle()), (RUNS, true));
    let counters = core.counters();
    assert!(counters.delays > 0 && counters.resent > 0);
    assert_eq!(taken.count_total, 0, "allocations");
    counters.calls_sent
}
