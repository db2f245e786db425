//! Fuzz targets and their corpora.
//!
//! - [`targets`]: what a fuzzer runs, one function for each decoder that reads what a peer sends.
//! - [`seeds`]: the committed inputs they start from.
#![forbid(unsafe_code)]

pub mod seeds;
pub mod targets;
