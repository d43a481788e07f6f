#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| weir_bridge::fuzzing::remote_write(input));
