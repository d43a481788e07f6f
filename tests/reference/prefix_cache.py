"""Hit ratios of a prefix cache on Mooncake's traces, computed from their raw files without anything of Weir.

    python prefix_cache.py DATA

DATA is the folder of public data sets. One line a size: trace, capacity in blocks, requests, requests with a hit, blocks,
blocks that were hits; separated by tabs. The cache is simulated as an engine keeps it, one size after the other, up to the
first power of two that holds whatever comes again.
"""

import sys
from collections import OrderedDict

import duckdb


def hits_of(prompts, capacity):
    """A cache that evicts what was used least recently; a prompt is used from its last block to its first."""
    cache, requests, blocks = OrderedDict(), 0, 0
    for prompt in prompts:
        held = sum(block in cache for block in prompt)
        requests += held > 0
        blocks += held
        for block in reversed(prompt):
            cache[block] = None
            cache.move_to_end(block)
            if capacity is not None and len(cache) > capacity:
                cache.popitem(last=False)
    return requests, blocks


def main(data):
    for name in ("conversation", "synthetic"):
        file = f"{data}/mooncake_fast25/{name}.parquet"
        rows = duckdb.sql(f"SELECT hash_ids FROM '{file}' ORDER BY timestamp_ms, seq").fetchall()
        prompts = [prompt for (prompt,) in rows if prompt]
        whole = hits_of(prompts, None)
        capacity = 1
        while True:
            hits = hits_of(prompts, capacity)
            print(name, capacity, len(prompts), hits[0], sum(map(len, prompts)), hits[1], sep="\t")
            if hits == whole:
                break
            capacity *= 2


if __name__ == "__main__":
    main(sys.argv[1])
