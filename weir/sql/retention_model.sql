-- The model with most prefix blocks. Requests of which no model is told are one model's.
-- {from_ms}, {to_ms} and {pool} are put in by the caller.
select model
from requests
where
    cardinality(prefix_block_hashes) > 0
    and arrival_ms >= {from_ms}
    and arrival_ms < {to_ms}
    and {pool}
group by model
order by sum(cardinality(prefix_block_hashes)) desc, model
limit 1
