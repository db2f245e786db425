//! libFuzzer on the simulator.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    ringback_fuzz::targets::simulator(data);
});
