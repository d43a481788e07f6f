-- Event times of the newest request that was summarised and of the newest that can have happened, ms since the epoch: one
-- sender whose clock is ahead must not move a range away from everyone else's requests.
-- {now_ms} is put in by the caller.
select
    max(last_arrival_ms) as last_arrival_ms,
    max(least(last_arrival_ms, {now_ms})) filter (where window_start_ms <= {now_ms}) as last_past_arrival_ms
from workload_minute
