//! What must hold of any bytes: one function a fuzz target, which panics where its law is broken. The tests replay the
//! targets' seeds, and every input that ever broke one.

pub use crate::buffer::fuzzing::bridge_buffer;
pub use crate::receive::fuzzing::{otlp, remote_write};

#[cfg(test)]
#[path = "../../fuzz/inputs.rs"]
mod inputs;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_of_remote_write_become_messages_of_the_contract() {
        inputs::replay("remote_write", remote_write);
    }

    #[test]
    fn inputs_of_otlp_become_messages_without_text() {
        inputs::replay("otlp", otlp);
    }

    #[test]
    fn inputs_of_bridge_buffer_are_recovered_up_to_what_is_no_record() {
        inputs::replay("bridge_buffer", bridge_buffer);
    }
}
