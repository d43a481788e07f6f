select
    to_timestamp_millis(event_ms) as at,
    event,
    substr(policy_id, 8, 12) as policy,
    verdict,
    actor,
    reason
from policy_events
order by sequence desc
limit 20
