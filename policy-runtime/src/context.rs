//! What is known of a request when a model is to be chosen.

use serde::{Deserialize, Serialize};

/// A request as the policy sees it, borrowed. Everything may be missing, and missing is never imputed: it is a value
/// of its own for the network. Nothing here is known only after the answer (tokens generated, latency, verdicts).
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Context<'a> {
    /// Subject that the router's classifier found.
    pub domain: Option<&'a str>,
    /// Complexity class that the router found.
    pub complexity: Option<&'a str>,
    /// Language, BCP 47.
    pub language: Option<&'a str>,
    /// API family (`chat_completions`, `responses`, ...).
    pub api: Option<&'a str>,
    /// Prompt length, tokens.
    pub prompt_tokens: Option<u32>,
    /// Position in the session, from 0.
    pub turn: Option<u32>,
    /// Messages in the request.
    pub message_count: Option<u32>,
    /// Number of tools that the request offers.
    pub tools_offered: Option<u32>,
    /// The request seeks facts that can be checked.
    pub fact_check: Option<bool>,
    /// The request holds images, audio or video.
    pub multimodal: Option<bool>,
    /// Embedding of the request.
    pub embedding: Option<&'a [f32]>,
    /// Name of the model that made the embedding: vectors of different models share no space.
    pub embedding_model: Option<&'a str>,
    /// The model that answered the session's turn before.
    pub warm_model: Option<&'a str>,
    /// Tokens of prompt and completion of that turn: what this model's cache holds, if nothing was evicted.
    pub warm_tokens: Option<u32>,
    /// Earlier turns of the session that failed.
    pub failures: Option<u32>,
    /// Did the turn before fail?
    pub failed_last: Option<bool>,
    /// Tool calls of the session's earlier turns.
    pub tool_calls: Option<u32>,
}

/// [`Context`], owned: for logs, training sets and JSON. The fields mean the same.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OwnedContext {
    /// See [`Context::domain`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// See [`Context::complexity`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub complexity: Option<String>,
    /// See [`Context::language`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// See [`Context::api`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api: Option<String>,
    /// See [`Context::prompt_tokens`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_tokens: Option<u32>,
    /// See [`Context::turn`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub turn: Option<u32>,
    /// See [`Context::message_count`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_count: Option<u32>,
    /// See [`Context::tools_offered`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tools_offered: Option<u32>,
    /// See [`Context::fact_check`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fact_check: Option<bool>,
    /// See [`Context::multimodal`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub multimodal: Option<bool>,
    /// See [`Context::embedding`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub embedding: Option<Vec<f32>>,
    /// See [`Context::embedding_model`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub embedding_model: Option<String>,
    /// See [`Context::warm_model`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warm_model: Option<String>,
    /// See [`Context::warm_tokens`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warm_tokens: Option<u32>,
    /// See [`Context::failures`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failures: Option<u32>,
    /// See [`Context::failed_last`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed_last: Option<bool>,
    /// See [`Context::tool_calls`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_calls: Option<u32>,
}

impl OwnedContext {
    /// Borrows it for scoring.
    #[must_use]
    pub fn as_context(&self) -> Context<'_> {
        Context {
            domain: self.domain.as_deref(),
            complexity: self.complexity.as_deref(),
            language: self.language.as_deref(),
            api: self.api.as_deref(),
            prompt_tokens: self.prompt_tokens,
            turn: self.turn,
            message_count: self.message_count,
            tools_offered: self.tools_offered,
            fact_check: self.fact_check,
            multimodal: self.multimodal,
            embedding: self.embedding.as_deref(),
            embedding_model: self.embedding_model.as_deref(),
            warm_model: self.warm_model.as_deref(),
            warm_tokens: self.warm_tokens,
            failures: self.failures,
            failed_last: self.failed_last,
            tool_calls: self.tool_calls,
        }
    }
}

impl From<Context<'_>> for OwnedContext {
    fn from(context: Context<'_>) -> Self {
        Self {
            domain: context.domain.map(str::to_owned),
            complexity: context.complexity.map(str::to_owned),
            language: context.language.map(str::to_owned),
            api: context.api.map(str::to_owned),
            prompt_tokens: context.prompt_tokens,
            turn: context.turn,
            message_count: context.message_count,
            tools_offered: context.tools_offered,
            fact_check: context.fact_check,
            multimodal: context.multimodal,
            embedding: context.embedding.map(<[f32]>::to_vec),
            embedding_model: context.embedding_model.map(str::to_owned),
            warm_model: context.warm_model.map(str::to_owned),
            warm_tokens: context.warm_tokens,
            failures: context.failures,
            failed_last: context.failed_last,
            tool_calls: context.tool_calls,
        }
    }
}
