//! The functions that Weir adds to SQL.
//!
//! | function | gives |
//! |---|---|
//! | `ddsketch(x)` | a quantile sketch of whole numbers |
//! | `moments(x)` | count, sum and sum of squares of whole numbers |
//! | `fixed_histogram(x, '100,250,1000')` | counts of whole numbers between edges |
//! | `joint_histogram(prompt, completion)` | the joint distribution of token counts |
//! | `second_counts(arrival_ms)` | arrivals per second |
//! | `beta_counts(flag)` | how often true and how often false |
//! | `decayed_sum(x, event_ms, half_life_ms)` | a sum of whole numbers that forgets |
//! | `distinct_count(name)` | how many different names |
//! | `name_counts(name)`, `transition_counts(from, to)` | how often each, of a small vocabulary |
//! | `heavy_hitters(name, event_id)` | which names are frequent, of any vocabulary |
//! | `id_sample(id)` | a uniform sample of up to 64 ids |
//! | `first_last(event_ms, text)` | what came first and last |
//! | `X_merge(summary)` for each of these | several summaries as one; NULL when there were none |
//! | `ddsketch_quantile(sketch, q)` | the nearest-rank quantile, within 1 % |
//! | `ddsketch_share_to(sketch, x)` | the share of values of at most x; a value within 1 % of x may be on either side |
//! | `ddsketch_count`, `_min`, `_max`, `_sum`, `_mean` `(sketch)` | exact figures of a sketch |
//! | `moments_count`, `_mean`, `_variance`, `_squared_cv`, `_min`, `_max` `(moments)` | exact figures; the sample's variance |
//! | `fixed_histogram_json(h)`, `fixed_histogram_share_below(h, edge)` | edges and counts; the share of values below an edge |
//! | `joint_histogram_count(h)` | requests in a joint histogram |
//! | `joint_histogram_share_to(h, x)` | the share of requests of at most x tokens in all; one within 5 % of x may be on either side |
//! | `second_counts_count(c)`, `second_counts_span(c)`, `dispersion(c)` | arrivals, seconds spanned, index of dispersion |
//! | `second_counts_first_s(c)`, `second_counts_last_s(c)` | second of the first and the last arrival since the Unix epoch |
//! | `dispersion_at(c, window_s)` | index of dispersion of arrivals per window of so many seconds |
//! | `second_counts_by_window(c, window_s)` | a quantile sketch of arrivals per window; NULL where no window is whole |
//! | `beta_counts_yes(b)`, `beta_counts_no(b)`, `beta_counts_rate(b)` | counts, and the observed rate |
//! | `beta_counts_quantile(b, q)` | a quantile of the rate after Jeffreys' prior: 0.025 and 0.975 are a credible interval |
//! | `decayed_sum_at(d, at_ms)` | the sum as it weighs at that moment, within 0.1 % |
//! | `distinct_count_estimate(d)` | exact up to 256, with a standard error of 1.6 % above |
//! | `name_counts_of(c, name)`, `name_counts_json(c)`, `transition_counts_json(c)` | one count; all as JSON |
//! | `heavy_hitters_json(h, n)`, `heavy_hitters_events(h)` | the n most frequent as JSON; events seen |
//! | `id_sample_json(s)` | the ids as JSON |
//! | `first_last_first(f)`, `_last`, `_first_ms`, `_last_ms` | both ends, and when they were |
//! | `action_part(name, 'model')`, `'provider'`, `'reasoning'` | one part of an action's name; NULL where the name does not say it |
//! | `failed_tool_calls(tools_called)` | how many of the calls are known to have failed |
//! | `tool_failures(tools_called, tools_offered)` | the classes of the calls that failed: `wrong_tool`, `bad_arguments`, `tool_error` |
//! | `failed_tools(tools_called)` | the names of the tools whose calls failed |
//! | `prefix_depths(prefix_block_hashes) OVER (PARTITION BY ... ORDER BY ...)` | how deep each block of a prompt lies in the order of last use |
//! | `prefix_hits(depths, capacity_blocks)` | how many of a prompt's blocks a cache of that size still held; NULL is a cache without an end |
//! | `drift(series, value, at_ms, patience) OVER (ORDER BY at_ms)` | which series have changed: an e-detector each, judged together at each time |
//! | `robust_line(x, y)` | Theil's and Sen's line: `slope`, `slope_low`, `slope_high`, `intercept`, `points` |
//! | `pooled_rates(successes, trials, level, ...) OVER ()` | for each level a `rate` with `low` and `high`, 95 %, by partial pooling of cells along the levels |
//! | `new_words_used(previous, prompt, response)` | the share of the words that a prompt adds to the one before which the answer has too |
//! | `boundary_declaration(response)` | a sentence in which a model says that it will not do something: `declaration` and `subject` |
//! | `spread(name, n)` | a place from 0 to n - 1, always the same for a name |
//!
//! Aggregates skip rows in which an argument is NULL. Negative numbers are no durations or counts: `ddsketch` and
//! `joint_histogram` skip them. A figure of a histogram or a decayed sum whose parts had other edges or half-lives is NULL.

mod accessors;
mod action_part;
mod aggregates;
mod collect;
mod drift;
mod pooled_rates;
mod prefix_depths;
mod robust_line;
mod spread;
mod text;
mod tool_calls;
mod tool_failures;

use datafusion::execution::context::SessionContext;

/// Adds the functions to a session.
pub fn register(ctx: &SessionContext) {
    aggregates::all().into_iter().for_each(|function| ctx.register_udaf(function));
    accessors::all().into_iter().for_each(|function| ctx.register_udf(function));
    ctx.register_udf(action_part::action_part());
    ctx.register_udf(tool_calls::failed_tool_calls());
    ctx.register_udf(tool_failures::tool_failures());
    ctx.register_udf(tool_failures::failed_tools());
    ctx.register_udf(spread::spread());
    ctx.register_udf(text::new_words_used());
    ctx.register_udf(text::boundary_declaration());
    ctx.register_udaf(robust_line::robust_line());
    ctx.register_udf(prefix_depths::prefix_hits());
    ctx.register_udwf(prefix_depths::prefix_depths());
    ctx.register_udwf(drift::drift());
    ctx.register_udwf(pooled_rates::pooled_rates());
}

#[cfg(test)]
mod tests;
