-- The workload mix of everything summarised so far, as one row.
select requests, agent_share, multi_turn_share, warm_share, warm_token_share, prefill_heavy_share, error_share
from workload_mix
