//! libFuzzer on fore-channel compounds.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    ringback_fuzz::targets::fore(data);
});
