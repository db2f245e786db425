//! libFuzzer on CB_COMPOUND replies.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    ringback_fuzz::targets::callback_results(data);
});
