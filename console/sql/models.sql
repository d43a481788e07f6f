select
    model,
    requests,
    traffic_share as share,
    completion_tokens_mean as tokens_out,
    ttft_p50_ms,
    ttft_p99_ms,
    usd_per_request
from models
order by requests desc
limit 30
