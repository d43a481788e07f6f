-- How much the prefix cache holds, per tenant, model and pool, over the minutes that overlap a range: requests whose engine
-- reports it and the warm ones among them, their prompt tokens and the cached ones among those.
-- {after_ms} and {before_ms}, bounds on the start of a minute, are put in by the caller.
select
    tenant,
    model,
    pool,
    cast(sum(cache_reported_requests) as double) as requests,
    cast(sum(warm_requests) as double) as warm_requests,
    cast(sum(cache_reported_prompt_tokens) as double) as prompt_tokens,
    cast(sum(cached_prompt_tokens) as double) as cached_tokens
from workload_minute
where window_start_ms > {after_ms} and window_start_ms < {before_ms}
group by tenant, model, pool
