#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| weir_policy_runtime::fuzzing::policy_bundle(input));
