#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| weir_schemas::fuzzing::replay_adapter(input));
