-- Of each topic, where its messages ended: `stored` are rows in the raw table, `dead_letters` those that could not be read
-- as events. `messages` counts the distinct places in the topic, so produced - messages is what was lost, and
-- stored + dead_letters - messages what was stored twice. Verdicts that Weir computed itself come from no topic and are left
-- out.
select
    source_topic as topic,
    cast(count(*) filter (where not dead) as bigint) as stored,
    cast(count(*) filter (where dead) as bigint) as dead_letters,
    cast(count(distinct source_partition || '/' || source_offset) as bigint) as messages
from (
    select source_topic, source_partition, source_offset, false as dead from raw_requests
    union all
    select source_topic, source_partition, source_offset, false as dead from raw_feedback where source_topic not like 'weir:%'
    union all
    select source_topic, source_partition, source_offset, false as dead from raw_gpu_telemetry
    union all
    select source_topic, source_partition, source_offset, true as dead from dead_letters
) as rows
group by source_topic
order by source_topic
