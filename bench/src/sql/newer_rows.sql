-- {newer}: for each partition, the offsets behind the last one that was seen.
SELECT source_partition, source_offset, arrival_ms FROM raw_requests WHERE {newer}
