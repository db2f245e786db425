//! How a client gets its client id, its session and the directory, and how it leaves.

use super::callback::{BackChannel, REQUEST_BYTES_MAX, reply_bytes_max};
use super::client::{Client, DELAY_NS, Results, Stage, Turn};
use super::config::SwarmConfig;
use super::fore::{CALL_BYTES_MAX, ForeChannel, Work};
use super::parameters::Parameters;
use ringback_rpc::message::AuthSys;
use ringback_rpc::nfs4::fore::{
    BackchannelCtlArgs, BindConnToSessionArgs, BindDirection, ChannelAttrs, ClientOwner, CreateSessionArgs,
    CreateSessionOk, DestroyClientIdArgs, DestroySessionArgs, ExchangeIdArgs, GetAttrArgs, LookupArgs, Op, OpArgs,
    OpRes, Opaque4, PutFhArgs, ReclaimCompleteArgs, StateProtectArgs, create_session_flag,
};
use ringback_rpc::nfs4::{Bitmap4, CallbackSecParms, ClientId4, FHSIZE, FileHandle, List, Status, Verifier4, attr};
use ringback_rpc::xdr::{self, Decode, Encode, Reader, Writer};

/// Longest reply that a client takes on the fore channel.
const RESPONSE_BYTES_MAX: u32 = 16_384;
/// Longest reply that a client wants cached: OPEN with a delegation, GETFH and CLOSE.
const RESPONSE_BYTES_MAX_CACHED: u32 = 4096;
/// Operations in a compound, without the LOOKUPs to the directory.
const FORE_OPERATIONS_MAX: u32 = 8;
/// How often a lease is renewed where neither the configuration nor the server says: a third of 90 seconds.
const RENEW_NS: u64 = 30_000_000_000;

/// The calls that are made alone, without a session slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    ExchangeId,
    CreateSession,
    /// RECLAIM_COMPLETE and the way to the directory: on session slots, one after the other.
    Reclaim,
    Directory,
    Bind,
    DestroySession,
    DestroyClientId,
}

/// What a client is to the server.
#[derive(Debug)]
pub(crate) struct Identity {
    owner: String,
    incarnation: u64,
    client_id: ClientId4,
    /// The sequence id of CREATE_SESSION.
    sequence_id: u32,
    directory: Option<([u8; FHSIZE], usize)>,
    pub(crate) renew_ns: u64,
}

impl Identity {
    pub(crate) fn new(index: u32, config: &SwarmConfig, incarnation: u64) -> Self {
        Identity {
            owner: format!("ringback-swarm-{}-{index}", config.seed),
            incarnation,
            client_id: ClientId4::default(),
            sequence_id: 0,
            directory: None,
            renew_ns: config.renew_interval.map_or(RENEW_NS, |every| every.as_nanos() as u64),
        }
    }

    pub(crate) const fn client_id(&self) -> ClientId4 {
        self.client_id
    }

    pub(crate) fn owner(&self) -> &[u8] {
        self.owner.as_bytes()
    }

    /// The operation that makes the directory the current filehandle.
    pub(crate) fn put_directory(&self, w: &mut Writer<'_>) -> xdr::Result<()> {
        match &self.directory {
            Some((bytes, len)) => {
                let object = FileHandle::new(&bytes[..*len]).expect("at most FHSIZE bytes");
                OpArgs::PutFh(PutFhArgs { object }).encode(w)
            }
            None => OpArgs::PutRootFh.encode(w),
        }
    }
}

impl Client {
    /// Begins a step, or repeats it.
    pub(crate) fn begin(&mut self, step: Step, turn: &mut Turn<'_>) {
        self.stage = Stage::Step(step);
        self.repeat_ns = None;
        match step {
            Step::Reclaim => self.start(Work::Reclaim, 1, turn, |w| {
                OpArgs::ReclaimComplete(ReclaimCompleteArgs { one_fs: false }).encode(w)
            }),
            Step::Directory => self.look_for_directory(turn),
            _ => self.call_alone(step, turn),
        }
    }

    fn call_alone(&mut self, step: Step, turn: &mut Turn<'_>) {
        let xid = self.caller.next_xid(0);
        let parameters = Parameters::new(self.index, turn.config);
        let (id, caller, session_id) = (&self.id, &self.caller, self.fore.session_id());
        let written = turn.out.record(CALL_BYTES_MAX, |w| {
            caller.head(xid, 1, w)?;
            match step {
                Step::ExchangeId => OpArgs::ExchangeId(exchange_id(id)).encode(w),
                Step::CreateSession => create_session(id, turn.config, &parameters, w),
                Step::Bind => {
                    let direction = BindDirection::BackOrBoth;
                    OpArgs::BindConnToSession(BindConnToSessionArgs { session_id, direction, rdma: false }).encode(w)
                }
                Step::DestroySession => OpArgs::DestroySession(DestroySessionArgs { session_id }).encode(w),
                Step::DestroyClientId => {
                    OpArgs::DestroyClientId(DestroyClientIdArgs { client_id: id.client_id }).encode(w)
                }
                Step::Reclaim | Step::Directory => Ok(()),
            }
        });
        match written {
            Ok(_) => self.alone = Some(xid),
            Err(e) => self.fail(format!("a call does not fit: {e}"), turn.tally),
        }
    }

    /// The answer to a call without a session slot.
    pub(crate) fn step_reply(&mut self, status: Status, results: &mut Results<'_>, turn: &mut Turn<'_>) {
        let Stage::Step(step) = self.stage else {
            return;
        };
        if matches!(status, Status::NFS4ERR_DELAY | Status::NFS4ERR_GRACE) {
            turn.tally.error(status);
            self.repeat_ns = Some(turn.now_ns + DELAY_NS);
            return;
        }
        match (step, results.next()) {
            (Step::ExchangeId, Some(OpRes::ExchangeId(Ok(ok)))) => {
                (self.id.client_id, self.id.sequence_id) = (ok.client_id, ok.sequence_id);
                self.begin(Step::CreateSession, turn);
            }
            (Step::CreateSession, Some(OpRes::CreateSession(Ok(ok)))) => self.created_session(&ok, turn),
            (Step::Bind, Some(OpRes::BindConnToSession(Ok(ok)))) => self.bound(&ok, turn),
            (Step::DestroySession, Some(_)) => self.begin(Step::DestroyClientId, turn),
            (Step::DestroyClientId, _) => self.stage = Stage::Gone,
            (_, Some(result)) => {
                turn.tally.error(result.status());
                self.fail(format!("{} failed with {}", result.op(), result.status()), turn.tally);
            }
            (_, None) => self.fail(format!("{step:?} got no result, {status}"), turn.tally),
        }
    }

    fn created_session(&mut self, ok: &CreateSessionOk, turn: &mut Turn<'_>) {
        if ok.flags & create_session_flag::CONN_BACK_CHAN == 0 {
            return self.fail("CREATE_SESSION gave no backchannel".into(), turn.tally);
        }
        let slots = turn.config.session_slots;
        self.fore = ForeChannel::new(ok.session_id, slots.min(ok.fore_channel.requests_max));
        let back = &ok.back_channel;
        let operations = turn.config.callback_operations.min(back.operations_max);
        let parameters = Parameters::new(self.index, turn.config);
        self.back = BackChannel::new(ok.session_id, parameters, slots.min(back.requests_max), operations);
        self.begin(Step::Reclaim, turn);
    }

    /// BACKCHANNEL_CTL: the session has a new connection, and the client wants to be called with something else on it.
    pub(crate) fn start_control(&mut self, turn: &mut Turn<'_>) {
        (self.control_due, self.control_out) = (false, true);
        let (generation, parameters) = self.back.next_parameters();
        let (callback_program, credential) = (parameters.program(), parameters.credential());
        self.start(Work::Control(generation), 1, turn, |w| {
            let security = [CallbackSecParms::Sys(AuthSys::decode(&mut Reader::new(&credential))?)];
            OpArgs::BackchannelCtl(BackchannelCtlArgs { callback_program, security: List::Slice(&security) }).encode(w)
        });
    }

    /// The answer to BACKCHANNEL_CTL.
    pub(crate) fn controlled(&mut self, generation: u32, results: &mut Results<'_>, turn: &mut Turn<'_>) {
        self.control_out = false;
        match results.next() {
            Some(OpRes::BackchannelCtl(Ok(()))) => {
                self.back.agreed(generation);
                turn.tally.controls += 1;
            }
            Some(other) => self.fail(format!("{} failed with {}", other.op(), other.status()), turn.tally),
            None => self.fail("BACKCHANNEL_CTL got no result".into(), turn.tally),
        }
    }

    /// RECLAIM_COMPLETE was answered. A server that remembers the client id says that it was done before.
    pub(crate) fn reclaimed(&mut self, results: &mut Results<'_>, turn: &mut Turn<'_>) {
        match results.next() {
            Some(OpRes::ReclaimComplete(Ok(()) | Err(Status::NFS4ERR_COMPLETE_ALREADY))) => {
                self.begin(Step::Directory, turn);
            }
            Some(OpRes::ReclaimComplete(Err(status))) => {
                self.fail(format!("RECLAIM_COMPLETE failed with {status}"), turn.tally);
            }
            _ => self.fail("RECLAIM_COMPLETE got no result".into(), turn.tally),
        }
    }

    fn look_for_directory(&mut self, turn: &mut Turn<'_>) {
        let path = &turn.config.directory;
        self.start(Work::Directory, path.len() + 3, turn, |w| {
            OpArgs::PutRootFh.encode(w)?;
            path.iter().try_for_each(|name| OpArgs::Lookup(LookupArgs { name: name.as_bytes() }).encode(w))?;
            OpArgs::GetFh.encode(w)?;
            OpArgs::GetAttr(GetAttrArgs { request: Bitmap4::of(&[attr::LEASE_TIME]) }).encode(w)
        });
    }

    /// The directory's filehandle and the lease time, if the server tells it.
    pub(crate) fn found_directory(&mut self, results: &mut Results<'_>, turn: &mut Turn<'_>) {
        while let Some(result) = results.next() {
            match result {
                OpRes::GetFh(Ok(ok)) => {
                    let from = ok.object.as_bytes();
                    let mut bytes = [0; FHSIZE];
                    bytes[..from.len()].copy_from_slice(from);
                    self.id.directory = (!turn.config.directory.is_empty()).then_some((bytes, from.len()));
                    self.stage = Stage::Ready;
                }
                OpRes::GetAttr(Ok(ok)) if turn.config.renew_interval.is_none() => {
                    let values = Reader::new(ok.attributes.values).u32("lease_time");
                    if let (true, Ok(seconds)) = (ok.attributes.mask.contains(attr::LEASE_TIME), values) {
                        self.id.renew_ns = (u64::from(seconds) * 1_000_000_000 / 3).max(1_000_000_000);
                    }
                }
                // A server that does not know lease_time is as good.
                other if other.op() != Op::GETATTR && !other.status().is_ok() => {
                    let path = turn.config.directory.join("/");
                    return self.fail(format!("{} on the way to /{path}: {}", other.op(), other.status()), turn.tally);
                }
                _ => {}
            }
        }
        if self.stage != Stage::Ready {
            self.fail("no filehandle for the directory".into(), turn.tally);
        }
    }
}

fn exchange_id(id: &Identity) -> ExchangeIdArgs<'_> {
    let owner_id = Opaque4::new(id.owner.as_bytes()).expect("the owner is short");
    let verifier = Verifier4(id.incarnation.to_be_bytes());
    ExchangeIdArgs {
        client_owner: ClientOwner { verifier, owner_id },
        flags: 0,
        state_protect: StateProtectArgs::None,
        impl_id: None,
    }
}

fn create_session(id: &Identity, config: &SwarmConfig, parameters: &Parameters, w: &mut Writer<'_>) -> xdr::Result<()> {
    let credential = parameters.credential();
    let security = [CallbackSecParms::Sys(AuthSys::decode(&mut Reader::new(&credential))?)];
    let fore_channel = ChannelAttrs {
        header_pad_bytes: 0,
        request_bytes_max: CALL_BYTES_MAX as u32,
        response_bytes_max: RESPONSE_BYTES_MAX,
        response_bytes_max_cached: RESPONSE_BYTES_MAX_CACHED,
        operations_max: FORE_OPERATIONS_MAX + config.directory.len() as u32,
        requests_max: config.session_slots,
        rdma_ird: None,
    };
    let back_channel = ChannelAttrs {
        request_bytes_max: REQUEST_BYTES_MAX,
        response_bytes_max: reply_bytes_max(config.callback_operations) as u32,
        response_bytes_max_cached: 0,
        operations_max: config.callback_operations,
        ..fore_channel
    };
    OpArgs::CreateSession(CreateSessionArgs {
        client_id: id.client_id,
        sequence_id: id.sequence_id,
        flags: create_session_flag::CONN_BACK_CHAN,
        fore_channel,
        back_channel,
        callback_program: parameters.program(),
        security: List::Slice(&security),
    })
    .encode(w)
}
