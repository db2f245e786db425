//! Short byte strings: file names and open-owners.

use crate::keep::{Keep, load_bytes, save_bytes};
use ringback_rpc::nfs4::Status;
use std::fmt;
use std::io::{self, Read, Write};

/// Longest file name (the limit of most file systems).
pub(crate) const NAME_BYTES_MAX: usize = 255;
/// Bytes kept without an allocation: what fits beside the length in three words.
const INLINE: usize = 22;

/// Bytes, in place when they are few: of millions of names, most are short, and an allocation would cost more than
/// the name.
#[derive(Clone)]
pub(crate) enum ShortBytes {
    Inline { len: u8, bytes: [u8; INLINE] },
    Heap(Box<[u8]>),
}

const _: () = assert!(size_of::<ShortBytes>() == 24);

impl Keep for ShortBytes {
    fn save(&self, out: &mut dyn Write) -> io::Result<()> {
        save_bytes(self.as_bytes(), out)
    }
    fn load(from: &mut dyn Read) -> io::Result<Self> {
        load_bytes(from).map(|bytes| ShortBytes::new(&bytes))
    }
}

impl ShortBytes {
    pub(crate) fn new(from: &[u8]) -> Self {
        let mut bytes = [0; INLINE];
        match bytes.get_mut(..from.len()) {
            Some(space) => {
                space.copy_from_slice(from);
                ShortBytes::Inline { len: from.len() as u8, bytes }
            }
            None => ShortBytes::Heap(from.into()),
        }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        match self {
            ShortBytes::Inline { len, bytes } => bytes.get(..usize::from(*len)).unwrap_or_default(),
            ShortBytes::Heap(bytes) => bytes,
        }
    }
}

impl fmt::Debug for ShortBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.as_bytes().escape_ascii())
    }
}

/// Whether a name can be that of a file here (RFC 8881 sections 18.13.3 and 18.16.3).
pub(crate) fn check_name(name: &[u8]) -> Result<(), Status> {
    match name {
        // LOOKUP and OPEN alike.
        [] => Err(Status::NFS4ERR_INVAL),
        b"." | b".." => Err(Status::NFS4ERR_BADNAME),
        _ if name.len() > NAME_BYTES_MAX => Err(Status::NFS4ERR_NAMETOOLONG),
        _ if name.iter().any(|b| matches!(b, 0 | b'/')) => Err(Status::NFS4ERR_BADCHAR),
        _ if std::str::from_utf8(name).is_err() => Err(Status::NFS4ERR_INVAL),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_short_or_long() {
        for len in [0, 1, 21, 22, 23, 255] {
            let bytes: Vec<u8> = (0..len).map(|n| n as u8).collect();
            let kept = ShortBytes::new(&bytes);
            assert_eq!(kept.as_bytes(), bytes);
            assert_eq!(matches!(kept, ShortBytes::Inline { .. }), len <= INLINE);
        }
    }

    #[test]
    fn names_that_no_file_can_have() {
        let long = [b'a'; NAME_BYTES_MAX + 1];
        assert_eq!(check_name(&long[1..]), Ok(()));
        for (name, status) in [
            (&b""[..], Status::NFS4ERR_INVAL),
            (b"..", Status::NFS4ERR_BADNAME),
            (&long, Status::NFS4ERR_NAMETOOLONG),
            (b"a/b", Status::NFS4ERR_BADCHAR),
            (b"a\0", Status::NFS4ERR_BADCHAR),
            (b"\xff", Status::NFS4ERR_INVAL),
        ] {
            assert_eq!(check_name(name), Err(status), "{}", name.escape_ascii());
        }
    }
}
