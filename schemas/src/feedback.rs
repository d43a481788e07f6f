//! `feedback`: what somebody or something thought of a request or a session, whenever it comes.

use std::collections::BTreeMap;

use crate::contract::contract;
use crate::units::EventTimeMs;

contract! {
    /// One opinion on a request or a session. It may come days late, twice, or before its request; the last
    /// revision of a `feedback_id` counts.
    Feedback = "feedback", time = "event_ms",
    pseudonymised = ["session_id", "caller"], text = [];
    required {
        feedback_id: String = Text, "id", "Id of this opinion; a repeated id is the same opinion.";
        event_ms: EventTimeMs = Int64, "ms since the Unix epoch", "When the opinion was formed.";
        source: String = Text, "one of: user, operator, agent, judge, evaluation, router", "Who says so.";
        kind: String = Text, "one of: thumb, rating, verdict, pairwise, task_success, follow_up, approval, security_event", "What is said.";
    }
    optional {
        revision: i32 = Int32, "count", "Higher revisions replace lower ones; null is 0.";
        tenant: String = Text, "name", "Tenant of the request or session. Send it wherever the requests carry one: pseudonyms are made with its key.";
        request_id: String = Text, "id", "The request that it is about.";
        session_id: String = Text, "id, pseudonym in the table", "The session that it is about.";
        turn: i32 = Int32, "count from 0", "The turn of the session that it is about, if it is about one.";
        caller: String = Text, "id, pseudonym in the table", "Who gave it; of a security event that names no request, whom it is about.";
        model: String = Text, "name", "The model that it is about, if it says.";
        other_model: String = Text, "name", "The other side of a pairwise preference.";
        value: f64 = Float64, "0..1, higher is better", "The opinion as a number; null when nothing was checked.";
        label: String = Text, "name", "The opinion as a class (satisfied, hallucination, wrong_answer, ...).";
        confidence: f64 = Float64, "0..1", "How sure the source is.";
        checked: bool = Bool, "flag", "Did the check run at all? False or null is missing, never clean.";
        estimator: String = Text, "id", "Artifact that computed the verdict, for source evaluation.";
        retracted: bool = Bool, "flag", "The opinion is withdrawn.";
        tool: String = Text, "name", "The tool whose call was approved or denied (value 1 or 0), for kind approval.";
        operation: String = Text, "name", "The tool's operation, where it has several.";
        extra: BTreeMap<String, String> = TextMap, "JSON text, headers as they are", "Unknown fields and headers (`header.NAME`) whose names the operator allowed.";
    }
}
