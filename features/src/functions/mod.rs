//! The functions that Weir adds to SQL.
//!
//! | function | gives |
//! |---|---|
//! | `ddsketch(x)`, `ddsketch_merge(sketch)` | a quantile sketch of whole numbers; NULL when there were none |
//! | `joint_histogram(prompt, completion)`, `joint_histogram_merge(h)` | the joint distribution of token counts |
//! | `second_counts(arrival_ms)`, `second_counts_merge(c)` | arrivals per second |
//! | `ddsketch_quantile(sketch, q)` | the nearest-rank quantile, within 1 % |
//! | `ddsketch_count`, `_min`, `_max`, `_sum`, `_mean` `(sketch)` | exact figures of a sketch |
//! | `joint_histogram_count(h)` | requests in a joint histogram |
//! | `second_counts_count(c)`, `second_counts_span(c)`, `dispersion(c)` | arrivals, seconds spanned, index of dispersion |
//! | `second_counts_first_s(c)`, `second_counts_last_s(c)` | second of the first and the last arrival since the Unix epoch |
//! | `failed_tool_calls(tools_called)` | how many of the calls are known to have failed |
//!
//! NULL and negative values are not durations or counts: the aggregates skip them.

mod accessors;
mod aggregates;
mod tool_calls;

use datafusion::execution::context::SessionContext;

/// Adds the functions to a session.
pub fn register(ctx: &SessionContext) {
    aggregates::all().into_iter().for_each(|function| ctx.register_udaf(function));
    accessors::all().into_iter().for_each(|function| ctx.register_udf(function));
    ctx.register_udf(tool_calls::failed_tool_calls());
}

#[cfg(test)]
mod tests;
