-- Prompt tokens and the cached ones among them, per model, over requests whose engine reports cached tokens.
select
    model,
    cast(sum(cached_prompt_tokens) as double) as cached,
    cast(sum(cache_reported_prompt_tokens) as double) as prompt
from workload_minute
group by model
