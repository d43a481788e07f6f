//! What must hold of any bytes: one function a fuzz target, which panics where its law is broken. The tests replay the
//! targets' seeds, and every input that ever broke one.

use crate::adapters::vllm_sr::{AdaptError, adapt};

/// A replay record is read as one alone and as the only one of a page; its feedback is about its requests or its
/// session; and what came of it survives its own JSON.
pub fn replay_adapter(bytes: &[u8]) {
    let Ok(adapted) = adapt(bytes) else { return };
    assert!(!adapted.requests.is_empty(), "a message that is read holds a record");
    for row in &adapted.feedback {
        // A follow-up signal is about an earlier turn of the session, whose request id the record does not have.
        let known = row
            .request_id
            .as_ref()
            .map_or(row.session_id.is_some(), |id| adapted.requests.iter().any(|request| request.request_id == *id));
        assert!(known, "feedback about nothing that its message names: {row:?}");
    }
    for request in &adapted.requests {
        let json = serde_json::to_vec(request).unwrap();
        assert_eq!(&serde_json::from_slice::<crate::Request>(&json).unwrap(), request);
    }
    for row in &adapted.feedback {
        let json = serde_json::to_vec(row).unwrap();
        assert_eq!(&serde_json::from_slice::<crate::Feedback>(&json).unwrap(), row);
    }

    let page = [br#"{"object":"router_replay.list","data":["#, bytes, b"]}"].concat();
    match adapt(&page) {
        Ok(of_page) => assert_eq!(of_page, adapted),
        // Two levels deeper, it can be too deep; and a page in a page is no record.
        Err(AdaptError::NotJson { .. }) => {}
        Err(AdaptError::InPage { why, .. }) if matches!(*why, AdaptError::NotAReplayRecord) => {}
        Err(error) => panic!("a record is refused as the only one of a page: {error}"),
    }
}

#[cfg(test)]
#[path = "../../fuzz/inputs.rs"]
mod inputs;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_of_replay_adapter_mean_the_same_in_a_page() {
        inputs::replay("replay_adapter", replay_adapter);
    }
}
