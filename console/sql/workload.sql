-- The mix, one class a row, so that shares can be drawn as bars.
with mix as (select * from workload_mix)
select class, share from (
select 'agent' as class, agent_share as share from mix
union all select 'chat', chat_share from mix
union all select 'multi-turn', multi_turn_share from mix
union all select 'warm (requests)', warm_share from mix
union all select 'warm (tokens)', warm_token_share from mix
union all select 'prefill-heavy', prefill_heavy_share from mix
union all select 'decode-heavy', decode_heavy_share from mix
union all select 'image', image_share from mix
union all select 'errors', error_share from mix
union all select 'fallbacks', fallback_share from mix
) as classes
order by share desc nulls last
