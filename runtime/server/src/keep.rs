//! A value as bytes and back: what the server has itself, on its way to another process of it (`succession.rs`). The other
//! process is of the same user, and its bytes come through memory; they are taken for honest, and never for more than they
//! are: no length makes room before there is something to put there.

use ringback::{CallbackKey, ClientId, ConnectionId};
use ringback_rpc::nfs4::fore::{ChannelAttrs, CreateSessionOk};
use ringback_rpc::nfs4::{Bitmap4, ClientId4, NfsTime4, SessionId, Status, Verifier4};
use ringback_rpc::session::{SequenceId, SlotId};
use ringback_rpc::xdr::{Decode, Encode, Reader, Writer};
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read, Write};
use std::sync::Arc;

/// Longest value that is kept as it stands on the wire.
const WIRE_BYTES_MAX: usize = 512;
/// Elements for which room is made before any of them was read.
const AHEAD_MAX: usize = 1024;

/// Goes to another process.
pub(crate) trait Keep: Sized {
    fn save(&self, out: &mut dyn Write) -> io::Result<()>;
    fn load(from: &mut dyn Read) -> io::Result<Self>;
}

/// Keeps a structure field by field.
macro_rules! keep {
    ($($type:ident { $($field:ident),* $(,)? })*) => {$(
        impl $crate::keep::Keep for $type {
            fn save(&self, out: &mut dyn std::io::Write) -> std::io::Result<()> {
                $($crate::keep::Keep::save(&self.$field, out)?;)*
                Ok(())
            }
            fn load(from: &mut dyn std::io::Read) -> std::io::Result<Self> {
                Ok($type { $($field: $crate::keep::Keep::load(from)?),* })
            }
        }
    )*};
}
pub(crate) use keep;

/// What was read is not what was written.
pub(crate) fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "what the other process has sent is malformed")
}

macro_rules! integers {
    ($($type:ident)*) => {$(
        impl Keep for $type {
            fn save(&self, out: &mut dyn Write) -> io::Result<()> {
                out.write_all(&self.to_le_bytes())
            }
            fn load(from: &mut dyn Read) -> io::Result<Self> {
                let mut bytes = [0; size_of::<$type>()];
                from.read_exact(&mut bytes)?;
                Ok($type::from_le_bytes(bytes))
            }
        }
    )*};
}
integers! { u8 u16 u32 u64 i64 }

macro_rules! wire {
    ($($type:ident)*) => {$(
        impl Keep for $type {
            fn save(&self, out: &mut dyn Write) -> io::Result<()> {
                let mut space = [0; WIRE_BYTES_MAX];
                let mut w = Writer::new(&mut space);
                self.encode(&mut w).map_err(|_| malformed())?;
                save_bytes(w.written(), out)
            }
            fn load(from: &mut dyn Read) -> io::Result<Self> {
                let bytes = load_bytes(from)?;
                $type::decode(&mut Reader::new(&bytes)).map_err(|_| malformed())
            }
        }
    )*};
}
wire! { Bitmap4 ChannelAttrs ClientId4 CreateSessionOk NfsTime4 SessionId Status Verifier4 }

macro_rules! named_by_bits {
    ($($type:ident)*) => {$(
        impl Keep for $type {
            fn save(&self, out: &mut dyn Write) -> io::Result<()> {
                self.to_bits().save(out)
            }
            fn load(from: &mut dyn Read) -> io::Result<Self> {
                u64::load(from).map($type::from_bits)
            }
        }
    )*};
}
named_by_bits! { CallbackKey ClientId ConnectionId }

macro_rules! numbers {
    ($($type:ident)*) => {$(
        impl Keep for $type {
            fn save(&self, out: &mut dyn Write) -> io::Result<()> {
                self.0.save(out)
            }
            fn load(from: &mut dyn Read) -> io::Result<Self> {
                Keep::load(from).map($type)
            }
        }
    )*};
}
numbers! { SequenceId SlotId }

impl Keep for () {
    fn save(&self, _: &mut dyn Write) -> io::Result<()> {
        Ok(())
    }
    fn load(_: &mut dyn Read) -> io::Result<Self> {
        Ok(())
    }
}

impl Keep for bool {
    fn save(&self, out: &mut dyn Write) -> io::Result<()> {
        u8::from(*self).save(out)
    }
    fn load(from: &mut dyn Read) -> io::Result<Self> {
        match u8::load(from)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(malformed()),
        }
    }
}

impl<A: Keep, B: Keep> Keep for (A, B) {
    fn save(&self, out: &mut dyn Write) -> io::Result<()> {
        self.0.save(out)?;
        self.1.save(out)
    }
    fn load(from: &mut dyn Read) -> io::Result<Self> {
        Ok((A::load(from)?, B::load(from)?))
    }
}

impl<T: Keep> Keep for Option<T> {
    fn save(&self, out: &mut dyn Write) -> io::Result<()> {
        self.is_some().save(out)?;
        self.as_ref().map_or(Ok(()), |value| value.save(out))
    }
    fn load(from: &mut dyn Read) -> io::Result<Self> {
        if bool::load(from)? { T::load(from).map(Some) } else { Ok(None) }
    }
}

impl<T: Keep> Keep for Box<T> {
    fn save(&self, out: &mut dyn Write) -> io::Result<()> {
        (**self).save(out)
    }
    fn load(from: &mut dyn Read) -> io::Result<Self> {
        T::load(from).map(Box::new)
    }
}

impl Keep for Arc<[u8]> {
    fn save(&self, out: &mut dyn Write) -> io::Result<()> {
        save_bytes(self, out)
    }
    fn load(from: &mut dyn Read) -> io::Result<Self> {
        load_bytes(from).map(Into::into)
    }
}

impl<T: Keep, E: Keep> Keep for Result<T, E> {
    fn save(&self, out: &mut dyn Write) -> io::Result<()> {
        self.is_ok().save(out)?;
        match self {
            Ok(value) => value.save(out),
            Err(error) => error.save(out),
        }
    }
    fn load(from: &mut dyn Read) -> io::Result<Self> {
        if bool::load(from)? { T::load(from).map(Ok) } else { E::load(from).map(Err) }
    }
}

impl<T: Keep> Keep for Vec<T> {
    fn save(&self, out: &mut dyn Write) -> io::Result<()> {
        (self.len() as u64).save(out)?;
        self.iter().try_for_each(|value| value.save(out))
    }
    fn load(from: &mut dyn Read) -> io::Result<Self> {
        let count = usize::try_from(u64::load(from)?).map_err(|_| malformed())?;
        let mut all = Vec::with_capacity(count.min(AHEAD_MAX));
        for _ in 0..count {
            all.push(T::load(from)?);
        }
        Ok(all)
    }
}

impl<T: Keep> Keep for VecDeque<T> {
    fn save(&self, out: &mut dyn Write) -> io::Result<()> {
        (self.len() as u64).save(out)?;
        self.iter().try_for_each(|value| value.save(out))
    }
    fn load(from: &mut dyn Read) -> io::Result<Self> {
        Vec::load(from).map(VecDeque::from)
    }
}

impl<K: Keep + Ord, V: Keep> Keep for BTreeMap<K, V> {
    fn save(&self, out: &mut dyn Write) -> io::Result<()> {
        (self.len() as u64).save(out)?;
        self.iter().try_for_each(|(key, value)| {
            key.save(out)?;
            value.save(out)
        })
    }
    fn load(from: &mut dyn Read) -> io::Result<Self> {
        (0..u64::load(from)?).map(|_| <(K, V)>::load(from)).collect()
    }
}

/// Bytes, as they are.
pub(crate) fn save_bytes(bytes: &[u8], out: &mut dyn Write) -> io::Result<()> {
    (bytes.len() as u64).save(out)?;
    out.write_all(bytes)
}

/// Those bytes.
pub(crate) fn load_bytes(from: &mut dyn Read) -> io::Result<Vec<u8>> {
    let count = u64::load(from)?;
    let mut bytes = Vec::new();
    from.take(count).read_to_end(&mut bytes)?;
    if bytes.len() as u64 == count { Ok(bytes) } else { Err(malformed()) }
}
