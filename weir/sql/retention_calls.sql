-- Requests whose router tells the hashes of their prefix blocks, in the order of arrival, with what their class is made of.
-- {from_ms}, {to_ms}, {model} and {pool} are put in by the caller.
select
    arrival_ms,
    arrival_ms + coalesce(e2e_us, 0) / 1000 as end_ms,
    coalesce(tenant, '') as tenant,
    session_id,
    system_prompt_hash,
    -- A router that does not name the calls may still say that generation ended for them.
    coalesce(
        tools_called[cast(cardinality(tools_called) as bigint)]['name'],
        case when finish_reason in ('tool_calls', 'tool_use') then 'unnamed' end
    ) as tool,
    prefix_block_hashes
from requests
where
    cardinality(prefix_block_hashes) > 0
    and arrival_ms >= {from_ms}
    and arrival_ms < {to_ms}
    and {model}
    and {pool}
order by arrival_ms, tenant, request_id
