//! Workloads for ringback: the client swarm, and the storm that it takes part in.

pub mod storm;
pub mod swarm;
