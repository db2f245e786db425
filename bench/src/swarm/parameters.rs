//! What a client wants to be called with, program and credential: something else whenever it was cut off.

use super::config::SwarmConfig;
use ringback_rpc::message::AuthSys;
use ringback_rpc::xdr::{Encode, Writer};

/// In the transient range (RFC 5531 section 8.4), and not the number in the XDR, so that a server that takes that one
/// instead of what it was told is found out.
const PROGRAM_FIRST: u32 = 0x4100_0000;
/// From one generation's number to the next: more than there are clients, so that each number is of one client.
const GENERATION_STEP: u32 = 1 << 15;

/// The parameters of one client's callbacks, generation by generation.
#[derive(Debug, Default)]
pub(crate) struct Parameters {
    index: u32,
    uid: u32,
    gid: u32,
    /// The newest that the server was asked for.
    asked: u32,
    /// The newest that it has agreed to.
    agreed: u32,
    /// The credential of one generation, that of the last callback.
    expected: Option<(u32, Vec<u8>)>,
}

impl Parameters {
    pub(crate) fn new(index: u32, config: &SwarmConfig) -> Self {
        Parameters { index, uid: config.uid, gid: config.gid, ..Parameters::default() }
    }

    /// The newest program.
    pub(crate) const fn program(&self) -> u32 {
        PROGRAM_FIRST + self.asked * GENERATION_STEP + self.index
    }

    /// The newest credential: the body of an AUTH_SYS one.
    pub(crate) fn credential(&self) -> Vec<u8> {
        self.credential_of(self.asked)
    }

    fn credential_of(&self, generation: u32) -> Vec<u8> {
        let mut space = [0; 64];
        let mut w = Writer::new(&mut space);
        let stamp = generation * GENERATION_STEP + self.index;
        let written = AuthSys::new(stamp, b"ringback-swarm", self.uid, self.gid, &[]).map(|sys| sys.encode(&mut w));
        debug_assert_eq!(written, Some(Ok(())));
        w.written().to_vec()
    }

    /// The server is about to be asked for new ones: their generation.
    pub(crate) fn ask(&mut self) -> u32 {
        self.asked += 1;
        self.asked
    }

    /// The server has agreed.
    pub(crate) fn agree(&mut self, generation: u32) {
        self.agreed = self.agreed.max(generation);
    }

    /// The newest generation that the server has agreed to.
    pub(crate) const fn agreed(&self) -> u32 {
        self.agreed
    }

    /// The generation of a program; `None`: it is not of this client, or was never asked for.
    pub(crate) fn generation(&self, program: u32) -> Option<u32> {
        let above = program.checked_sub(PROGRAM_FIRST + self.index)?;
        let generation = above / GENERATION_STEP;
        (above.is_multiple_of(GENERATION_STEP) && generation <= self.asked).then_some(generation)
    }

    /// Whether this is the credential of the same generation.
    pub(crate) fn is_credential(&mut self, generation: u32, body: &[u8]) -> bool {
        if self.expected.as_ref().is_none_or(|(of, _)| *of != generation) {
            self.expected = Some((generation, self.credential_of(generation)));
        }
        self.expected.as_ref().is_some_and(|(_, expected)| expected == body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storm::cli::{CLIENTS_MAX, CUTS_MAX};

    #[test]
    fn every_generation_of_every_client_has_numbers_of_its_own() {
        const { assert!(CLIENTS_MAX < GENERATION_STEP) };
        let config = SwarmConfig::new("127.0.0.1:1".parse().unwrap());
        let mut last = Parameters::new(CLIENTS_MAX, &config);
        let mut other = Parameters::new(0, &config);
        for _ in 0..CUTS_MAX {
            let before = (last.program(), last.credential());
            let generation = last.ask();
            other.ask();
            assert_eq!(
                (last.generation(before.0), last.generation(last.program())),
                (Some(generation - 1), Some(generation))
            );
            assert_eq!((last.generation(other.program()), other.generation(last.program())), (None, None));
            assert!(last.is_credential(generation - 1, &before.1) && !last.is_credential(generation, &before.1));
        }
        // The range that RFC 5531 section 8.4 has for this.
        assert!((0x4000_0000..0x6000_0000).contains(&last.program()));
        assert_eq!(last.generation(last.program() + GENERATION_STEP), None, "never asked for");
    }
}
