//! libFuzzer on the backchannel core.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    ringback_fuzz::backchannel::backchannel(data);
});
