-- Every message that the broker handed out, wherever it ended: a raw table or the dead letters. `messages` counts the
-- distinct places in the topics, so rows - messages is what was stored twice. Verdicts that Weir computed itself are rows
-- without a topic of their own and are left out.
select
    cast(count(*) as bigint) as stored,
    cast(count(*) filter (where dead) as bigint) as dead_letters,
    cast(count(distinct source_topic || '/' || source_partition || '/' || source_offset) as bigint) as messages
from (
    select source_topic, source_partition, source_offset, false as dead from raw_requests
    union all
    select source_topic, source_partition, source_offset, false as dead from raw_feedback where source_topic not like 'weir:%'
    union all
    select source_topic, source_partition, source_offset, false as dead from raw_gpu_telemetry
    union all
    select source_topic, source_partition, source_offset, true as dead from dead_letters
) as rows
