//! libFuzzer on CB_COMPOUND calls.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    ringback_fuzz::targets::callback_args(data);
});
