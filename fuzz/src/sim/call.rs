//! A callback as it goes over the wire, read by clients and by the checker that listens in.

use ringback_rpc::message::{CallHeader, OpaqueAuth};
use ringback_rpc::nfs4::callback::{CB_COMPOUND, CallbackOp, CbCompoundArgs, CbSequenceArgs};
use ringback_rpc::xdr::{Decode, Reader, Result, Writer, XdrError, XdrErrorKind};

/// CB_COMPOUND { CB_SEQUENCE, operation, ... }, or a lone CB_SEQUENCE.
#[derive(Clone, Debug)]
pub(crate) struct Call<'a> {
    pub header: CallHeader<'a>,
    pub compound: CbCompoundArgs<'a>,
    pub sequence: CbSequenceArgs<'a>,
    /// Where csa_sequenceid is in the record.
    pub sequence_id_at: usize,
    pub ops: Vec<Op>,
    /// Their bytes.
    pub tail: &'a [u8],
}

/// An operation after CB_SEQUENCE.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Op {
    pub op: CallbackOp,
    pub payload: Payload,
}

/// What the simulation's callbacks carry instead of arguments, whatever their operation: the core does not read them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Payload {
    /// The callback.
    pub cookie: u64,
    /// Which of its runs.
    pub run: u32,
}

impl Payload {
    /// Writes the arguments, with so many bytes of filling.
    pub(crate) fn write(self, filling: usize, w: &mut Writer<'_>) -> Result<()> {
        w.u64(self.cookie)?;
        w.u32(self.run)?;
        w.u32(filling as u32)?;
        let byte = (self.cookie as u8) ^ (self.run as u8);
        for at in 0..filling.div_ceil(4) {
            w.fixed(&[byte, at as u8, byte, byte])?;
        }
        Ok(())
    }

    pub(crate) fn read(r: &mut Reader<'_>) -> Result<Self> {
        let payload = Payload { cookie: r.u64("cookie")?, run: r.u32("run")? };
        for _ in 0..r.u32("filling")?.div_ceil(4) {
            r.u32("filling")?;
        }
        Ok(payload)
    }
}

impl<'a> Call<'a> {
    /// Reads a CALL record.
    pub(crate) fn read(record: &'a [u8]) -> Result<Call<'a>> {
        let mut r = Reader::new(record);
        let header = CallHeader::decode(&mut r)?;
        if header.procedure != CB_COMPOUND {
            return Err(unexpected(&r, "procedure", header.procedure));
        }
        let compound = CbCompoundArgs::decode(&mut r)?;
        let op = r.u32("argop")?;
        if op != CallbackOp::Sequence as u32 {
            return Err(unexpected(&r, "argop", op));
        }
        let sequence_id_at = r.offset() + 16;
        let sequence = CbSequenceArgs::decode(&mut r)?;
        let tail = r.remaining();
        let mut ops = Vec::new();
        for _ in 1..compound.count {
            let number = r.u32("argop")?;
            let op = CallbackOp::try_from(number).map_err(|_| unexpected(&r, "argop", number))?;
            ops.push(Op { op, payload: Payload::read(&mut r)? });
        }
        if !r.remaining().is_empty() {
            return Err(unexpected(&r, "bytes at the end", r.remaining().len() as u32));
        }
        Ok(Call { header, compound, sequence, sequence_id_at, ops, tail })
    }

    pub(crate) fn session(&self) -> [u8; 16] {
        self.sequence.session_id.0
    }

    /// Who speaks, to which program.
    pub(crate) fn principal(&self) -> (u32, OpaqueAuth<'a>) {
        (self.header.program, self.header.credential)
    }
}

/// Whether one call of a client was made before another. They are numbered in the upper 20 bits of their xids.
pub(crate) fn is_older(xid: u32, other: u32) -> bool {
    (1..1 << 19).contains(&((other >> 12).wrapping_sub(xid >> 12) & 0xf_ffff))
}

fn unexpected(r: &Reader<'_>, what: &'static str, value: u32) -> XdrError {
    XdrError { what, offset: r.offset(), kind: XdrErrorKind::BadValue { value: value.into() } }
}
