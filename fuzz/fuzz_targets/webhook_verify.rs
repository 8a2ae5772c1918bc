//! Any request: `cargo fuzz run webhook_verify`.
#![no_main]

#[path = "../webhook_harness.rs"]
mod webhook_harness;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = webhook_harness::outcomes(bytes);
});
