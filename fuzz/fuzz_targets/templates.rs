#![no_main]

#[path = "../parsers_harness.rs"]
#[allow(dead_code, reason = "each target uses one of its functions")]
mod parsers_harness;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = parsers_harness::template(bytes);
});
