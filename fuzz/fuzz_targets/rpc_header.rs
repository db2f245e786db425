//! libFuzzer on RPC headers.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    ringback_fuzz::targets::rpc_header(data);
});
