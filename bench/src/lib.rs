//! Workloads for ringback: the client swarm, the storm that it takes part in, and the peers that ringback is measured
//! against.

pub mod peers;
mod picture;
pub mod soak;
pub mod storm;
pub mod swarm;
