-- Event time of the newest request that was summarised, ms since the epoch.
select max(last_arrival_ms) as last_arrival_ms
from workload_minute
