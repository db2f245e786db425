//! Workloads for ringback: the client swarm, the storm that it takes part in, and the peers that ringback is measured
//! against.

pub mod peers;
pub mod soak;
pub mod storm;
pub mod swarm;
