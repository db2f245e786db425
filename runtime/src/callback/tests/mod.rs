//! Plain tests, and the loom tests of the same code: `RUSTFLAGS="--cfg loom" cargo test --release --lib -p ringback loom`.

#[cfg(not(loom))]
mod life;
