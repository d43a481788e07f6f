//! Which attributes can hold the text of a prompt or a response. They are personal data: dropped at the bridge, before
//! the disk buffer, unless the operator keeps text.

/// Names of attributes that hold text, and, where they end with a dot, starts of such names. OpenTelemetry's
/// conventions for generative AI of several years, and the instrumentations that have names of their own.
const NAMES: &[&str] = &[
    // OpenTelemetry GenAI.
    "gen_ai.prompt",
    "gen_ai.prompt.",
    "gen_ai.completion",
    "gen_ai.completion.",
    "gen_ai.input.messages",
    "gen_ai.output.messages",
    "gen_ai.system_instructions",
    "gen_ai.tool.definitions",
    "gen_ai.tool.call.arguments",
    "gen_ai.tool.call.result",
    "gen_ai.evaluation.explanation",
    "gen_ai.retrieval.query.text",
    "gen_ai.retrieval.documents",
    "gen_ai.memory.",
    // Before there were conventions, and OpenInference.
    "llm.prompts",
    "llm.prompts.",
    "llm.completions",
    "llm.completions.",
    "llm.input_messages",
    "llm.input_messages.",
    "llm.output_messages",
    "llm.output_messages.",
    "llm.prompt_template.",
    "llm.tools",
    "llm.tools.",
    "llm.function_call",
    "llm.request.functions.",
    "input.value",
    "output.value",
    "message.content",
    "message.contents",
    "document.content",
    "retrieval.documents",
    "retrieval.documents.",
    "reranker.query",
    "tool.parameters",
    // OpenLLMetry.
    "traceloop.entity.input",
    "traceloop.entity.output",
    "traceloop.prompt.",
    // Frameworks with names of their own.
    "ai.prompt",
    "ai.prompt.",
    "ai.response.text",
    "ai.response.object",
    "ai.response.reasoning",
    "ai.response.toolCalls",
    "ai.result.",
    "ai.toolCall.args",
    "ai.toolCall.result",
    "langfuse.observation.input",
    "langfuse.observation.output",
    "langfuse.trace.input",
    "langfuse.trace.output",
    "mlflow.spanInputs",
    "mlflow.spanOutputs",
    "all_messages_events",
    "pydantic_ai.all_messages",
    "final_result",
    "tool_arguments",
    "tool_response",
    "request_data",
    "response_data",
    "http.request.body",
    "http.request.body.content",
    "http.response.body",
    "http.response.body.content",
    // An error can quote what it was about.
    "exception.message",
    "exception.stacktrace",
    "error.message",
];

/// Names that hold text in an event of GenAI, where they are short.
const IN_GENAI_EVENTS: &[&str] = &["content", "message", "messages", "body", "tool_calls", "arguments"];

/// What to do with text.
#[derive(Debug, Clone)]
pub(crate) struct Text {
    keep: bool,
    more: Vec<String>,
}

impl Text {
    /// Keeps everything.
    pub(crate) fn kept() -> Self {
        Self { keep: true, more: Vec::new() }
    }

    /// Drops what can hold text, and attributes of these names too.
    pub(crate) fn dropped(more: &[String]) -> Self {
        Self { keep: false, more: more.to_vec() }
    }

    /// Is everything kept?
    pub(crate) fn is_kept(&self) -> bool {
        self.keep
    }

    /// Is the attribute of that name dropped?
    pub(crate) fn drops(&self, name: &str) -> bool {
        let is = |known: &str| name == known || (known.ends_with('.') && name.starts_with(known));
        !self.keep && (NAMES.iter().any(|known| is(known)) || self.more.iter().any(|known| is(known)))
    }

    /// Is it dropped from an event of GenAI?
    pub(crate) fn drops_in_genai_event(&self, name: &str) -> bool {
        !self.keep && IN_GENAI_EVENTS.contains(&name)
    }
}

/// Is this the name of an event of GenAI?
pub(crate) fn is_genai_event(name: &str) -> bool {
    name.starts_with("gen_ai.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_hold_text_are_dropped_and_their_neighbours_are_not() {
        let text = Text::dropped(&["acme.question".into(), "acme.raw.".into()]);
        for name in [
            "gen_ai.prompt",
            "gen_ai.prompt.0.content",
            "gen_ai.completion.1.content",
            "gen_ai.input.messages",
            "gen_ai.output.messages",
            "gen_ai.system_instructions",
            "gen_ai.tool.call.arguments",
            "gen_ai.tool.call.result",
            "llm.prompts",
            "llm.prompts.0.user",
            "traceloop.entity.input",
            "traceloop.entity.output",
            "acme.question",
            "acme.raw.body",
        ] {
            assert!(text.drops(name), "{name}");
            assert!(!Text::kept().drops(name), "{name}");
        }
        for name in [
            "gen_ai.request.model",
            "gen_ai.usage.input_tokens",
            "gen_ai.response.finish_reasons",
            "gen_ai.prompt_tokens",
            "gen_ai.tool.call.id",
            "error.type",
            "exception.type",
            "acme.questions",
        ] {
            assert!(!text.drops(name), "{name}");
        }
        assert!(text.drops_in_genai_event("content") && !Text::kept().drops_in_genai_event("content"));
    }
}
