//! The recipes of `deploy/recipes`, each with the real tool, through a real Kafka.
//!
//! `tool.sh` finds the tools in the cache, and fetches them when `WEIR_RECIPES=1`; a test whose tool is missing says
//! `skipped: ...`. The provider behind LiteLLM is `openai_server.py`; nothing leaves the loopback.

mod gpu_metrics;
mod litellm;
mod otel_collector;
mod parts;
mod replay_table;
mod router_logs;
mod topics;
